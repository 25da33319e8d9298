"""Wait for what another thread or task brings about, as long as a busy machine may need."""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.support.builders.scripted_replies import Body
from tests.support.servers.loopback import LoopbackServer

T = TypeVar("T")

LONG = 60.0
"""Seconds after which what has not come never comes: no test waits for them unless it fails."""

_PAUSE = 0.005


def wait_for(look: Callable[[], T]) -> T:
    """Look again and again until what is seen is true of itself; return it."""
    end = time.monotonic() + LONG
    while not (seen := look()):
        assert time.monotonic() < end, "it never came"
        time.sleep(_PAUSE)
    return seen


async def eventually(look: Callable[[], T]) -> T:
    """Look as `wait_for` does, while the event loop goes on."""
    return await asyncio.to_thread(wait_for, look)


class Gate:
    """Holds requests of a server until it is opened; knows when one has come."""

    def __init__(self, holds: Callable[[Body], bool] = lambda _: True, number: int = 1) -> None:
        """Hold the requests that are named.

        Args:
            holds: Whether a request is held.
            number: How many must have come.
        """
        self._holds, self._number, self._came = holds, number, itertools.count(1)
        self._reached, self._is_open = threading.Event(), threading.Event()

    def __call__(self, body: Body) -> float:
        if not self._is_open.is_set() and self._holds(body):
            if next(self._came) == self._number:
                self._reached.set()
            assert self._is_open.wait(LONG)
        return 0.0

    def wait(self) -> None:
        assert self._reached.wait(LONG), "no request has come"

    async def reached(self) -> None:
        await asyncio.to_thread(self.wait)

    def open(self) -> None:
        self._is_open.set()


def until_together(
    server: LoopbackServer, number: int, holds: Callable[[Body], bool] = lambda _: True
) -> Callable[[Body], float]:
    """Return a delay that holds requests until so many have been at the server at once."""

    def wait(body: Body) -> float:
        if holds(body):
            wait_for(lambda: server.most_at_once >= number)
        return 0.02  # time for one too many to come

    return wait


def wait_until_taken(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Wait until a process has taken a signal, or has ended; where `/proc` tells."""
    status = Path(f"/proc/{process.pid}/status")
    if status.exists():
        wait_for(lambda: process.poll() is not None or not _is_pending(status, number))


def _is_pending(status: Path, number: signal.Signals) -> bool:
    lines = status.read_text("utf-8").splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask & (1 << (number - 1)) for mask in masks)


def own_threads() -> set[threading.Thread]:
    """The threads in which the package works, those that were given up among them."""
    return {thread for thread in threading.enumerate() if thread.name == "automix"}
