"""Print lines and tables for people, and JSON for programs."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table


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
