"""Render a report as Markdown, for instance for a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from langchain_automix.evaluation.cost_at_quality import COST_TABLE_WORDS, cost_table
from langchain_automix.report.contents import Contents, Point
from langchain_automix.utils.formatting import format_signed, format_signed_range, pluralize
from langchain_automix.utils.tables import escape_markdown, markdown_table


def render_markdown(contents: Contents) -> str:
    """Render the verdict, the numbers, the baselines, the advice and the notes as Markdown.

    Names and texts from the log are escaped: they can neither break the table nor mention, link or
    embed anything.
    """
    return "\n".join(_lines(contents)).strip() + "\n"


def _lines(contents: Contents) -> Iterator[str]:
    judged = f"{pluralize(contents.queries, 'query', 'queries')}, {contents.judged}"
    yield from ("## AutoMix report", "")
    if contents.recommendation is not None:
        yield from (f"**{escape_markdown(contents.recommendation.text)}**", "")
        if contents.recommendation.detail:
            yield from (escape_markdown(contents.recommendation.detail), "")
    if contents.headline is not None:
        yield from (escape_markdown(contents.headline.describe()), "")
    yield from (escape_markdown(contents.verdict), "")
    rows = [
        [escape_markdown(n.label), escape_markdown(n.value), escape_markdown(n.detail)]
        for n in contents.numbers
    ]
    yield from (*markdown_table(("", "", judged), rows), "")
    yield from (escape_markdown(contents.labels.text), "")
    yield from ("### Against the baselines", "")
    unit = f" ({escape_markdown(contents.currency)} a query)" if contents.currency else " a query"
    heads = ("", "quality", f"cost{unit}", "utility of the policy above it", "95 % interval")
    rows = [_row(point) for point in (contents.point, *contents.baselines)]
    yield from (*markdown_table(heads, rows), "")
    yield f"Utility is quality − {contents.cost_weight:g} × cost."  # noqa: RUF001
    if contents.cost_at_quality and contents.headline is not None:
        against = contents.headline.against
        yield from ("", f"### What shares of {escape_markdown(against)}'s quality cost", "")
        levels, costs = cost_table(contents.cost_at_quality)
        yield from (*markdown_table(levels, [[*map(escape_markdown, row)] for row in costs]), "")
        yield escape_markdown(COST_TABLE_WORDS.format(against=against))
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
    gained, interval = point.utility_difference, point.utility_interval
    name = escape_markdown(point.name)
    return [
        f"**{name}**" if gained is None else name,
        f"{point.quality:.4f}",
        f"{point.cost:.4g}",
        "" if gained is None else format_signed(gained, digits=4),
        "" if interval is None else format_signed_range(interval, digits=4),
    ]


def _gain(gain: float | None) -> str:
    if gain is None:
        return "not to be told from this log"
    signed = format_signed(gain)
    return "no gain expected" if signed == format_signed(0.0) else f"at most {signed}"
