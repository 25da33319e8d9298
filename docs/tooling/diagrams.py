"""Diagrams: written as Mermaid in the pages, and shown on the site as pictures kept beside them.

GitHub draws Mermaid itself. The site would have to fetch a script for it, so its pages show an SVG
that `python -m docs.tooling.pictures diagrams` makes. Each SVG holds the hash of its text: a test
finds one that is out of date.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1]
PICTURES = DOCS / "pictures"

_BLOCK = re.compile(
    r"<!-- picture: (?P<name>[a-z-]+): (?P<words>[^>]+) -->\n+```mermaid\n(?P<text>.*?)```\n",
    re.DOTALL,
)


class Diagram(NamedTuple):
    """A diagram as it stands in a page."""

    name: str
    text: str

    @property
    def path(self) -> Path:
        """Return where its picture is kept."""
        return PICTURES / f"{self.name}.svg"

    @property
    def mark(self) -> str:
        """Return the comment by which its picture says what it was made of."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:16]
        return f"<!-- made of {digest} by docs/tooling -->"


def diagrams() -> Iterator[Diagram]:
    """Yield the diagrams of all pages."""
    for page in sorted(DOCS.rglob("*.md")):
        for found in _BLOCK.finditer(page.read_text("utf-8")):
            yield Diagram(found["name"], found["text"])


def as_pictures(markdown: str, page: str) -> str:
    """Return a page with a picture in place of each diagram.

    Args:
        markdown: The page's text.
        page: The page's path below docs/, from which the picture is linked.
    """
    to_pictures = Path(os.path.relpath("pictures", Path(page).parent)).as_posix()

    def picture(found: re.Match[str]) -> str:
        words = " ".join(found["words"].split())
        return f"![{words}]({to_pictures}/{found['name']}.svg)\n"

    return _BLOCK.sub(picture, markdown)
