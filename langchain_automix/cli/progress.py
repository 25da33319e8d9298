"""Show a calibration's progress: a bar, now and then a line, or lines of JSON."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from langchain_automix.calibration.budget import Progress
from langchain_automix.cli.tables import progress_dict, progress_parts
from langchain_automix.cli.terminal import print_event

_LINE_SECONDS, _JSON_SECONDS = 10.0, 5.0


class ProgressDisplay:
    """Shows each step of a calibration; may be called from any thread.

    A terminal or a reader that has gone is no error: what is calibrated has been paid for.

    Args:
        console: Where to show it: a bar on a terminal, else a line on stderr at most every ten
            seconds.
        limit: The most that may be spent; None for no limit.
        as_json: Print lines of JSON on stdout instead, at most every five seconds.
    """

    def __init__(self, console: Console, limit: float | None, *, as_json: bool) -> None:
        self.limit = limit
        self.as_json = as_json
        self._lock = threading.Lock()
        self._shown_at = float("-inf")
        self._most_done = -1
        self._bar = Bar(
            TextColumn("examples"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
            transient=True,
            expand=True,
            disable=as_json or not console.is_terminal,
        )
        self._task = self._bar.add_task("examples", total=None, status="")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()

    def begin(self, examples: int, done: int) -> None:
        """Show the bar, starting from what earlier runs finished."""
        self._bar.update(self._task, total=examples, completed=done)
        self._bar.start()

    def stop(self) -> None:
        """Remove the bar, and leave the terminal as it was."""
        with contextlib.suppress(OSError):
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line: above the bar, or on stderr."""
        with contextlib.suppress(OSError):
            if self._bar.disable:
                print(f"automix: {text}", file=sys.stderr, flush=True)  # noqa: T201
            else:
                self._bar.console.print(text, highlight=False)

    def __call__(self, progress: Progress) -> None:
        """Show the progress."""
        with self._lock, contextlib.suppress(OSError):
            if progress.done <= self._most_done:  # another thread has shown more
                return
            self._most_done = progress.done
            if self.as_json:
                if self._is_time(_JSON_SECONDS):
                    print_event("progress", **progress_dict(progress))
                return
            status = ", ".join(progress_parts(progress, self.limit))
            if not self._bar.disable:
                self._bar.update(self._task, completed=progress.done, status=status)
            elif self._is_time(_LINE_SECONDS):
                self.say(f"{progress.done} of {progress.examples} examples, {status}")

    def _is_time(self, pause: float) -> bool:
        now = time.monotonic()
        if now - self._shown_at < pause:
            return False
        self._shown_at = now
        return True
