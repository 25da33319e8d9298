"""How a flow's calls are carried out: one query or many, whole or as a stream, sync or async."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import operator
import threading
from collections.abc import (
    AsyncIterator,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import FIRST_EXCEPTION, wait
from contextvars import ContextVar
from typing import Any, TypeVar

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import get_executor_for_config

from langchain_automix._flow import Call, Flowing, Underway

T = TypeVar("T")


def drive(one: Underway[T]) -> T:
    """Carry out a flow's calls as children of its run."""
    with contextlib.closing(one.flow):
        while not one.done:
            one.resume(_make(one))
        return one.result()


async def adrive(one: Underway[T]) -> T:
    """Carry out a flow's calls as children of its run, asynchronously."""
    with contextlib.closing(one.flow):
        while not one.done:
            await one.aresume(await _amake(one))
        return one.result()


def drive_stream(one: Underway[Any]) -> Iterator[Any]:
    """Carry out a flow's calls, and yield the chunks of the one that streams."""
    with contextlib.closing(one.flow):
        while not one.done:
            call = one.calls[0]
            if not call.streams:
                one.resume(_make(one))
                continue
            parts: list[Any] = []
            try:
                for chunk in call.runnable.stream(call.input, one.config_of(call), **call.kwargs):
                    parts.append(chunk)
                    yield chunk
            except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
                one.resume(error)
            else:
                one.streamed = True
                one.resume([_joined(parts)])


async def adrive_stream(one: Underway[Any]) -> AsyncIterator[Any]:
    """Carry out a flow's calls, and yield the chunks of the one that streams, asynchronously."""
    with contextlib.closing(one.flow):
        while not one.done:
            call = one.calls[0]
            if not call.streams:
                await one.aresume(await _amake(one))
                continue
            parts: list[Any] = []
            chunks: Any = call.runnable.astream(call.input, one.config_of(call), **call.kwargs)
            try:
                async with contextlib.aclosing(chunks):
                    async for chunk in chunks:
                        parts.append(chunk)
                        yield chunk
            except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
                await one.aresume(error)
            else:
                one.streamed = True
                await one.aresume([_joined(parts)])


def _joined(parts: list[Any]) -> Any:
    """Join the chunks of a stream; None where it had none."""
    if parts and all(isinstance(part, AIMessageChunk) for part in parts):
        return add_ai_message_chunks(*parts)
    return functools.reduce(operator.add, parts) if parts else None


def drive_all(many: Sequence[Underway[T]], *, stop_at_error: bool) -> list[T | Exception]:
    """Drive flows level by level: each takes its next step before any takes the one after.

    Args:
        many: The flows; the first one's `max_concurrency` is the limit of all together.
        stop_at_error: Whether the first flow that fails ends the others.

    Returns:
        What each flow came to; an unfinished one came to the error that ended it.
    """
    limit = many[0].config.get("max_concurrency")

    def step(one: Underway[T]) -> None:
        one.resume(_make(one))
        while one.is_between_levels:
            one.resume(_make(one))
        if stop_at_error and one.error is not None:
            raise one.error

    first: Exception | None = None
    gate = _GATE.get() or (limit and threading.Semaphore(limit))
    executing = get_executor_for_config(many[0].config)
    with _closing_all(many), _set(_GATE, gate), executing as executor:
        try:
            while first is None and (waiting := [one for one in many if not one.done]):
                steps = [executor.submit(step, one) for one in waiting]
                over, _ = wait(steps, return_when=FIRST_EXCEPTION)
                for failed in filter(None, (each.exception() for each in over)):
                    if not isinstance(failed, Exception):  # an interrupt is nobody's outcome
                        raise failed
                    first = first or failed
        finally:
            executor.shutdown(cancel_futures=True)
    return _outcomes(many, first)


async def adrive_all(many: Sequence[Underway[T]], *, stop_at_error: bool) -> list[T | Exception]:
    """Drive flows level by level, asynchronously; see `drive_all`."""
    limit = many[0].config.get("max_concurrency")

    async def work(queue: Iterator[Underway[T]]) -> None:
        for one in queue:
            await one.aresume(await _amake(one))
            while one.is_between_levels:
                await one.aresume(await _amake(one))
            if stop_at_error and one.error is not None:
                raise one.error

    first: Exception | None = None
    gate = _ASYNC_GATE.get() or (limit and asyncio.Semaphore(limit))
    with _closing_all(many), _set(_ASYNC_GATE, gate):
        while first is None and (waiting := [one for one in many if not one.done]):
            queue = iter(waiting)
            try:
                # As many flows as there are places: more would do their part before the models'
                # all at once, while answers that are there wait to be taken.
                async with asyncio.TaskGroup() as group:
                    places = min(limit or len(waiting), len(waiting))
                    tasks = [group.create_task(work(queue)) for _ in range(places)]
            except* Exception as failed:  # noqa: BLE001  (handed on as the batch's own error)
                first = next(iter(_leaves(failed)))
            else:
                if any(task.cancelled() for task in tasks):  # from within: a group ignores that
                    raise asyncio.CancelledError
    return _outcomes(many, first)


def _outcomes(many: Sequence[Underway[T]], first: Exception | None) -> list[T | Exception]:
    outcomes: list[T | Exception] = []
    for one in many:
        ended = one.error or (None if one.done else first)
        outcomes.append(one.result() if ended is None else ended)
    return outcomes


@contextlib.contextmanager
def _closing_all(many: Sequence[Underway[Any]]) -> Iterator[None]:
    try:
        yield
    finally:
        for one in many:
            # A flow that a thread is still in ends by itself.
            with contextlib.suppress(ValueError):
                one.flow.close()


def _leaves(failed: BaseExceptionGroup[Any]) -> Iterable[Any]:
    for error in failed.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


# The limit of a batch. A check that draws its samples side by side must not multiply it, so
# the calls at the ends take a place each, however deep they are made.
_GATE: ContextVar[threading.Semaphore | None] = ContextVar("automix_gate", default=None)
_ASYNC_GATE: ContextVar[asyncio.Semaphore | None] = ContextVar("automix_async_gate", default=None)


@contextlib.contextmanager
def _set(gate: ContextVar[Any], limit: Any) -> Iterator[None]:
    token = gate.set(limit)
    try:
        yield
    finally:
        gate.reset(token)


def _passes(call: Call) -> bool:
    """Whether a call needs no place: what it calls in turn will take one."""
    runnable = call.runnable
    while isinstance(runnable, RunnableBindingBase):
        runnable = runnable.bound
    return isinstance(runnable, Flowing)


def _make(one: Underway[Any]) -> list[Any] | Exception:
    """Make the calls that a flow waits for; return their results, or the first error."""

    def make(call: Call) -> Any:
        config = one.config_of(call)
        gate = _GATE.get()
        if gate is None or _passes(call):
            return call.runnable.invoke(call.input, config, **call.kwargs)
        # What it calls in turn shares its one place.
        with gate, _set(_GATE, threading.Semaphore(1)):
            return call.runnable.invoke(call.input, config, **call.kwargs)

    try:
        if len(one.calls) == 1:
            return [make(one.calls[0])]
        with get_executor_for_config(one.config) as executor:
            return list(executor.map(make, one.calls))
    except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
        return error


async def _amake(one: Underway[Any]) -> list[Any] | Exception:
    """Make the calls that a flow waits for; return their results, or the first error."""
    limit = asyncio.Semaphore(one.config.get("max_concurrency") or len(one.calls))

    async def make(call: Call) -> Any:
        config = one.config_of(call)
        gate = _ASYNC_GATE.get()
        if gate is None or _passes(call):
            async with limit:
                return await call.runnable.ainvoke(call.input, config, **call.kwargs)
        async with gate:
            with _set(_ASYNC_GATE, asyncio.Semaphore(1)):
                return await call.runnable.ainvoke(call.input, config, **call.kwargs)

    try:
        if len(one.calls) == 1:
            return [await make(one.calls[0])]
        # A task group, unlike `gather`, leaves no call running when one of them fails.
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(make(call)) for call in one.calls]
        return [task.result() for task in tasks]
    except ExceptionGroup as failed:
        return next(iter(_leaves(failed)))  # type: ignore[no-any-return]
    except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
        return error
