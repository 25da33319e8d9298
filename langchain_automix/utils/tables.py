"""Tables as text and as Markdown, in which nothing that they hold is markup."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

LINE = 80
"""Characters of a line that any terminal shows."""

_GAP = "  "
_BREAK = re.compile(r"(?<= )(?! )|(?<=\w[-/:])(?=[^\W\d_]{2})|(?<=->)(?=\w)")
"""Where a line may end: after spaces, and within a long name."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!@&$])")


def escape_markdown(text: str) -> str:
    """Put a text on one line and escape all Markdown in it."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table whose first column is left- and whose others right-aligned."""
    marks = ["---", *("---:" for _ in heads[1:])]
    for cells in (heads, marks, *rows):
        yield f"| {' | '.join(cells)} |"


def text_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Collection[int] = (0,),
    width: int = LINE,
) -> Iterator[str]:
    """Yield the lines of a table that fits a terminal.

    Cells that are too long go on in the next line: at spaces, or within a name where that has a
    hyphen, a slash or the like. Only a name without any of these may make the table wider.

    Args:
        heads: Of the columns.
        rows: The cells.
        left: Indices of the columns that are left-aligned; the others are right-aligned.
        width: Characters of the longest line.
    """
    widths = _widths(list(zip(heads, *rows, strict=True)), width)
    for row in (heads, *rows):
        cells = [wrapped(cell, wide) for cell, wide in zip(row, widths, strict=True)]
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            aligned = (
                part.ljust(wide) if i in left else part.rjust(wide)
                for i, (part, wide) in enumerate(zip(parts, widths, strict=True))
            )
            yield (_GAP + _GAP.join(aligned)).rstrip()


def _widths(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return widths of columns that fit a line: the widest one is narrowed as long as needed."""
    widths = [max(map(len, column)) for column in columns]
    least = [max(len(piece) for cell in column for piece in _pieces(cell)) for column in columns]
    while sum(widths) + len(_GAP) * len(widths) > width:
        narrower = [i for i in range(len(widths)) if widths[i] > least[i]]
        if not narrower:
            break
        widths[max(narrower, key=lambda i: widths[i])] -= 1
    return widths


def _pieces(cell: str) -> list[str]:
    """Return the parts of a cell between which a line may end, each with its spaces."""
    return [piece.rstrip() for piece in _BREAK.split(cell)]


def wrapped(cell: str, width: int) -> list[str]:
    """Return a text in lines: cut at spaces, or within a long name at its hyphens and slashes."""
    lines = [""]
    for piece in _BREAK.split(cell):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]
