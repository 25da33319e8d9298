"""How a flow's calls are carried out: one query or many, whole or as a stream, sync or async."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import operator
import threading
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import FIRST_EXCEPTION, wait
from contextvars import ContextVar
from typing import Any, TypeVar

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import get_executor_for_config

from langchain_automix._deadline import OVER, WAITING, awithin, in_time, started, within
from langchain_automix._faults import says_something
from langchain_automix._flow import Call, Flowing, Underway
from langchain_automix.errors import AutoMixError, DeadlineError

T = TypeVar("T")


def drive(one: Underway[T]) -> T:
    """Carry out a flow's calls as children of its run."""
    with contextlib.closing(one):
        while not one.done:
            one.resume(_make(one))
        return one.result()


async def adrive(one: Underway[T]) -> T:
    """Carry out a flow's calls as children of its run, asynchronously."""
    with contextlib.closing(one):
        while not one.done:
            await one.aresume(await _amake(one))
        return one.result()


def drive_stream(one: Underway[Any]) -> Iterator[Any]:
    """Carry out a flow's calls, and yield the chunks of the one that streams."""
    with contextlib.closing(one):
        while not one.done:
            call = one.calls[0]
            if call.showing is None:
                one.resume(_make(one))
                continue
            parts: list[Any] = []
            try:
                with _place(None):  # nobody may wait for it any more
                    chunks = call.runnable.stream(call.input, one.config_of(call), **call.kwargs)
                for chunk in in_time(call, chunks):
                    parts.append(chunk)
                    yield from _to_show(call, parts)
            except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
                one.resume(error)
            else:
                one.streamed = call.showing.told
                one.resume([_joined(parts)])


async def adrive_stream(one: Underway[Any]) -> AsyncIterator[Any]:
    """Carry out a flow's calls, and yield the chunks of the one that streams, asynchronously."""
    with contextlib.closing(one):
        while not one.done:
            call = one.calls[0]
            if call.showing is None:
                await one.aresume(await _amake(one))
                continue
            parts: list[Any] = []
            chunks: Any = call.runnable.astream(call.input, one.config_of(call), **call.kwargs)
            try:
                async with contextlib.aclosing(chunks):
                    while (chunk := await _next(call, chunks)) is not OVER:
                        parts.append(chunk)
                        for shown in _to_show(call, parts):
                            yield shown
            except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
                await one.aresume(error)
            else:
                one.streamed = call.showing.told
                await one.aresume([_joined(parts)])


async def _next(call: Call, chunks: AsyncIterator[Any]) -> Any:
    """Return the next chunk, or `OVER`; a stream that shows nothing in time is given up."""
    told = call.showing is not None and call.showing.told
    async with awithin(None if told else call.clock):
        return await anext(chunks, OVER)


def _to_show(call: Call, parts: Sequence[Any]) -> Sequence[Any]:
    """Return what may be shown now that the last part is there.

    What shows nothing is kept back until something is shown: until then, another model may yet
    answer in this one's place.
    """
    if call.showing is None or call.showing.told:
        return parts[-1:]
    if not says_something(parts[-1]):
        return ()
    call.showing.told = True
    return parts


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
                one.close()


def _leaves(failed: BaseExceptionGroup[Any]) -> Iterable[Any]:
    for error in failed.exceptions:
        if isinstance(error, BaseExceptionGroup) and not isinstance(error, AutoMixError):
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
        config, gate = one.config_of(call), _GATE.get()
        gate = None if _passes(call) else gate
        inner = _GATE.get() if gate is None else threading.Semaphore(1)
        # What it calls in turn shares its one place.
        with _place(gate), _set(_GATE, inner):
            return call.runnable.invoke(call.input, config, **call.kwargs)

    def together() -> list[Any]:
        if len(calls) == 1:
            return [make(0)]
        if WAITING.get() is not None:
            return _side_by_side(make, len(calls), one.config.get("max_concurrency"))
        with get_executor_for_config(one.config) as executor:
            return list(executor.map(make, range(len(calls))))

    try:
        return together() if one.clock is None else within(one.clock, together, one.showing)
    except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
        return _of_those_that_came(calls, dict(came), error)


def _place(gate: threading.Semaphore | None) -> contextlib.AbstractContextManager[Any]:
    """Return what holds a call's place, for as long as it is waited for."""
    waiting = WAITING.get()
    return waiting.place(gate) if waiting is not None else gate or contextlib.nullcontext()


def _side_by_side(make: Callable[[int], T], count: int, limit: int | None) -> list[T]:
    places = threading.Semaphore(limit or count)

    def in_turn(i: int) -> T:
        with places:
            return make(i)

    done = [started(functools.partial(in_turn, i)) for i in range(count)]
    wait(done)
    return [each.result() for each in done]


def _of_those_that_came(
    calls: Sequence[Call], came: Mapping[int, Any], error: Exception
) -> list[Any] | Exception:
    """Return the results that were there when the time was up, if that is how it is wanted."""
    if not isinstance(error, DeadlineError) or not all(call.hands_back for call in calls):
        return error
    return [came.get(i, error) for i in range(len(calls))]


async def _amake(one: Underway[Any]) -> list[Any] | Exception:
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
        gate = _ASYNC_GATE.get()
        if gate is None or _passes(call):
            async with limit:
                return await call.runnable.ainvoke(call.input, config, **call.kwargs)
        async with gate:
            with _set(_ASYNC_GATE, asyncio.Semaphore(1)):
                return await call.runnable.ainvoke(call.input, config, **call.kwargs)

    try:
        async with awithin(one.clock, one.showing):
            if len(calls) == 1:
                return [await make(0)]
            return await _together([make(i) for i in range(len(calls))])
    except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
        return _of_those_that_came(calls, came, error)


async def _together(calls: Sequence[Coroutine[Any, Any, Any]]) -> list[Any] | Exception:
    """Await calls side by side; return their results, or the first error."""
    try:
        # A task group, unlike `gather`, leaves no call running when one of them fails.
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as failed:
        return next(iter(_leaves(failed)))  # type: ignore[no-any-return]
    return [task.result() for task in tasks]
