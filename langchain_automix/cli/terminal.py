"""Print lines and tables for people, and JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from typing import Any

from rich.console import Console
from rich.table import Table

from langchain_automix.utils.tables import LINE, wrapped
from langchain_automix.utils.text import printable


def say(console: Console, markup: str, style: str | None = None) -> None:
    """Print a line of markup, without colouring its numbers."""
    console.print(markup, highlight=False, style=style)


def print_event(name: str, **values: Any) -> None:
    """Print one line of JSON on stdout, at once."""
    print(json.dumps({"event": name, **values}, ensure_ascii=False), flush=True)  # noqa: T201


def new_table(*columns: str, indent: int = 0) -> Table:
    """Return a table without lines: the first column on the left, numbers on the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    first, *others = columns
    table.add_column(" " * indent + first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def echo(text: str, *, to_stderr: bool = False) -> None:
    """Print text; at a terminal its sentences are cut at words, not where the line ends."""
    stream = sys.stderr if to_stderr else sys.stdout
    if stream.isatty():
        width = shutil.get_terminal_size((LINE, 24)).columns
        text = "\n".join(_cut(line, width) for line in text.split("\n"))
    print(printable(text), file=stream)


def _cut(line: str, width: int) -> str:
    if line.startswith("  "):  # of a table, which fits
        return line
    line = " ".join(" ".join(wrapped(word, width)) for word in line.split(" "))
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
