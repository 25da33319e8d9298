"""`TimelineReport`: what a mix that learns does over time, to view, print and share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from langchain_automix.report.pages import PageReport, notebook_frame
from langchain_automix.report.timeline.contents import Timeline
from langchain_automix.utils.formatting import format_time, pluralize


@dataclass(frozen=True)
class TimelineReport(PageReport):
    """What a mix saves or would save, how certain that is, and cost and quality over time.

    `write` creates one self-contained HTML page that needs no network and no server. It contains no
    text of any query. A notebook displays the report by itself.
    """

    contents: Timeline = field(repr=False)
    """All figures and sentences of the report."""

    @override
    def to_html(self) -> str:
        from langchain_automix.report.html.timeline import render_timeline  # noqa: PLC0415  (assets)

        return render_timeline(self.contents)

    @override
    def to_markdown(self) -> str:
        from langchain_automix.report.timeline.markdown import render_markdown  # noqa: PLC0415

        return render_markdown(self.contents)

    def figures(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        return self.contents.to_dict()

    def __str__(self) -> str:
        found = self.contents
        lines = [found.answer, found.detail, ""]
        lines += [f"{n.label}: {n.value}. {n.detail}" for n in found.numbers]
        lines += [
            f"{pluralize(found.queries, 'query', 'queries')} from {format_time(found.first)} to "
            f"{format_time(found.last)}, {found.labels:,} of them seen in full."
        ]
        lines += found.notes
        if found.next_step:
            lines.append(f"Next: {found.next_step}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"TimelineReport({self.contents.queries} queries: {self.contents.answer})"

    def _repr_html_(self) -> str:
        """Return the page inside a frame."""
        return notebook_frame(self.to_html(), "AutoMix learning report")
