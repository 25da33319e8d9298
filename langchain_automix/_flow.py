"""One flow for sync and async.

A flow is a generator: it yields the calls that it wants made, and receives their results.
It never calls a model itself, so the same lines serve `invoke` and `ainvoke`; only the two
drivers below know how a call is carried out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.runnables.config import get_executor_for_config, patch_config

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForChainRun,
        BaseCallbackHandler,
        CallbackManagerForChainRun,
    )
    from langchain_core.runnables import Runnable, RunnableConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One call that a flow wants made, and how it is named in a trace."""

    runnable: Runnable[Any, Any]
    input: Any
    run_name: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[BaseCallbackHandler] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


Flow = Generator[Sequence[Call], list[Any], T]
"""Yields calls that may run side by side; is sent their results, in order; returns a T."""


def drive(flow: Flow[T], run_manager: CallbackManagerForChainRun, config: RunnableConfig) -> T:
    """Carry out a flow's calls as children of the current run."""
    try:
        calls = next(flow)
        while True:
            try:
                results = _make(calls, run_manager, config)
            except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
                calls = flow.throw(error)
            else:
                calls = flow.send(results)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        flow.close()


async def adrive(
    flow: Flow[T], run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
) -> T:
    """Carry out a flow's calls as children of the current run, asynchronously."""
    try:
        calls = next(flow)
        while True:
            try:
                results = await _amake(calls, run_manager, config)
            except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
                calls = flow.throw(error)
            else:
                calls = flow.send(results)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        flow.close()


def _make(
    calls: Sequence[Call], run_manager: CallbackManagerForChainRun, config: RunnableConfig
) -> list[Any]:
    def make(call: Call) -> Any:
        return call.runnable.invoke(
            call.input, _child_config(call, run_manager, config), **call.kwargs
        )

    if len(calls) == 1:
        return [make(calls[0])]
    with get_executor_for_config(config) as executor:
        return list(executor.map(make, calls))


async def _amake(
    calls: Sequence[Call], run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
) -> list[Any]:
    limit = asyncio.Semaphore(config.get("max_concurrency") or len(calls))

    async def make(call: Call) -> Any:
        async with limit:
            return await call.runnable.ainvoke(
                call.input, _child_config(call, run_manager, config), **call.kwargs
            )

    if len(calls) == 1:
        return [await make(calls[0])]
    try:
        # A task group, unlike `gather`, leaves no call running when one of them fails.
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(make(call)) for call in calls]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _child_config(
    call: Call,
    run_manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun,
    config: RunnableConfig,
) -> RunnableConfig:
    manager = run_manager.get_child()
    for handler in call.callbacks:
        manager.add_handler(handler, inherit=True)
    child = patch_config(config, callbacks=manager, run_name=call.run_name)
    child["tags"] = [*(config.get("tags") or []), *call.tags]
    child["metadata"] = {**(config.get("metadata") or {}), **call.metadata}
    return child
