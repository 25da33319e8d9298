"""Run many queries under one concurrency limit and hand each out as soon as it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_config_list
from typing_extensions import override

from langchain_automix.flow.drivers import ASYNC_LIMIT, LIMIT, holding, limit_of_batch


class OneLimit(Runnable[Any, Any]):
    """Run each query of a batch on its own, all under one limit of calls at a time.

    LangChain's own `batch_as_completed` starts as many queries as the limit allows. Each of them
    would then make that many calls.
    """

    def __init__(self, runnable: Runnable[Any, Any], config: RunnableConfig) -> None:
        """Take the limit from the configuration of the first query."""
        self._runnable = runnable
        self._limit = limit_of_batch(config, threading.Semaphore)
        self._async_limit = limit_of_batch(config, asyncio.Semaphore)

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with holding(LIMIT, self._limit):
            return self._runnable.invoke(input, config, **kwargs)

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with holding(ASYNC_LIMIT, self._async_limit):
            return await self._runnable.ainvoke(input, config, **kwargs)


class LimitedAsCompleted:
    """Apply `max_concurrency` to the whole of `batch_as_completed` and its async form."""

    def batch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Run queries side by side; yield the index and the output of each as it ends."""
        if inputs:
            yield from self._under_one_limit(inputs, config).batch_as_completed(
                inputs, config, **kwargs
            )

    async def abatch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Run queries side by side; yield the index and the output of each as it ends."""
        if inputs:
            queries: Any = self._under_one_limit(inputs, config)
            async for each in queries.abatch_as_completed(inputs, config, **kwargs):
                yield each

    def _under_one_limit(self, inputs: Sequence[Any], config: Any) -> OneLimit:
        runnable: Any = self
        return OneLimit(runnable, get_config_list(config, len(inputs))[0])
