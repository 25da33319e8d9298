"""Drive many flows level by level, under one limit of calls at a time.

Levels keep similar requests together, which is what a provider's prompt cache needs. `prompt_order`
decides which query of a level goes first.

LangChain's own composites group the calls of a level by runnable and hand each group to
`Runnable.batch`. We tried that. The trace stays the same, and up to a sixth of the overhead of an
instant model's call is saved, but over HTTP nothing is. Each group has its own pool, however, so
two checks side by side made 6 calls at a time under `max_concurrency=3`. No chat model in
LangChain's packages does more in `batch` than invoke each input. Other implementations often take
one configuration for all inputs, but here each call has its own handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from typing import Any

from langchain_core.runnables.config import get_executor_for_config

from langchain_automix.errors import AutoMixError
from langchain_automix.flow.drivers import (
    ASYNC_LIMIT,
    LIMIT,
    T,
    atake_level,
    holding,
    limit_of_batch,
    take_level,
)
from langchain_automix.flow.prompt_order import LevelQueue, PromptOrder
from langchain_automix.flow.run import FlowRun
from langchain_automix.utils.user_warnings import keeping_users_line

_TURN = 0.002
"""Longest time, in seconds, for which a starting batch blocks the event loop."""


def drive_all(runs: Sequence[FlowRun[T]], *, stop_at_error: bool) -> list[T | Exception]:
    """Drive flows level by level: each takes one step before any takes its next.

    Args:
        runs: The flows. The `max_concurrency` of the first one limits all of them together.
        stop_at_error: Whether the first flow that fails ends the others.

    Returns:
        The result or the error of each flow. A flow that did not finish gets the error that ended
        it.
    """

    def take(queue: LevelQueue) -> None:
        with queue.next() as run:
            take_level(run)
        if stop_at_error and run.error is not None:
            raise run.error

    first: Exception | None = None
    config, order = runs[0].config, PromptOrder()
    with (
        _closing_all(runs),
        holding(LIMIT, limit_of_batch(config, threading.Semaphore)),
        keeping_users_line(),
        get_executor_for_config(config) as executor,
    ):
        try:
            while first is None and (open_runs := [run for run in runs if not run.done]):
                queue = order.level(open_runs)
                levels = [executor.submit(take, queue) for _ in open_runs]
                over, _ = wait(levels, return_when=FIRST_EXCEPTION)
                for error in filter(None, (each.exception() for each in over)):
                    if not isinstance(error, Exception):  # an interrupt is no flow's result
                        raise error
                    first = first or error
        finally:
            executor.shutdown(cancel_futures=True)
    return _outcomes(runs, first)


async def adrive_all(
    beginning: Iterable[FlowRun[T]], *, stop_at_error: bool
) -> list[T | Exception]:
    """Drive flows level by level, asynchronously; see `drive_all`.

    Args:
        beginning: Starts each flow as it yields it. The event loop serves others in between.
        stop_at_error: Whether the first flow that fails ends the others.
    """
    runs: list[FlowRun[T]] = []
    with _closing_all(runs), keeping_users_line():
        turn = time.perf_counter()
        for run in beginning:
            runs.append(run)
            if time.perf_counter() - turn > _TURN:
                await asyncio.sleep(0)
                turn = time.perf_counter()
        return await _adrive_begun(runs, stop_at_error=stop_at_error)


async def _adrive_begun(runs: Sequence[FlowRun[T]], *, stop_at_error: bool) -> list[T | Exception]:
    config, order = runs[0].config, PromptOrder()

    async def take_levels(queue: LevelQueue) -> None:
        while queue:
            with queue.next() as run:
                await atake_level(run)
            if stop_at_error and run.error is not None:
                raise run.error

    first: Exception | None = None
    with holding(ASYNC_LIMIT, limit_of_batch(config, asyncio.Semaphore)):
        while first is None and (open_runs := [run for run in runs if not run.done]):
            workers = min(config.get("max_concurrency") or len(open_runs), len(open_runs))
            queue = order.level(open_runs, workers)
            try:
                # One task per slot. With more, every task would do its own work before the first
                # model call, while finished answers wait to be processed.
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(take_levels(queue)) for _ in range(workers)]
            except* Exception as failed:  # noqa: BLE001  (passed on as the batch's own error)
                first = next(_leaves(failed))
            else:
                if any(task.cancelled() for task in tasks):  # from within: a task group ignores it
                    raise asyncio.CancelledError
    return _outcomes(runs, first)


def _outcomes(runs: Sequence[FlowRun[T]], first: Exception | None) -> list[T | Exception]:
    errors = [run.error or (None if run.done else first) for run in runs]
    return [error or run.result() for run, error in zip(runs, errors, strict=True)]


def _leaves(failed: BaseExceptionGroup[Any]) -> Iterator[Any]:
    """Yield the errors of a group and of the groups within it."""
    for error in failed.exceptions:
        if isinstance(error, BaseExceptionGroup) and not isinstance(error, AutoMixError):
            yield from _leaves(error)
        else:
            yield error


@contextlib.contextmanager
def _closing_all(runs: Sequence[FlowRun[Any]]) -> Iterator[None]:
    try:
        yield
    finally:
        for run in runs:
            # A flow that a thread is still running ends by itself.
            with contextlib.suppress(ValueError):
                run.close()
