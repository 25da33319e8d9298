"""`Renewals`: keeps the reservations of queries under way, however long they take."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_PARTS = 3
"""Renewals in the time of a lease: one that fails, or comes late, loses no reservation."""

_LONGEST_SLEEP = 1.0
"""Seconds after which the thread sees that nothing is left to renew, and ends."""

_MOST = 10 * _PARTS
"""Renewals of one query. A stream that nobody reads to its end, and nobody closes, must not hold
up the others for ever."""


@dataclass
class _Renewal:
    """One reservation that is kept."""

    renew: Callable[[], Any]
    pause: float
    """Seconds between two renewals."""

    due: float
    left: int = _MOST


class Renewals:
    """Renews reservations in one thread, which ends soon after the last of them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._start()

    def __reduce__(self) -> Any:
        return Renewals, ()

    def _start(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._open: dict[object, _Renewal] = {}
        self._wakes: float | None = None  # when the thread looks again; None: there is no thread

    @contextlib.contextmanager
    def keeping(self, renew: Callable[[], Any], lease: float) -> Iterator[None]:
        """Renew a reservation within the block, at most for ten times its lease.

        Args:
            renew: Renews it once. What it raises is left to the next time.
            lease: Seconds that one renewal lasts.
        """
        if self._process != os.getpid():  # a fork: the parent's queries are the parent's to keep
            self._start()
        pause, key = lease / _PARTS, object()
        with self._changed:
            due = time.monotonic() + pause
            self._open[key] = _Renewal(renew, pause, due)
            if self._wakes is None:
                self._wakes = due
                threading.Thread(target=self._run, name="automix-renewals", daemon=True).start()
            elif due < self._wakes:
                self._changed.notify()
        try:
            yield
        finally:
            self._open.pop(key, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                due_times = [each.due for each in list(self._open.values())]
                if not due_times:
                    self._wakes = None
                    return
                self._wakes = min(*due_times, time.monotonic() + _LONGEST_SLEEP)
                self._changed.wait(max(0.0, self._wakes - time.monotonic()))
                due = self._take_due()
            for each in due:
                with contextlib.suppress(Exception):  # the store may be back the next time
                    each.renew()

    def _take_due(self) -> list[_Renewal]:
        """Return what is due now, each with the time of its next renewal set."""
        now, due = time.monotonic(), []
        for key, each in list(self._open.items()):
            if each.due > now:
                continue
            each.due, each.left = now + each.pause, each.left - 1
            if each.left == 0:
                self._open.pop(key, None)
            due.append(each)
        return due
