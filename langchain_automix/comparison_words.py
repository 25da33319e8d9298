"""A comparison of checks as a table: for a terminal, and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from langchain_automix._markdown import escaped, table
from langchain_automix.evaluation import FEW
from langchain_automix.policy.words import table_lines

if TYPE_CHECKING:
    from langchain_automix.compared import ComparedCheck, Comparison
    from langchain_automix.policy.metrics import Interval

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
    lines = [title(found), "", *table_lines(heads(), cells(found)), "", *EXPLANATION, ""]
    return "\n".join([*lines, *found.notes])


def comparison_markdown(found: Comparison) -> str:
    """Return a comparison as Markdown: all figures that a reader may want, and the notes.

    Names and texts from the log are escaped: they can neither break the table nor mention, link or
    embed anything.
    """
    unit = f" ({escaped(found.currency)})" if found.currency else ""
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
    lines = [escaped(title(found)), "", *table(names, marked), ""]
    return "\n".join([*lines, *(f"- {escaped(note)}" for note in found.notes), ""])


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
        escaped(row.name),
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
