"""`Refresher`: a thread that looks at the store every two seconds, for as long as there is one."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

from langchain_automix.utils.locks import ProcessLock

_LOGGER = logging.getLogger(__name__)


class Refresher:
    """Calls a method again and again in a thread, which ends with the method's object.

    Args:
        tick: The bound method; what it raises is logged.
        seconds: Between two calls.
    """

    def __init__(self, tick: Callable[[], None], seconds: float) -> None:
        self._tick: WeakMethod[Any] = WeakMethod(tick)
        self._seconds = seconds
        self._process = 0
        self._lock = ProcessLock()
        self._wake, self._stopped = threading.Event(), [False]

    def ensure(self) -> None:
        """Start the thread, unless this process has it."""
        if self._process == os.getpid():
            return
        with self._lock:
            if self._process == os.getpid():
                return
            # A forked child must not wait for its parent's.
            self._wake, self._stopped = threading.Event(), [False]
            args = (self._tick, self._wake, self._stopped, self._seconds)
            thread = threading.Thread(target=_run, args=args, name="automix-refresh", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads now, or the interpreter is ending
                return
            self._process = os.getpid()

    def stop(self) -> None:
        """Have the thread end; `ensure` starts another one."""
        with self._lock:
            self._process, self._stopped[0] = 0, True
            self._wake.set()

    def wake(self) -> None:
        """Have the next call made at once."""
        self._wake.set()


def _run(tick: WeakMethod[Any], wake: threading.Event, stopped: list[bool], seconds: float) -> None:
    while not stopped[0] and (method := tick()) is not None:
        try:
            method()
        except Exception:
            _LOGGER.warning("learning goes on by what it knows", exc_info=True)
        del method
        wake.wait(seconds)
        wake.clear()
