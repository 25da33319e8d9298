"""Drive many flows level by level, under one limit of calls at a time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from typing import Any

from langchain_core.runnables.config import get_executor_for_config

from langchain_automix.flow.drivers import (
    ASYNC_CONCURRENCY,
    CONCURRENCY,
    T,
    amake_calls,
    leaf_errors,
    make_calls,
    set_limit,
)
from langchain_automix.flow.run import FlowRun


def drive_all(many: Sequence[FlowRun[T]], *, stop_at_error: bool) -> list[T | Exception]:
    """Drive flows level by level: each takes its next step before any takes the one after.

    Args:
        many: The flows; the first one's `max_concurrency` is the limit of all together.
        stop_at_error: Whether the first flow that fails ends the others.

    Returns:
        What each flow came to; an unfinished one came to the error that ended it.
    """
    limit = many[0].config.get("max_concurrency")

    def step(one: FlowRun[T]) -> None:
        one.resume(make_calls(one))
        while one.is_between_levels:
            one.resume(make_calls(one))
        if stop_at_error and one.error is not None:
            raise one.error

    first: Exception | None = None
    gate = CONCURRENCY.get() or (limit and threading.Semaphore(limit))
    executing = get_executor_for_config(many[0].config)
    with _closing_all(many), set_limit(CONCURRENCY, gate), executing as executor:
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


async def adrive_all(many: Sequence[FlowRun[T]], *, stop_at_error: bool) -> list[T | Exception]:
    """Drive flows level by level, asynchronously; see `drive_all`."""
    limit = many[0].config.get("max_concurrency")

    async def work(queue: Iterator[FlowRun[T]]) -> None:
        for one in queue:
            await one.aresume(await amake_calls(one))
            while one.is_between_levels:
                await one.aresume(await amake_calls(one))
            if stop_at_error and one.error is not None:
                raise one.error

    first: Exception | None = None
    gate = ASYNC_CONCURRENCY.get() or (limit and asyncio.Semaphore(limit))
    with _closing_all(many), set_limit(ASYNC_CONCURRENCY, gate):
        while first is None and (waiting := [one for one in many if not one.done]):
            queue = iter(waiting)
            try:
                # As many flows as there are places: more would do their part before the models'
                # all at once, while answers that are there wait to be taken.
                async with asyncio.TaskGroup() as group:
                    places = min(limit or len(waiting), len(waiting))
                    tasks = [group.create_task(work(queue)) for _ in range(places)]
            except* Exception as failed:  # noqa: BLE001  (handed on as the batch's own error)
                first = next(iter(leaf_errors(failed)))
            else:
                if any(task.cancelled() for task in tasks):  # from within: a group ignores that
                    raise asyncio.CancelledError
    return _outcomes(many, first)


def _outcomes(many: Sequence[FlowRun[T]], first: Exception | None) -> list[T | Exception]:
    outcomes: list[T | Exception] = []
    for one in many:
        ended = one.error or (None if one.done else first)
        outcomes.append(one.result() if ended is None else ended)
    return outcomes


@contextlib.contextmanager
def _closing_all(many: Sequence[FlowRun[Any]]) -> Iterator[None]:
    try:
        yield
    finally:
        for one in many:
            # A flow that a thread is still in ends by itself.
            with contextlib.suppress(ValueError):
                one.close()
