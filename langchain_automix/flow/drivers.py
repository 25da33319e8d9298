"""How a flow's calls are carried out: one query or many, whole or as a stream, sync or async."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextvars import ContextVar
from typing import Any, TypeVar

from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import get_executor_for_config

from langchain_automix.errors import AutoMixError, DeadlineError
from langchain_automix.flow.callbacks import ambient_config
from langchain_automix.flow.deadline import ABANDONABLE, await_within, start_work, wait_within
from langchain_automix.flow.run import FlowRun
from langchain_automix.flow.steps import Call, NeedsNoSlot

T = TypeVar("T")


def drive(one: FlowRun[T]) -> T:
    """Carry out a flow's calls as children of its run."""
    with contextlib.closing(one):
        while not one.done:
            one.resume(make_calls(one))
        return one.result()


async def adrive(one: FlowRun[T]) -> T:
    """Carry out a flow's calls as children of its run, asynchronously."""
    with contextlib.closing(one):
        while not one.done:
            await one.aresume(await amake_calls(one))
        return one.result()


def leaf_errors(failed: BaseExceptionGroup[Any]) -> Iterable[Any]:
    """Yield the errors of a group and of the groups within it."""
    for error in failed.exceptions:
        if isinstance(error, BaseExceptionGroup) and not isinstance(error, AutoMixError):
            yield from leaf_errors(error)
        else:
            yield error


# The limit of a batch. A check that draws its samples side by side must not multiply it, so
# the calls at the ends take a place each, however deep they are made.
CONCURRENCY: ContextVar[threading.Semaphore | None] = ContextVar("automix_gate", default=None)
ASYNC_CONCURRENCY: ContextVar[asyncio.Semaphore | None] = ContextVar(
    "automix_async_gate", default=None
)


@contextlib.contextmanager
def set_limit(gate: ContextVar[Any], limit: Any) -> Iterator[None]:
    """Set the limit of calls at a time while the context lasts."""
    token = gate.set(limit)
    try:
        yield
    finally:
        gate.reset(token)


def _needs_no_slot(call: Call) -> bool:
    """Whether a call needs no place: what it calls in turn will take one."""
    runnable = call.runnable
    while isinstance(runnable, RunnableBindingBase):
        runnable = runnable.bound
    return isinstance(runnable, NeedsNoSlot)


def make_calls(one: FlowRun[Any]) -> list[Any] | Exception:
    """Make the calls that a flow waits for; return their results, or the first error."""
    calls = one.calls
    came: dict[int, Any] = {}

    def make(i: int) -> Any:
        try:
            came[i] = made(calls[i])
        except Exception as error:
            if not calls[i].hands_back:
                raise
            came[i] = error
        return came[i]

    def made(call: Call) -> Any:
        config, gate = one.config_of(call), CONCURRENCY.get()
        gate = None if _needs_no_slot(call) else gate
        inner = CONCURRENCY.get() if gate is None else threading.Semaphore(1)
        # What it calls in turn shares its one place.
        with hold_slot(gate), set_limit(CONCURRENCY, inner), ambient_config(config):
            return call.runnable.invoke(call.input, config, **call.kwargs)

    def together() -> list[Any]:
        if len(calls) == 1:
            return [make(0)]
        if ABANDONABLE.get() is not None:
            return _side_by_side(make, len(calls), one.config.get("max_concurrency"))
        with get_executor_for_config(one.config) as executor:
            return list(executor.map(make, range(len(calls))))

    try:
        return together() if one.clock is None else wait_within(one.clock, together, one.showing)
    except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
        return _results_so_far(calls, dict(came), error)


def hold_slot(gate: threading.Semaphore | None) -> contextlib.AbstractContextManager[Any]:
    """Return what holds a call's place, for as long as it is waited for."""
    waiting = ABANDONABLE.get()
    return waiting.place(gate) if waiting is not None else gate or contextlib.nullcontext()


def _side_by_side(make: Callable[[int], T], count: int, limit: int | None) -> list[T]:
    places = threading.Semaphore(limit or count)

    def in_turn(i: int) -> T:
        with places:
            return make(i)

    done = [start_work(functools.partial(in_turn, i)) for i in range(count)]
    wait(done)
    return [each.result() for each in done]


def _results_so_far(
    calls: Sequence[Call], came: Mapping[int, Any], error: Exception
) -> list[Any] | Exception:
    """Return the results that were there when the time was up, if that is how it is wanted."""
    if not isinstance(error, DeadlineError) or not all(call.hands_back for call in calls):
        return error
    return [came.get(i, error) for i in range(len(calls))]


async def amake_calls(one: FlowRun[Any]) -> list[Any] | Exception:
    """Make the calls that a flow waits for; return their results, or the first error."""
    calls = one.calls
    limit = asyncio.Semaphore(one.config.get("max_concurrency") or len(calls))
    came: dict[int, Any] = {}

    async def make(i: int) -> Any:
        try:
            came[i] = await made(calls[i])
        except Exception as error:
            if not calls[i].hands_back:
                raise
            came[i] = error
        return came[i]

    async def made(call: Call) -> Any:
        config = one.config_of(call)
        gate = ASYNC_CONCURRENCY.get()
        if gate is None or _needs_no_slot(call):
            async with limit:
                with ambient_config(config):
                    return await call.runnable.ainvoke(call.input, config, **call.kwargs)
        async with gate:
            with set_limit(ASYNC_CONCURRENCY, asyncio.Semaphore(1)), ambient_config(config):
                return await call.runnable.ainvoke(call.input, config, **call.kwargs)

    try:
        async with await_within(one.clock, one.showing):
            if len(calls) == 1:
                return [await make(0)]
            return await _gather([make(i) for i in range(len(calls))])
    except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
        return _results_so_far(calls, came, error)


async def _gather(calls: Sequence[Coroutine[Any, Any, Any]]) -> list[Any] | Exception:
    """Await calls side by side; return their results, or the first error."""
    try:
        # A task group, unlike `gather`, leaves no call running when one of them fails.
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as failed:
        return next(iter(leaf_errors(failed)))  # type: ignore[no-any-return]
    return [task.result() for task in tasks]
