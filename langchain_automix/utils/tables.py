"""Tables as text and as Markdown, in which nothing that they hold is markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!@&$])")


def escape_markdown(text: str) -> str:
    """Put a text on one line and escape all Markdown in it."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table whose first column is left- and whose others right-aligned."""
    marks = ["---", *("---:" for _ in heads[1:])]
    for cells in (heads, marks, *rows):
        yield f"| {' | '.join(cells)} |"


def text_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table whose first column is left- and whose others right-aligned."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    for row in (heads, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  " + "  ".join(cells).rstrip()
