"""A report as Markdown, for a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from langchain_automix.policy.statistics import Interval
from langchain_automix.report.contents import Contents, Point
from langchain_automix.utils.formatting import format_signed, pluralize
from langchain_automix.utils.tables import escape_markdown, markdown_table


def markdown_of(contents: Contents) -> str:
    """Return the verdict, the numbers, the baselines, the advice and the notes as Markdown.

    Names and texts from the log are escaped: they can neither break the table nor mention,
    link or embed anything.
    """
    return "\n".join(_lines(contents)).strip() + "\n"


def _lines(contents: Contents) -> Iterator[str]:
    judged = f"{pluralize(contents.queries, 'query', 'queries')}, {contents.judged}"
    yield from ("## AutoMix report", "", f"**{escape_markdown(contents.verdict)}**", "")
    rows = [
        [escape_markdown(n.label), escape_markdown(n.value), escape_markdown(n.detail)]
        for n in contents.numbers
    ]
    yield from (*markdown_table(("", "", judged), rows), "")
    yield from (escape_markdown(contents.labels.text), "")
    yield from ("### Against the baselines", "")
    unit = (
        f"cost ({escape_markdown(contents.currency)} a query)"
        if contents.currency
        else "cost a query"
    )
    heads = ("", "quality", unit, "utility of the policy above it", "95 % interval")
    yield from (
        *markdown_table(heads, [_row(p) for p in (contents.point, *contents.baselines)]),
        "",
    )
    yield f"Utility is quality − {contents.cost_weight:g} × cost."  # noqa: RUF001
    if contents.advice:
        yield from ("", "### What would help most", "")
    for advice in contents.advice:
        title, text = escape_markdown(advice.title), escape_markdown(advice.text)
        yield f"- **{title}** ({_gain(advice.gain)}): {text}"
    if contents.notes:
        yield from ("", "### Notes", "")
    for note in contents.notes:
        yield f"- {escape_markdown(note)}"


def _row(point: Point) -> list[str]:
    gained = point.utility_difference
    name = escape_markdown(point.name)
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
    return (
        "no gain expected"
        if format_signed(gain) == format_signed(0.0)
        else f"at most {format_signed(gain)}"
    )
