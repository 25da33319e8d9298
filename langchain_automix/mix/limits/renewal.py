"""`Renewals`: keep up the reservations of queries in progress, however long they take."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_PARTS = 3
"""Renewals per lease, so that one failed or late renewal does not lose the reservation."""

_LONGEST_SLEEP = 1.0
"""Longest time, in seconds, until the thread notices that it has nothing to renew, and ends."""

_MOST = 10 * _PARTS
"""Maximum number of renewals of one query. A stream that is neither read to its end nor closed must
not hold up others for good."""


@dataclass
class _Renewal:
    """One reservation that is being renewed."""

    renew: Callable[[], Any]
    pause: float
    """Seconds between two renewals."""

    due: float
    left: int = _MOST


class Renewals:
    """Renews reservations in a thread, which ends soon after the last reservation."""

    def __init__(self) -> None:
        """Start without any reservation."""
        self._start()

    def __reduce__(self) -> Any:
        return Renewals, ()

    def _start(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._open: dict[object, _Renewal] = {}
        self._wakes: float | None = None  # when the thread wakes up; None if there is none

    @contextlib.contextmanager
    def keeping(self, renew: Callable[[], Any], lease: float) -> Iterator[None]:
        """Renew a reservation until the end of the block, for at most ten times its lease.

        Args:
            renew: Renews it once. If it raises, the next renewal tries again.
            lease: Seconds that one renewal lasts.
        """
        if self._process != os.getpid():  # a fork: the parent renews its own queries
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
                with contextlib.suppress(Exception):  # the store may be reachable next time
                    each.renew()

    def _take_due(self) -> list[_Renewal]:
        """Return the renewals that are due, and schedule the next time of each."""
        now, due = time.monotonic(), []
        for key, each in list(self._open.items()):
            if each.due > now:
                continue
            each.due, each.left = now + each.pause, each.left - 1
            if each.left == 0:
                self._open.pop(key, None)
            due.append(each)
        return due
