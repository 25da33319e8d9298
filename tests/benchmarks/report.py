"""How long the page of a report takes to open in headless Chromium, and how large it is."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from langchain_automix.report.html.page import render_page
from tests.benchmarks.surface import Row
from tests.support.builders.reports import contents
from tests.support.servers.chromium import chromium, opened, run

EMPTY = "<!doctype html><title>Nothing</title><p>Nothing."


def rows(rounds: int = 5) -> Iterator[Row]:
    """Yield the measures of reports on more and more queries, against an empty page."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "empty.html")
        empty.write_text(EMPTY)
        for queries in (100, 1_000, 5_000):
            path = Path(folder, "report.html")
            start = time.perf_counter()
            path.write_text(render_page(contents(queries)), encoding="utf-8")
            made = time.perf_counter() - start
            both = [(_timed(empty), _timed(path)) for _ in range(rounds)]
            ready = [_ready(path) for _ in range(rounds)]
            yield (
                f"{queries:,}",
                f"{path.stat().st_size / 1e6:.1f} MB",
                f"{made:.2f} s",
                f"{median(ready) / 1000:.2f} s",
                f"{median(took for _, took in both):.2f} s",
                f"{median(took / nothing for nothing, took in both):.2f}",
            )


def _timed(path: Path) -> float:
    """Return the seconds from the start of Chromium to its end, a picture of the page made."""
    start = time.perf_counter()
    run(f"--screenshot={path.with_suffix('.png')}", path)
    return time.perf_counter() - start


def _ready(path: Path) -> float:
    """Return when the page's own script had drawn it, in ms from its opening."""
    page = opened(path)
    assert not page.complaints
    [found] = re.findall(r'data-ready="(\d+)"', page.dom[:1_000])
    return float(found)


def table() -> tuple[Row, list[Row]]:
    """Return the table: its heads and its rows; no rows where there is no Chromium."""
    heads = ("report on queries", "file", "made in", "drawn after", "Chromium with a picture")
    return (*heads, "by an empty page"), list(rows()) if chromium() else []
