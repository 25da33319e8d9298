"""Render a report over time as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from langchain_automix.report.timeline.contents import Span, Timeline
from langchain_automix.report.timeline.words import WORDS, span_time
from langchain_automix.utils.formatting import (
    format_cost,
    format_quality,
    format_share,
    format_time,
    pluralize,
)
from langchain_automix.utils.tables import escape_markdown, markdown_table

_MOST_ROWS = 24


def render_markdown(contents: Timeline) -> str:
    """Render the answer, the numbers, the spans, the versions and the events as Markdown.

    Names and texts are escaped: they can neither break a table nor mention, link or embed anything.
    """
    return "\n".join(_lines(contents)).strip() + "\n"


def _lines(contents: Timeline) -> Iterator[str]:
    yield from ("## AutoMix learning report", "", f"**{escape_markdown(contents.answer)}**", "")
    yield from (escape_markdown(contents.detail), "")
    when = f"{format_time(contents.first)} to {format_time(contents.last)}"
    queries = pluralize(contents.queries, "query", "queries")
    rows = [
        [escape_markdown(n.label), n.value, escape_markdown(n.detail)] for n in contents.numbers
    ]
    yield from (*markdown_table(("", "", f"{queries}, {when}"), rows), "")
    yield from ("### Over time", "")
    spans = contents.spans[-_MOST_ROWS:]
    yield from (*markdown_table(_heads(contents), [_row(contents, span) for span in spans]), "")
    if len(spans) < len(contents.spans):
        yield from (f"The last {len(spans)} of {len(contents.spans)} spans; the page has all.", "")
    yield from (f"{WORDS['Quality by source']}", "")
    if contents.versions:
        rows = [
            [str(v.number), format_time(v.at), v.status, f"{v.labels:,}", escape_markdown(v.why)]
            for v in contents.versions
        ]
        heads = ("version", "made", "status", "fitted to", "why")
        yield from ("### Versions", "", *markdown_table(heads, rows), "")
    if contents.changes:
        rows = [[format_time(c.at), c.kind, escape_markdown(c.text)] for c in contents.changes]
        yield from ("### Events", "", *markdown_table(("when", "what", ""), rows), "")
    for note in contents.notes:
        yield f"- {escape_markdown(note)}"
    if contents.next_step:
        yield from ("", f"Next: {escape_markdown(contents.next_step)}")


def _heads(contents: Timeline) -> tuple[str, ...]:
    sources = (escape_markdown(source) for source in contents.sources)
    unit = contents.currency
    start = ("from", "queries", f"cost ({unit})", f"largest alone ({unit})", "escalated", "version")
    return (*start, *sources)


def _row(contents: Timeline, span: Span) -> list[str]:
    graded = (span.quality.get(source) for source in contents.sources)
    return [
        span_time(span),
        f"{span.queries:,}",
        format_cost(span.cost),
        format_cost(span.alone),
        format_share(span.escalated),
        str(span.version) if span.version else "largest",
        *("" if each is None else format_quality(each.quality, each.interval) for each in graded),
    ]
