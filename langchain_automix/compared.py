"""What a comparison of checks comes to: a row a check, and what the rows can tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from langchain_automix.policy.metrics import Interval


@dataclass(frozen=True)
class ComparedCheck:
    """What one check tells of the answers of one model, and what a policy makes of it.

    Intervals are of 95 %. None stands for what is not known or not defined.
    """

    name: str
    samples: int | None
    """Verdicts that the policy may draw, the first ones of the log; None for a check with a score,
    or where all checks are used together."""

    answers: int
    """Answers that were checked."""

    unknown: float | None
    """Share of the answers, in [0, 1], of which the check gave no confidence: it was not made, it
    failed, or it held no valid verdict."""

    invalid: float | None
    """Share of the verdicts that are invalid; None for a check with a score."""

    auroc: float | None
    """Chance that a right answer (quality at least 0.5) has more confidence than a wrong one."""

    auroc_interval: Interval | None
    benefit_auroc: float | None
    """Chance that an answer which the last model improves on has less confidence than another."""

    benefit_auroc_interval: Interval | None
    ece: float | None
    """Mean distance of the raw confidence and the quality, in [0, 1]."""

    brier: float | None
    """Mean squared distance, in [0, 1], of the quality and what a monotone curve, fitted to other
    queries, makes of the confidence."""

    explained: float | None
    """How much smaller that is than with the mean quality in the curve's place, as a share; 0 or
    less: the check says nothing of the quality."""

    price: float | None
    """Mean cost of a check with all its verdicts, in the log's currency."""

    price_ratio: float | None
    """The same in answers of the model."""

    utility: float
    """Mean of quality - cost_weight * cost under a policy that was fitted, with this check alone,
    to other queries."""

    gain: float
    """That utility minus the one without any check."""

    gain_interval: Interval
    """By the differences query by query; it does not know that policies vary with their data."""

    use: float
    """Share of the queries on which that policy makes the check."""

    escalation_rate: float
    """Share of the queries on which it asks more than one model."""

    @property
    def label(self) -> str:
        """Name of the check, with the number of its verdicts where there are any."""
        return self.name if self.samples is None else f"{self.name} k={self.samples}"


@dataclass(frozen=True)
class Comparison:
    """The checks of one routing log, side by side."""

    models: tuple[str, ...]
    model: str
    """The model whose answers the checks are of; utilities are of all models together."""

    currency: str | None
    queries: int
    """Queries that all models answered, with quality and cost; the others are left out."""

    left_out: int
    right: int
    """Queries that the model answers with a quality of at least 0.5."""

    quality: float
    """Mean quality of the model's answers."""

    answer_cost: float
    """Their mean cost."""

    cost_weight: float
    """Quality that one unit of cost is taken to be worth."""

    without: float
    """Utility without any check: of the single model that does best on the other queries."""

    rows: tuple[ComparedCheck, ...]
    """One a check, and one for each number of verdicts where a check draws several; in the order of
    the log."""

    together: ComparedCheck | None
    """What a policy makes of all checks together; None where there is one check only."""

    notes: tuple[str, ...]
    """What the figures can and cannot tell, one plain sentence each."""

    @property
    def best(self) -> ComparedCheck | None:
        """The check that gains most, the cheaper one of equals; None if none gains anything."""
        best = max(self.rows, key=lambda row: (row.gain, -(row.price or 0.0)), default=None)
        return best if best is not None and best.gain > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        best = self.best
        rows = [{"label": row.label, **asdict(row)} for row in self.rows]
        return {**asdict(self), "rows": rows, "best": None if best is None else best.label}

    def to_markdown(self) -> str:
        """Return the table and its notes as Markdown."""
        from langchain_automix.comparison_words import comparison_markdown  # noqa: PLC0415

        return comparison_markdown(self)

    def __str__(self) -> str:
        from langchain_automix.comparison_words import comparison_text  # noqa: PLC0415

        return comparison_text(self)
