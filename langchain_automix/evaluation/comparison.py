"""What a comparison of checks comes to: a row a check, and what the rows can tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from langchain_automix.evaluation.evaluate import FEW
from langchain_automix.policy.statistics import Interval
from langchain_automix.utils.tables import escape_markdown, markdown_table, text_table


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
        from langchain_automix.evaluation.comparison import comparison_markdown  # noqa: PLC0415

        return comparison_markdown(self)

    def __str__(self) -> str:
        from langchain_automix.evaluation.comparison import comparison_text  # noqa: PLC0415

        return comparison_text(self)


EXPLANATION = (
    "AUROC: the chance that the check is surer of a right answer than of a wrong one; 0.5 is "
    "chance.",
    "ECE: how far its number is from a chance of being right; a fitted policy does not mind.",
    "price: of a check, in answers of the small model.",
    "gain: in utility, over the best policy without a check, on queries not fitted to.",
)
"""What the columns are, one line each."""

_LEADING_ZERO = re.compile(r"^([+-]?)0\.")

_FEW_OF_A_KIND = 10
"""Right or wrong answers below which an AUROC says next to nothing."""


def title(found: Comparison) -> str:
    """Return one sentence on what was compared."""
    unit = found.currency or "unit of cost"
    return (
        f"Checks of {found.model}'s answers to {found.queries} queries; quality: "
        f"{found.quality:.3f}, right: {found.right / found.queries:.1%}. Utility without any "
        f"check: {found.without:.4f}, at cost weight {found.cost_weight:g} (quality that one "
        f"{unit} is worth)."
    )


def heads() -> tuple[str, ...]:
    """Return the names of the columns that fit 80 characters."""
    return ("check", "k", "AUROC", "95 %", "ECE", "price", "gain", "95 %")


def cells(found: Comparison) -> list[tuple[str, ...]]:
    """Return the rows under `heads`, that of all checks together at the end."""
    return [_cells(row) for row in _all_of(found)]


def comparison_text(found: Comparison) -> str:
    """Return a comparison as a plain text."""
    lines = [title(found), "", *text_table(heads(), cells(found)), "", *EXPLANATION, ""]
    return "\n".join([*lines, *found.notes])


def comparison_markdown(found: Comparison) -> str:
    """Return a comparison as Markdown: all figures that a reader may want, and the notes.

    Names and texts from the log are escaped: they can neither break the table nor mention, link or
    embed anything.
    """
    unit = f" ({escape_markdown(found.currency)})" if found.currency else ""
    names = (
        "check",
        "k",
        "answers",
        "unknown",
        "AUROC",
        "AUROC of benefit",
        "ECE",
        "Brier",
        "explained",
        f"price{unit}",
        "in answers",
        "used on",
        "utility",
        "gain over no check",
    )
    rows = [_markdown_cells(row) for row in _all_of(found)]
    best = None if found.best is None else found.best.label
    marked = [
        [f"**{row[0]}**", *row[1:]] if compared.label == best else row
        for compared, row in zip(_all_of(found), rows, strict=True)
    ]
    lines = [escape_markdown(title(found)), "", *markdown_table(names, marked), ""]
    return "\n".join([*lines, *(f"- {escape_markdown(note)}" for note in found.notes), ""])


def notes_on(found: Comparison, *remarks: str) -> Iterator[str]:
    """Yield what the figures can and cannot tell, one plain sentence each.

    Args:
        found: The figures.
        *remarks: On the log.
    """
    n, right = found.queries, found.right
    if n < FEW or min(right, n - right) < _FEW_OF_A_KIND:
        yield (
            f"This log is too small to tell one check from another: of {found.model}'s {n} answers "
            f"{right} are right and {n - right} wrong."
        )
    yield _verdict(found)
    if found.left_out:
        were = "query was" if found.left_out == 1 else "queries were"
        yield f"{found.left_out} {were} left out: not all models answered, with quality and cost."
    yield from remarks
    fewer = {row.name: row.answers for row in found.rows if row.answers < n}
    for name, answers in fewer.items():
        yield f"{name!r} was made of {answers} of the {n} answers; the others count as unknown."


def _verdict(found: Comparison) -> str:
    """Say which check gains most, and whether the log can tell."""
    best = found.best
    if best is None:
        return "No check gains anything here: the best single model, unchecked, does as well."
    low, high = best.gain_interval
    said = f"{best.label} gains most over no check, {best.gain:+.4f} of utility"
    if low <= 0:
        return (
            f"{said}, but the log cannot tell that from nothing: the gain lies between {low:+.4f} "
            f"and {high:+.4f}."
        )
    many = f" Being the best of {len(found.rows)} flatters it." if len(found.rows) > 1 else ""
    return f"{said} (between {low:+.4f} and {high:+.4f}).{many}"


def _all_of(found: Comparison) -> Iterator[ComparedCheck]:
    yield from found.rows
    if found.together is not None:
        yield found.together


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


def _markdown_cells(row: ComparedCheck) -> list[str]:
    return [
        escape_markdown(row.name),
        "" if row.samples is None else str(row.samples),
        str(row.answers),
        _known(row.unknown, ".1%"),
        _both(row.auroc, row.auroc_interval, ".3f"),
        _both(row.benefit_auroc, row.benefit_auroc_interval, ".3f"),
        _known(row.ece, ".3f"),
        _known(row.brier, ".4f"),
        _known(row.explained, "+.1%"),
        _known(row.price, ".3g"),
        _known(row.price_ratio, ".3g"),
        f"{row.use:.0%}",
        f"{row.utility:.4f}",
        _both(row.gain, row.gain_interval, "+.4f"),
    ]


def _known(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _short(interval: Interval | None, form: str) -> str:
    """Return both ends without their leading zeros, which are the same in every row."""
    return " ".join(_LEADING_ZERO.sub(r"\1.", f"{end:{form}}") for end in interval or ())


def _both(value: float | None, interval: Interval | None, form: str) -> str:
    ends: Sequence[float] = interval or ()
    return _known(value, form) + (f" ({' to '.join(f'{end:{form}}' for end in ends)})" * bool(ends))
