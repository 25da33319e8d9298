"""Track how much of a query's time is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Deadline:
    """Count the time that the calls of one query take, up to a limit in seconds.

    Time that a batch spends on other queries in between does not count.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.spent = 0.0
        self._since: float | None = None

    @property
    def left(self) -> float:
        """Seconds left; 0 or less once the time is up."""
        running = 0.0 if self._since is None else time.monotonic() - self._since
        return self.limit - self.spent - running

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time spent in the block."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self.spent += time.monotonic() - self._since
            self._since = None
