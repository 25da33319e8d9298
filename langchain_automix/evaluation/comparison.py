"""The result of comparing checks: a row per check, and what the rows show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from langchain_automix.evaluation.recommendation import FEW
from langchain_automix.policy.statistics import Interval
from langchain_automix.utils.tables import escape_markdown, markdown_table, text_table


@dataclass(frozen=True)
class ComparedCheck:
    """What one check tells about one model's answers, and how useful a policy finds it.

    Intervals are 95 % intervals. None stands for an unknown or undefined value.
    """

    name: str
    samples: int | None
    """Number of verdicts that the policy may draw, the first ones in the log; None for a check with
    a score, or for all checks together."""

    answers: int
    """Number of answers that were checked."""

    unknown: float | None
    """Share of the answers, in [0, 1], without a confidence: the check was not made, failed, or had
    no valid verdict."""

    invalid: float | None
    """Share of the verdicts that are invalid; None for a check with a score."""

    auroc: float | None
    """Probability that a right answer (quality at least 0.5) has more confidence than a wrong
    one."""

    auroc_interval: Interval | None
    benefit_auroc: float | None
    """Probability that an answer which the last model improves on has less confidence than
    another."""

    benefit_auroc_interval: Interval | None
    ece: float | None
    """Mean distance between the raw confidence and the quality, in [0, 1]."""

    brier: float | None
    """Mean squared distance, in [0, 1], between the quality and a monotone curve of the confidence
    that was fitted to other queries."""

    explained: float | None
    """Relative reduction of `brier` compared with the mean quality in place of the curve; at 0 or
    less, the check says nothing about the quality."""

    price: float | None
    """Mean cost of a check with all its verdicts, in the log's currency."""

    price_ratio: float | None
    """The price, as a multiple of the cost of the model's answer."""

    utility: float
    """Mean of quality - cost_weight * cost under a policy that was fitted to other queries with
    this check alone. If that policy makes no check, it is the utility without any check."""

    gain: float
    """The utility minus the one without any check."""

    gain_interval: Interval
    """From the differences query by query; ignores that policies vary with their data."""

    use: float
    """Share of the queries on which the policy makes the check."""

    escalation_rate: float
    """Share of the queries on which the policy asks more than one model."""

    @property
    def label(self) -> str:
        """Name of the check, with the number of its verdicts if any."""
        return self.name if self.samples is None else f"{self.name} k={self.samples}"


@dataclass(frozen=True)
class Comparison:
    """The checks of one routing log, side by side."""

    models: tuple[str, ...]
    model: str
    """The model whose answers are checked; utilities are for all models together."""

    currency: str | None
    queries: int
    """Number of queries that all models answered, with quality and cost; others are left out."""

    left_out: int
    right: int
    """Number of queries that the model answers with a quality of at least 0.5."""

    quality: float
    """Mean quality of the model's answers."""

    answer_cost: float
    """Mean cost of the model's answers."""

    cost_weight: float
    """How much quality one unit of cost is assumed to be worth."""

    without: float
    """Utility without any check: that of the single model that is best on these queries."""

    rows: tuple[ComparedCheck, ...]
    """One row per check, or one per number of verdicts if a check draws several, in the order of
    the log."""

    together: ComparedCheck | None
    """The result of a policy with all checks together; None if there is only one check."""

    notes: tuple[str, ...]
    """What the figures show and what they do not, in one plain sentence each."""

    @property
    def best(self) -> ComparedCheck | None:
        """The check that gains most, the cheaper one if tied; None if none gains anything."""
        best = max(self.rows, key=lambda row: (row.gain, -(row.price or 0.0)), default=None)
        return best if best is not None and best.gain > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        best = self.best
        rows = [{"label": row.label, **asdict(row)} for row in self.rows]
        return {**asdict(self), "rows": rows, "best": None if best is None else best.label}

    def to_markdown(self) -> str:
        """Return the figures and the notes as Markdown.

        Names and texts from the log are escaped: they can neither break the table nor mention, link
        or embed anything.
        """
        unit = f" ({escape_markdown(self.currency)})" if self.currency else ""
        best = None if self.best is None else self.best.label
        rows = [_markdown_cells(row, unit, best) for row in _all_rows(self)]
        table = markdown_table([*rows[0]], [[*cells.values()] for cells in rows])
        notes = [f"- {escape_markdown(note)}" for note in self.notes]
        return "\n".join([escape_markdown(title(self)), "", *table, "", *notes, ""])

    def __str__(self) -> str:
        lines = [title(self), "", *text_table(heads(), cells(self)), "", *EXPLANATION, ""]
        return "\n".join([*lines, *self.notes])


EXPLANATION = (
    "AUROC: the chance that the check is surer of a right answer than of a wrong one; 0.5 is "
    "chance.",
    "ECE: how far its number is from a chance of being right; a fitted policy does not mind.",
    "price: of a check, in answers of the small model.",
    "gain: in utility, over the best single model, on queries not fitted to.",
)
"""Explanations of the columns, one line each."""

_LEADING_ZERO = re.compile(r"^([+-]?)0\.")

_FEW_OF_A_KIND = 10
"""Number of right or wrong answers below which an AUROC says next to nothing."""


def title(comparison: Comparison) -> str:
    """Describe in one sentence what was compared."""
    unit, right = comparison.currency or "unit of cost", comparison.right / comparison.queries
    return (
        f"Checks of {comparison.model}'s answers to {comparison.queries} queries; quality: "
        f"{comparison.quality:.3f}, right: {right:.1%}. Utility without any check: "
        f"{comparison.without:.4f}, at cost weight {comparison.cost_weight:g} (quality that one "
        f"{unit} is worth)."
    )


def heads() -> tuple[str, ...]:
    """Return the names of the columns, which fit into 80 characters."""
    return ("check", "k", "AUROC", "95 %", "ECE", "price", "gain", "95 %")


def cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the rows under `heads`, with that of all checks together at the end."""
    return [_cells(row) for row in _all_rows(comparison)]


def describe_comparison(comparison: Comparison, *remarks: str) -> Iterator[str]:
    """Yield what the figures show and what they do not, in one plain sentence each.

    Args:
        comparison: The figures.
        *remarks: Remarks on the log.
    """
    n, right = comparison.queries, comparison.right
    if n < FEW or min(right, n - right) < _FEW_OF_A_KIND:
        yield (
            f"This log is too small to tell one check from another: of {comparison.model}'s {n} "
            f"answers {right} are right and {n - right} wrong."
        )
    yield _verdict(comparison)
    if left_out := comparison.left_out:
        were = "query was" if left_out == 1 else "queries were"
        yield f"{left_out} {were} left out: not all models answered, with quality and cost."
    yield from remarks
    fewer = {row.name: row.answers for row in comparison.rows if row.answers < n}
    for name, answers in fewer.items():
        yield f"{name!r} was made of {answers} of the {n} answers; the others count as unknown."


def _verdict(comparison: Comparison) -> str:
    """Describe which check gains most, and whether the log can tell."""
    best = comparison.best
    if best is None:
        return "No check gains anything here: the best single model, unchecked, does as well."
    low, high = best.gain_interval
    text = f"{best.label} gains most over no check, {best.gain:+.4f} of utility"
    if low <= 0:
        return (
            f"{text}, but the log cannot tell that from nothing: the gain lies between {low:+.4f} "
            f"and {high:+.4f}."
        )
    number = len(comparison.rows)
    caveat = f" Being the best of {number} flatters it." if number > 1 else ""
    return f"{text} (between {low:+.4f} and {high:+.4f}).{caveat}"


def _all_rows(comparison: Comparison) -> Iterator[ComparedCheck]:
    yield from comparison.rows
    if comparison.together is not None:
        yield comparison.together


def _cells(row: ComparedCheck) -> tuple[str, ...]:
    return (
        row.name,
        "" if row.samples is None else str(row.samples),
        _known(row.auroc, ".2f"),
        _short(row.auroc_interval, ".2f"),
        _known(row.ece, ".2f"),
        _known(row.price_ratio, ".2g"),
        f"{row.gain:+.3f}",
        _short(row.gain_interval, "+.3f"),
    )


def _markdown_cells(row: ComparedCheck, unit: str, best: str | None) -> dict[str, str]:
    name = escape_markdown(row.name)
    return {
        "check": f"**{name}**" if row.label == best else name,
        "k": "" if row.samples is None else str(row.samples),
        "answers": str(row.answers),
        "unknown": _known(row.unknown, ".1%"),
        "AUROC": _both(row.auroc, row.auroc_interval, ".3f"),
        "AUROC of benefit": _both(row.benefit_auroc, row.benefit_auroc_interval, ".3f"),
        "ECE": _known(row.ece, ".3f"),
        "Brier": _known(row.brier, ".4f"),
        "explained": _known(row.explained, "+.1%"),
        f"price{unit}": _known(row.price, ".3g"),
        "in answers": _known(row.price_ratio, ".3g"),
        "used on": f"{row.use:.0%}",
        "utility": f"{row.utility:.4f}",
        "gain over no check": _both(row.gain, row.gain_interval, "+.4f"),
    }


def _known(value: float | None, spec: str) -> str:
    return "" if value is None else f"{value:{spec}}"


def _short(interval: Interval | None, spec: str) -> str:
    """Format both ends without their leading zeros, which are the same in every row."""
    return " ".join(_LEADING_ZERO.sub(r"\1.", f"{end:{spec}}") for end in interval or ())


def _both(value: float | None, interval: Interval | None, spec: str) -> str:
    ends = "" if interval is None else f" ({interval[0]:{spec}} to {interval[1]:{spec}})"
    return f"{_known(value, spec)}{ends}"
