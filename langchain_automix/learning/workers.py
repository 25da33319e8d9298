"""`Workers`: a few threads that work off a bounded queue, beside the queries."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")
_LOGGER = logging.getLogger(__name__)
_WORKERS: WeakSet[Workers[Any]] = WeakSet()

_IDLE_SECONDS = 10.0
"""After which a thread ends; the next job starts another one."""


class Workers(Generic[T]):
    """Threads that do jobs one after the other; a forked process begins without any.

    Args:
        work: Does one job; what it raises is logged.
        threads: How many jobs are done at once.
        size: Jobs that may wait.

    Attributes:
        dropped: Jobs that found the queue full.
    """

    def __init__(self, work: Callable[[T], None], *, threads: int, size: int) -> None:
        self._work, self._most, self._size = work, threads, size
        self._begin()
        _WORKERS.add(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[T] = deque()
        self._threads = self._busy = self._waiting = 0
        self.dropped = 0

    def submit(self, job: T) -> bool:
        """Queue a job, without waiting; False: the queue is full, and the job dropped."""
        with self._changed:
            if len(self._queue) >= self._size:
                self.dropped += 1
                return False
            self._queue.append(job)
            if self._waiting < len(self._queue) and self._threads < self._most:
                self._start()
            self._changed.notify()
            return True

    def wait(self, timeout: float) -> bool:
        """Wait until all jobs are done; return whether they are."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._queue or self._busy:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="automix-shadow", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads now, or the interpreter is ending
            return
        self._threads += 1

    def _run(self) -> None:
        while True:
            with self._changed:
                self._waiting += 1
                is_work = self._changed.wait_for(lambda: bool(self._queue), _IDLE_SECONDS)
                self._waiting -= 1
                if not is_work:
                    self._threads -= 1
                    return
                job = self._queue.popleft()
                self._busy += 1
            try:
                self._work(job)
            except Exception:
                _LOGGER.warning("a shadow came to nothing", exc_info=True)
            finally:
                del job
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()


def _begin_all() -> None:
    for workers in list(_WORKERS):
        workers._begin()  # noqa: SLF001  (a forked child has no threads; the jobs are its parent's)


_register: Any = getattr(os, "register_at_fork", None)
if _register is not None:
    _register(after_in_child=_begin_all)
