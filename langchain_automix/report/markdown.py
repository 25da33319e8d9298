"""A report as Markdown, for a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from langchain_automix.report.contents import Contents, Interval, Point
from langchain_automix.report.figures import counted, signed

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!@&$])")


def markdown_of(contents: Contents) -> str:
    """Return the verdict, the numbers, the baselines, the advice and the notes as Markdown.

    Names and texts from the log are escaped: they can neither break the table nor mention,
    link or embed anything.
    """
    return "\n".join(_lines(contents)).strip() + "\n"


def _lines(contents: Contents) -> Iterator[str]:
    judged = f"{counted(contents.queries, 'query', 'queries')}, {contents.judged}"
    yield from ("## AutoMix report", "", f"**{_text(contents.verdict)}**", "")
    rows = [[_text(n.label), _text(n.value), _text(n.detail)] for n in contents.numbers]
    yield from (*_table(("", "", judged), rows), "")
    yield from (_text(contents.labels.text), "")
    yield from ("### Against the baselines", "")
    unit = f"cost ({_text(contents.currency)} a query)" if contents.currency else "cost a query"
    heads = ("", "quality", unit, "utility of the policy above it", "95 % interval")
    yield from (*_table(heads, [_row(p) for p in (contents.point, *contents.baselines)]), "")
    yield f"Utility is quality − {contents.cost_weight:g} × cost."  # noqa: RUF001
    if contents.advice:
        yield from ("", "### What would help most", "")
    for advice in contents.advice:
        yield f"- **{_text(advice.title)}** ({_gain(advice.gain)}): {_text(advice.text)}"
    if contents.notes:
        yield from ("", "### Notes", "")
    for note in contents.notes:
        yield f"- {_text(note)}"


def _row(point: Point) -> list[str]:
    gained = point.utility_difference
    name = _text(point.name)
    return [
        f"**{name}**" if gained is None else name,
        f"{point.quality:.4f}",
        f"{point.cost:.4g}",
        "" if gained is None else _signed(gained),
        _interval(point.utility_interval),
    ]


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{_signed(interval[0])} to {_signed(interval[1])}"


def _signed(value: float) -> str:
    text = f"{value:+.4f}"
    return "0.0000" if text in ("+0.0000", "-0.0000") else text


def _gain(gain: float | None) -> str:
    if gain is None:
        return "not to be told from this log"
    return "no gain expected" if signed(gain) == signed(0.0) else f"at most {signed(gain)}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    marks = ["---", *("---:" for _ in heads[1:])]
    for cells in (heads, marks, *rows):
        yield f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """Return a text on one line in which nothing is markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
