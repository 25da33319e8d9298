"""`StoreStep`: a query's step with the stores of its spend limits, which may hang."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from typing_extensions import override

from langchain_automix.flow.deadline import start_work
from langchain_automix.flow.steps import NeedsNoSlot
from langchain_automix.mix.limits.spend_store import StoreUnreachableError

StoreWork = Callable[[RunnableConfig | None], Any]


class StoreStep(NeedsNoSlot, Runnable[Any, Any]):
    """Reads or writes the stores; uses a thread of its own if any is remote.

    It does not use the event loop's executor, where a store that hangs would block others' work.
    """

    def __init__(self, work: StoreWork, pause: float, seconds: float | None) -> None:
        """Set up a step.

        Args:
            work: The work to do, given the query's configuration.
            pause: Longest wait before the work, in seconds.
            seconds: How long to wait for the thread, in seconds; None works in the caller's thread.
        """
        self._work = work
        # Queries that wait together must not ask at the same moment.
        self._pause = pause * random.uniform(0.5, 1)  # noqa: S311
        self._seconds = seconds

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        if self._pause:
            time.sleep(self._pause)
        if self._seconds is None:
            return self._work(config)
        done = start_work(partial(self._work, config))
        wait([done], self._seconds)
        if not done.done():
            raise self._timeout()
        return done.result()

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        if self._pause:
            await asyncio.sleep(self._pause)
        if self._seconds is None:
            return self._work(config)
        done = asyncio.wrap_future(start_work(partial(self._work, config)))
        over, _ = await asyncio.wait([done], timeout=self._seconds)
        if not over:
            done.add_done_callback(_ignore_outcome)
            raise self._timeout()
        return done.result()

    def _timeout(self) -> StoreUnreachableError:
        return StoreUnreachableError(f"no answer in {self._seconds:.2g} s")


def _ignore_outcome(done: asyncio.Future[Any]) -> None:
    """Retrieve an error that comes too late, so that asyncio does not complain about it."""
    if not done.cancelled():
        done.exception()
