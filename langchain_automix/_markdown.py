"""Markdown in which names and texts from anywhere are no markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!@&$])")


def escaped(text: str) -> str:
    """Return a text on one line in which nothing is markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table whose first column is left- and whose others right-aligned."""
    marks = ["---", *("---:" for _ in heads[1:])]
    for cells in (heads, marks, *rows):
        yield f"| {' | '.join(cells)} |"
