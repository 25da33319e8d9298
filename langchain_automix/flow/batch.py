"""Drive many flows level by level, under one limit of calls at a time.

Levels keep like requests together, on which a provider's prompt cache lives; which query of a level
goes first, `prompt_order` says. A level is not handed to `Runnable.batch`, grouped by runnable, as
LangChain's own composites do. It was tried: the runs stay the same and up to a sixth of the work
about an instant model's call is saved, over HTTP nothing; but each group has a pool of its own, so
that two checks side by side made 6 calls at a time under `max_concurrency=3`. No chat model of
LangChain's packages does more in its `batch` than invoke each input; what other code has in its
place often takes one configuration for all, and here each call has its own handlers.
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
"""Seconds for which a batch that begins keeps an event loop from everything else."""


def drive_all(runs: Sequence[FlowRun[T]], *, stop_at_error: bool) -> list[T | Exception]:
    """Drive flows level by level: each takes its next step before any takes the one after.

    Args:
        runs: The flows; the first one's `max_concurrency` is the limit of all together.
        stop_at_error: Whether the first flow that fails ends the others.

    Returns:
        The result or the error of each flow; an unfinished one's is the error that ended it.
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
                    if not isinstance(error, Exception):  # an interrupt is nobody's outcome
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
        beginning: Begins each flow as it yields it; others have their turn in between.
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
                # As many tasks as there are slots: more would do their part before the models'
                # all at once, while answers that are there wait to be taken.
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(take_levels(queue)) for _ in range(workers)]
            except* Exception as failed:  # noqa: BLE001  (handed on as the batch's own error)
                first = next(_leaves(failed))
            else:
                if any(task.cancelled() for task in tasks):  # from within: a group ignores that
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
            # A flow that a thread is still in ends by itself.
            with contextlib.suppress(ValueError):
                run.close()
