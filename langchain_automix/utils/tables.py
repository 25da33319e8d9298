"""Write tables as text and as Markdown, with all markup in their cells escaped."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

LINE = 80
"""Number of characters in a line that any terminal can show."""

_GAP = "  "
_BREAK = re.compile(r"(?<= )(?! )|(?<=\w[-/:])(?=[^\W\d_]{2})|(?<=->)(?=\w)")
"""Where a line may break: after spaces, and within a long name."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!@&$])")


def escape_markdown(text: str) -> str:
    """Put a text on one line and escape all Markdown in it."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, with the first column left-aligned and the rest right."""
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

    Long cells continue in the next line, broken at spaces or, within a name, at a hyphen, a slash
    or the like. Only a name without any of these can make the table wider.

    Args:
        heads: Headings of the columns.
        rows: The cells.
        left: Indices of the left-aligned columns; the others are right-aligned.
        width: Maximum length of a line, in characters.
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
    """Return column widths that fit a line, narrowing the widest column as long as needed."""
    widths = [max(map(len, column)) for column in columns]
    least = [max(len(piece) for cell in column for piece in _pieces(cell)) for column in columns]
    while sum(widths) + len(_GAP) * len(widths) > width:
        narrower = [i for i in range(len(widths)) if widths[i] > least[i]]
        if not narrower:
            break
        widths[max(narrower, key=lambda i: widths[i])] -= 1
    return widths


def _pieces(cell: str) -> list[str]:
    """Return the unbreakable parts of a cell, without trailing spaces."""
    return [piece.rstrip() for piece in _BREAK.split(cell)]


def wrapped(cell: str, width: int) -> list[str]:
    """Wrap a text into lines at spaces or, within a long name, at hyphens and slashes."""
    lines = [""]
    for piece in _BREAK.split(cell):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]
