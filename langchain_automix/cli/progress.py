"""A calibration's progress as it goes: a bar, now and then a line, or lines of JSON."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from langchain_automix.cli.tables import on_the_way, progress_dict

if TYPE_CHECKING:
    from rich.console import Console

    from langchain_automix.calibration.budget import Progress


_LINE_SECONDS, _JSON_SECONDS = 10.0, 5.0


class ProgressDisplay:
    """Hears of each example, from any thread, and shows how far it is.

    Args:
        console: Where people read. With a terminal it shows a bar; else a line on stderr, at most
            every ten seconds.
        limit: What may be spent; None for no limit.
        as_json: Print lines of JSON on stdout instead, at most every five seconds.
    """

    def __init__(self, console: Console, limit: float | None, *, as_json: bool) -> None:
        self.limit = limit
        self.as_json = as_json
        self._lock = threading.Lock()
        self._said = float("-inf")
        self._most = -1
        self._bar = Bar(
            TextColumn("examples"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            console=console,
            transient=True,
            expand=True,
            disable=as_json or not console.is_terminal,
        )
        self._task = self._bar.add_task("examples", total=None, said="")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()

    def begin(self, examples: int, done: int) -> None:
        """Show the bar, with what earlier runs finished."""
        self._bar.update(self._task, total=examples, completed=done)
        self._bar.start()

    def stop(self) -> None:
        """Take the bar away, and leave the terminal as it was."""
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line: above the bar, or on stderr."""
        if self._bar.disable:
            print(f"automix: {text}", file=sys.stderr, flush=True)  # noqa: T201
        else:
            self._bar.console.print(text, highlight=False)

    def __call__(self, progress: Progress) -> None:
        """Show how far it is."""
        with self._lock:
            if progress.done <= self._most:  # overtaken by another thread
                return
            self._most = progress.done
            if self.as_json:
                if self._is_time(_JSON_SECONDS):
                    event("progress", **progress_dict(progress))
                return
            said = ", ".join(filter(None, on_the_way(progress, self.limit).values()))
            if not self._bar.disable:
                self._bar.update(self._task, completed=progress.done, said=said)
            elif self._is_time(_LINE_SECONDS):
                self.say(f"{progress.done} of {progress.examples} examples, {said}")

    def _is_time(self, pause: float) -> bool:
        now = time.monotonic()
        if now - self._said < pause:
            return False
        self._said = now
        return True


def event(name: str, **found: Any) -> None:
    """Print one line of JSON on stdout, at once."""
    print(json.dumps({"event": name, **found}, ensure_ascii=False), flush=True)  # noqa: T201
