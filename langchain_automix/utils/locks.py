"""A lock for objects that outlive a fork, or are sent to another process."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet

_LOCKS: WeakSet[ProcessLock] = WeakSet()


class ProcessLock:
    """A lock that is per process: free in a forked child, and pickled as a new lock."""

    def __init__(self) -> None:
        """Start unlocked."""
        self._lock = threading.Lock()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *args: object) -> None:
        self._lock.release()

    def __reduce__(self) -> Any:
        return ProcessLock, ()

    def free(self) -> None:
        """Release the lock whoever holds it: a forked child has none of its parent's threads."""
        self._lock = threading.Lock()


def _free_all() -> None:
    for lock in list(_LOCKS):
        lock.free()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)
