"""Do long computations in a thread, so that an event loop can serve others meanwhile."""

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
"""Length, in characters, from which a text takes longer to read than an event loop should wait:
some 20 ms. A shorter one is read at once, since a thread takes time, too."""


def off_loop(work: Callable[[], T], *, is_long: bool) -> Steps[T]:
    """Return what some work returns; if it is long, done in a thread of its own by async drivers.

    Raises:
        Exception: What the work raised.
    """
    if not is_long:
        return work()
    return (yield from call(Call(Work(work), None, audience="tracers", is_instant=True)))


class Work(NeedsNoSlot, Runnable[Any, T], Generic[T]):
    """Work that calls no model, and is no run of its own in a trace."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> T:
        return self._work()

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> T:
        return await asyncio.wrap_future(start_work(self._work))
