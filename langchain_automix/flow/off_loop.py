"""Do long computations in a thread, to leave the event loop free for others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig
from typing_extensions import override

from langchain_automix.flow.deadline import start_work
from langchain_automix.flow.steps import Call, NeedsNoSlot, Steps, call

T = TypeVar("T")

LONG_TEXT = 50_000
"""Length, in characters, from which a text is processed in a thread: about 20 ms of work, longer
than an event loop should be blocked. A shorter text is processed directly, since starting a thread
takes time, too."""


def off_loop(work: Callable[[], T], *, is_long: bool) -> Steps[T]:
    """Do some work and return its result; async drivers do long work in a thread.

    Raises:
        Exception: The error that the work raised.
    """
    if not is_long:
        return work()
    return (yield from call(Call(Work(work), None, audience="tracers", is_instant=True)))


class Work(NeedsNoSlot, Runnable[Any, T], Generic[T]):
    """Work that calls no model and appears in no trace."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> T:
        return self._work()

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> T:
        return await asyncio.wrap_future(start_work(self._work))
