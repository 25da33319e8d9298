"""`TimelineReport`: what a mix that learns does over time, to view, print and share."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from langchain_automix.report.timeline.contents import Timeline
from langchain_automix.utils.formatting import format_time, pluralize

_NOTEBOOK_HEIGHT = 900


@dataclass(frozen=True)
class TimelineReport:
    """What a mix saves or would save, how sure that is, and cost and quality over time.

    `write` makes one page of HTML that needs nothing else: no network, no server. It holds no
    text of any query. A notebook shows the report by itself.
    """

    contents: Timeline = field(repr=False)
    """All figures and sentences of the report."""

    def to_html(self) -> str:
        """Return the report as one page of HTML, which makes no request.

        Raises:
            AutoMixError: jinja2 is not installed (the extra `report`).
        """
        from langchain_automix.report.html.timeline import render_timeline  # noqa: PLC0415  (assets)

        return render_timeline(self.contents)

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        from langchain_automix.report.timeline.markdown import render_markdown  # noqa: PLC0415

        return render_markdown(self.contents)

    def write(self, path: str | Path) -> None:
        """Write the report to a file; a reader never sees half of it.

        Args:
            path: Markdown where it ends in `.md`, else HTML.

        Raises:
            AutoMixError: The file cannot be written, or a page needs jinja2 (the extra `report`).
        """
        from langchain_automix.utils.files import atomic_replace  # noqa: PLC0415  (not for the page)

        path = Path(path)
        body = self.to_markdown() if path.suffix == ".md" else self.to_html()
        with atomic_replace(path) as unfinished:
            unfinished.write_text(body, encoding="utf-8", errors="replace", newline="\n")

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
        """Return the page in a frame of its own."""
        # Without allow-same-origin its scripts run, but cannot reach the notebook.
        return (
            f'<iframe srcdoc="{escape(self.to_html())}" sandbox="allow-scripts" '
            f'title="AutoMix learning report" width="100%" height="{_NOTEBOOK_HEIGHT}" '
            'style="border: 0"></iframe>'
        )
