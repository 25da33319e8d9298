"""`StoreWriter`: writes to a store in a thread of its own, so that no query waits for it."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing.process import parent_process
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from langchain_automix.errors import StoreUnavailableError
from langchain_automix.learning.records import Record
from langchain_automix.utils.formatting import pluralize
from langchain_automix.utils.user_warnings import warn_of_what_is_paid

if TYPE_CHECKING:
    from langchain_automix.learning.store.store import LearningStore


class LearningWarning(UserWarning):
    """A mix cannot learn as it should: its store is away or full, or a record is not taken."""


_BATCH = 500
"""Records in a transaction, at most."""

_LINGER_SECONDS = 0.05
"""How long a record waits for others: a quiet mix writes 20 times a second, at most."""

_IDLE_SECONDS = 10
"""After which the thread ends; the next record starts another. An unused writer leaves none."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between attempts while the store is away."""

_EXIT_SECONDS = 2.0


class StoreWriter:
    """Takes records at once, and writes them in batches, in their order.

    What `put` takes is in this process only. What `written` counts, and all that was put before a
    `flush` that returned True, is in the store, and outlives the process. What the store does not
    take, because it is away or full, is tried again until it does. At exit, what is left is
    written, in two seconds at most. A forked process begins with an empty queue.

    Args:
        store: Where the records go.
        size: Records that wait at most; what is put beyond them is dropped.

    Attributes:
        written: Records that are in the store.
        refused: Records that the store can never take.
        dropped: Records that were put while the queue was full.
    """

    def __init__(self, store: LearningStore, size: int = 10_000) -> None:
        self._store = store
        self._size = size
        self._begin()
        _WRITERS.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()  # a query that garbage collection ends may come between
        self._changed = threading.Condition(self._lock)
        self._queue: deque[Record] = deque()
        self._thread: threading.Thread | None = None
        self._flush_to = 0
        self._is_hurried = self._is_closing = self._is_away = False
        self._pause = _FIRST_PAUSE
        self.written = self.refused = self.dropped = 0

    def put(self, record: Record) -> bool:
        """Take a record, without waiting; False: the queue is full, and it is dropped."""
        with self._lock:  # as by `_changed`, but faster: every query passes here
            if len(self._queue) < self._size:
                self._queue.append(record)
                if self._thread is None:
                    self._start()
                elif len(self._queue) in {1, _BATCH}:
                    self._changed.notify_all()
                return True
            self.dropped += 1
            is_told = self._is_away or self.dropped > 1
        if not is_told:
            _warn(
                f"The learning store {self._store.name} is too slow: {self._size:,} records wait "
                "for it, and what comes now is dropped, and counted. Queries go on."
            )
        return False

    @property
    def waiting(self) -> int:
        """Number of records that were taken and are not written yet."""
        return len(self._queue)

    @property
    def is_away(self) -> bool:
        """Whether the store did not take what was written last."""
        return self._is_away

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until all that was put before is in the store, or refused by it.

        Args:
            timeout: Seconds, at most.

        Returns:
            Whether it is.
        """
        with self._changed:
            wanted = self._flush_to = self._done + len(self._queue)
            self._is_hurried = True
            if self._queue and self._thread is None:
                self._start()
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._done >= wanted, timeout)

    def close(self, timeout: float = _EXIT_SECONDS) -> bool:
        """Flush, and end the thread; a later `put` starts it again."""
        is_flushed = self.flush(timeout)
        with self._changed:
            self._is_closing = self._thread is not None
            self._changed.notify_all()
        return is_flushed

    @property
    def _done(self) -> int:
        return self.written + self.refused

    def _start(self) -> None:
        self._is_closing = False
        thread = threading.Thread(target=self._run, name="automix-learning", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads now, or the interpreter is ending
            return
        self._thread = thread
        if parent_process() is not None and os.getpid() not in _FINALIZED:
            # A child that `multiprocessing` has forked ends without `atexit`.
            _FINALIZED.add(os.getpid())
            Finalize(None, flush_all, exitpriority=10)

    def _run(self) -> None:
        while batch := self._next_batch():
            if self._write(batch):
                self._is_away, self._pause = False, _FIRST_PAUSE
                continue
            with self._changed:
                if self._changed.wait_for(lambda: self._is_hurried, self._pause):
                    self._pause = _FIRST_PAUSE
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                self._is_hurried = False

    def _next_batch(self) -> list[Record]:
        """Wait for records that are worth a transaction; none: the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closing, _IDLE_SECONDS)
            if not self._queue:
                self._thread, self._is_closing = None, False
                return []
            self._changed.wait_for(
                lambda: len(self._queue) >= _BATCH or self._flush_to > self._done, _LINGER_SECONDS
            )
            return list(itertools.islice(self._queue, _BATCH))

    def _write(self, batch: Sequence[Record]) -> bool:
        """Write the first records of the queue; False: the store is away.

        A record that the store refuses must not stop the others: it is found by halving.
        """
        try:
            self._store.add(batch)
        except StoreUnavailableError as error:
            self._tell_away(error)
            return False
        except Exception as error:  # noqa: BLE001  (the thread must go on, whatever a record is)
            if len(batch) > 1:
                half = len(batch) // 2
                return self._write(batch[:half]) and self._write(batch[half:])
            self._count(0, refused=1)
            self._tell_refused(error)
            return True
        self._count(len(batch))
        return True

    def _count(self, written: int, refused: int = 0) -> None:
        with self._changed:
            for _ in range(written + refused):
                self._queue.popleft()
            self.written += written
            self.refused += refused
            self._changed.notify_all()

    def _tell_away(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            _warn(
                f"{error} Queries go on by the last policy; {self._size:,} records wait for the "
                "store, and what comes beyond them is dropped, and counted."
            )

    def _tell_refused(self, error: Exception) -> None:
        if self.refused == 1:
            kind = type(error).__name__
            _warn(
                f"A record cannot be kept in the learning store {self._store.name} ({kind}: "
                f"{error}). It is left out, and others like it are, too."
            )


def _warn(message: str) -> None:
    # As an error (`-W error`) it would end the thread, or a query that is paid for.
    warn_of_what_is_paid(message, LearningWarning)


_WRITERS: WeakSet[StoreWriter] = WeakSet()
_FINALIZED: set[int] = set()
"""Processes that have been told to write what waits when they end."""


def flush_all(seconds: float = _EXIT_SECONDS) -> None:
    """Write what waits in all writers of this process, in so many seconds together."""
    deadline = time.monotonic() + seconds
    for writer in list(_WRITERS):
        if writer.waiting and not writer.flush(max(0.0, deadline - time.monotonic())):
            lost = pluralize(writer.waiting, "record")
            _warn(f"The process ends, and {lost} could not be written to the learning store.")


def _begin_all() -> None:
    for writer in list(_WRITERS):
        writer._begin()  # noqa: SLF001  (a forked child has no threads; the records are its parent's)


atexit.register(flush_all)
_register: Any = getattr(os, "register_at_fork", None)
if _register is not None:
    _register(after_in_child=_begin_all)
