"""Make the calls of one flow, sync and async."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextvars import ContextVar
from typing import Any, TypeVar

from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import (
    RunnableConfig,
    get_executor_for_config,
)

from langchain_automix.flow.callbacks import in_context
from langchain_automix.flow.deadline import ABANDONABLE, await_within, start_work, wait_within
from langchain_automix.flow.run import FlowRun
from langchain_automix.flow.steps import Call, NeedsNoSlot

T = TypeVar("T")

# The concurrency limit of a batch, or of one query outside a batch. A check that draws its samples
# side by side must not multiply it, so slots are taken by the innermost calls only.
LIMIT: ContextVar[threading.Semaphore | None] = ContextVar("automix_limit", default=None)
ASYNC_LIMIT: ContextVar[asyncio.Semaphore | None] = ContextVar("automix_async_limit", default=None)


def drive(run: FlowRun[T]) -> T:
    """Make a flow's calls as children of its run and return its result."""
    with contextlib.closing(run), holding(LIMIT, limit_of(run, threading.Semaphore)):
        while not run.done:
            take_level(run)
        return run.result()


async def adrive(run: FlowRun[T]) -> T:
    """Make a flow's calls as children of its run and return its result, asynchronously."""
    with contextlib.closing(run), holding(ASYNC_LIMIT, limit_of(run, asyncio.Semaphore)):
        while not run.done:
            await atake_level(run)
        return run.result()


def take_level(run: FlowRun[Any]) -> None:
    """Make the calls that a flow waits for, and the instant ones that follow them."""
    run.resume(make_calls(run))
    while run.is_between_levels:
        run.resume(make_calls(run))


async def atake_level(run: FlowRun[Any]) -> None:
    """Take one level of a flow, asynchronously; see `take_level`."""
    run.resume(await amake_calls(run))
    while run.is_between_levels:
        run.resume(await amake_calls(run))
    await run.aannounce()


def make_calls(run: FlowRun[Any]) -> list[Any]:
    """Make the calls that a flow waits for; return the value or the exception of each."""
    calls, results, missing = run.calls, dict[int, Any](), None
    if len(calls) == 1 and run.deadline is None:
        return [_outcome(calls[0], run)]

    def make(i: int) -> None:
        results[i] = _outcome(calls[i], run)

    def together() -> None:
        if len(calls) == 1:
            make(0)
        elif ABANDONABLE.get() is not None:
            _make_in_threads(make, len(calls), run.config.get("max_concurrency"))
        else:
            with get_executor_for_config(run.config) as executor:
                list(executor.map(make, range(len(calls))))

    try:
        together() if run.deadline is None else wait_within(run.deadline, together, run.guard)
    except Exception as error:  # noqa: BLE001  (the time is up, or no thread could be started)
        missing = error
    return [results.get(i, missing) for i in range(len(calls))]


async def amake_calls(run: FlowRun[Any]) -> list[Any]:
    """Make the calls that a flow waits for, asynchronously; see `make_calls`."""
    calls, results, missing = run.calls, dict[int, Any](), None
    if len(calls) == 1 and run.deadline is None:
        return [await _aoutcome(calls[0], run)]

    async def make(i: int) -> None:
        results[i] = await _aoutcome(calls[i], run, limit)

    try:
        limit = asyncio.Semaphore(run.config.get("max_concurrency") or len(calls))
        async with await_within(run.deadline, run.guard):
            if len(calls) == 1:
                await make(0)
            else:  # unlike `asyncio.gather`, a group leaves no call running when cancelled
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(make(i)) for i in range(len(calls))]
                for task in tasks:
                    task.result()  # raises a cancellation from within the call
    except Exception as error:  # noqa: BLE001  (the time is up, or no task could be started)
        missing = error
    return [results.get(i, missing) for i in range(len(calls))]


def hold_slot(limit: threading.Semaphore | None) -> contextlib.AbstractContextManager[Any]:
    """Return a context manager that holds a call's slot for as long as the caller waits for it."""
    work = ABANDONABLE.get()
    return work.slot(limit) if work is not None else limit or contextlib.nullcontext()


def limit_of(run: FlowRun[Any], kind: Callable[[int], T]) -> T | None:
    """Return the limit of calls at a time for one query, or None if there is none.

    Inside another Runnable, a query makes one call at a time, as a plain model in its place would,
    since LangChain may start as many queries there as the limit allows.
    """
    most = run.config.get("max_concurrency")
    return kind(1 if run.is_part else most) if most else None


def limit_of_batch(config: RunnableConfig, kind: Callable[[int], T]) -> T | None:
    """Return the limit of calls at a time for all queries of a batch, or None if there is none."""
    most = config.get("max_concurrency")
    return kind(most) if most else None


def holding(variable: ContextVar[Any], limit: Any) -> contextlib.AbstractContextManager[Any]:
    """Return a context manager that sets a limit, unless an outer limit is already in force."""
    if limit is None or variable.get() is not None:
        return contextlib.nullcontext()
    return set_variable(variable, limit)


@contextlib.contextmanager
def set_variable(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """Set a context variable until the end of the block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def _outcome(call: Call, run: FlowRun[Any]) -> Any:
    """Make a call; return its result or its error."""
    try:
        return _invoke(call, run)
    except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
        return run.explain(error, call)


async def _aoutcome(
    call: Call, run: FlowRun[Any], limit_of_run: asyncio.Semaphore | None = None
) -> Any:
    try:
        return await _ainvoke(call, run, limit_of_run)
    except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
        return run.explain(error, call)


def _invoke(call: Call, run: FlowRun[Any]) -> Any:
    limit = LIMIT.get()
    if limit is None or _needs_no_slot(call):
        with hold_slot(None):
            return _start(call, run)
    # The calls made within this one share its single slot.
    with hold_slot(limit), set_variable(LIMIT, threading.Semaphore(1)):
        return _start(call, run)


def _start(call: Call, run: FlowRun[Any]) -> Any:
    config = run.start(call)
    with in_context(config):
        if (part := run.part(call, config)) is not None:
            return drive(part)
        return call.runnable.invoke(call.input, config, **call.kwargs)


async def _ainvoke(call: Call, run: FlowRun[Any], limit_of_run: asyncio.Semaphore | None) -> Any:
    limit = ASYNC_LIMIT.get()
    if limit is None or _needs_no_slot(call):
        async with limit_of_run or contextlib.nullcontext():
            return await _astart(call, run)
    async with limit:
        with set_variable(ASYNC_LIMIT, asyncio.Semaphore(1)):
            return await _astart(call, run)


async def _astart(call: Call, run: FlowRun[Any]) -> Any:
    config = run.start(call)
    with in_context(config):
        if (part := run.part(call, config)) is not None:
            return await adrive(part)
        return await call.runnable.ainvoke(call.input, config, **call.kwargs)


def _needs_no_slot(call: Call) -> bool:
    """Whether a call needs no slot because the calls made within it take their own."""
    runnable: Any = call.runnable
    while isinstance(runnable, RunnableBindingBase):
        runnable = runnable.bound
    return isinstance(runnable, NeedsNoSlot)


def _make_in_threads(make: Callable[[int], None], count: int, limit: int | None) -> None:
    slots = threading.Semaphore(limit or count)

    def make_in_turn(i: int) -> None:
        with slots:
            make(i)

    done = [start_work(functools.partial(make_in_turn, i)) for i in range(count)]
    wait(done)
    for each in done:
        each.result()
