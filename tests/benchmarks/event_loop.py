"""How long the event loop is kept from everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from tests.benchmarks.timing import frozen

BEAT = 0.001


class Blocked(NamedTuple):
    """The longest that the loop did not come to what waited, in seconds."""

    step: float
    """Processor time of the longest step of any task: nothing else can run before it is over."""

    gap: float
    """Processor time of the loop's thread between two beats of a task that sleeps 1 ms. When many
    tasks are ready, all have their step before the next beat."""

    clock: float
    """The longest gap by the clock, in which the machine's other work counts, too."""


async def blocked(work: Callable[[], Awaitable[Any]]) -> Blocked:
    """Return how long some work blocks the event loop that it runs in."""
    gaps: list[tuple[float, float]] = []
    with frozen(), _longest_step() as longest:
        beats = asyncio.create_task(_beat(gaps))
        await asyncio.sleep(BEAT)
        await work()
        await asyncio.sleep(2 * BEAT)  # the last gap ends with a beat
        beats.cancel()
        with suppress(asyncio.CancelledError):
            await beats
    spent, passed = zip(*gaps, strict=True)
    return Blocked(longest[0], max(spent), max(passed))


async def _beat(gaps: list[tuple[float, float]]) -> None:
    while True:
        spent, passed = time.thread_time(), time.perf_counter()
        await asyncio.sleep(BEAT)
        gaps.append((time.thread_time() - spent, time.perf_counter() - passed - BEAT))


@contextmanager
def _longest_step() -> Iterator[list[float]]:
    """Time each step of the loop: asyncio's debug mode does so, too, and slows all down."""
    longest, run = [0.0], asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        start = time.thread_time()
        run(handle)
        longest[0] = max(longest[0], time.thread_time() - start)

    asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
    try:
        yield longest
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
