"""The forms of every report: a page, Markdown, a file, a frame in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from html import escape
from pathlib import Path

_NOTEBOOK_HEIGHT = 900


class PageReport(ABC):
    """A report that can be written as one HTML page or as Markdown."""

    @abstractmethod
    def to_html(self) -> str:
        """Return the report as one HTML page that makes no request.

        Raises:
            AutoMixError: jinja2 is not installed (the extra `report`).
        """

    @abstractmethod
    def to_markdown(self) -> str:
        """Return the report's figures as Markdown, for instance for a pull request."""

    def write(self, path: str | Path) -> None:
        """Write the report to a file; a reader never sees a partial file.

        Args:
            path: The file; Markdown if it ends in `.md`, else HTML.

        Raises:
            AutoMixError: The file cannot be written, or a page needs jinja2 (the extra `report`).
        """
        from langchain_automix.utils.files import atomic_replace  # noqa: PLC0415  (not for the page)

        path = Path(path)
        body = self.to_markdown() if path.suffix == ".md" else self.to_html()
        with atomic_replace(path) as unfinished:
            unfinished.write_text(body, encoding="utf-8", errors="replace", newline="\n")


def notebook_frame(page: str, title: str) -> str:
    """Return a page inside a frame, for a notebook to show."""
    # Without allow-same-origin, its scripts run but cannot access the notebook.
    return (
        f'<iframe srcdoc="{escape(page)}" sandbox="allow-scripts" title="{escape(title)}"'
        f' width="100%" height="{_NOTEBOOK_HEIGHT}" style="border: 0"></iframe>'
    )
