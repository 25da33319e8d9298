"""The base of every Runnable here that is written as a flow."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from typing_extensions import override

from langchain_automix.flow.as_completed import LimitedAsCompleted
from langchain_automix.flow.batch import adrive_all, drive_all
from langchain_automix.flow.drivers import adrive, drive
from langchain_automix.flow.run import FlowRun
from langchain_automix.flow.serialization import PackageSerializable
from langchain_automix.flow.steps import Flow, NeedsNoSlot, Steps

Input = TypeVar("Input")
Output = TypeVar("Output")


class FlowRunnable(
    LimitedAsCompleted, NeedsNoSlot, PackageSerializable, RunnableSerializable[Input, Output]
):
    """A Runnable whose work is one flow, driven alike by every way to call it.

    In a batch all queries take their steps level by level, and `max_concurrency` limits the
    model calls of the whole batch, those of a check included.
    """

    @abstractmethod
    def _flow(self, input: Input, **kwargs: Any) -> Steps[Output]: ...

    def steps(self, input: Input, **kwargs: Any) -> Steps[Output]:
        """Return the flow of one input, for a caller that makes its calls itself."""
        return self._flow(input, **kwargs)

    def _begin(
        self, input: Input, kwargs: Mapping[str, Any], config: RunnableConfig
    ) -> Flow[Output]:
        """Return the flow of one run: overridden where it has a deadline or reports something."""
        del config
        return Flow(self._flow(input, **kwargs))

    @override
    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        def run(input: Input, run_manager: Any, config: RunnableConfig) -> Output:
            return drive(FlowRun(self._begin(input, kwargs, config), run_manager, config))

        return self._call_with_config(run, input, config)

    @override
    async def ainvoke(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Output:
        async def run(input: Input, run_manager: Any, config: RunnableConfig) -> Output:
            return await adrive(FlowRun(self._begin(input, kwargs, config), run_manager, config))

        return await self._acall_with_config(run, input, config)

    @override
    def batch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        def run(inputs: list[Input], run_manager: list[Any], config: list[Any]) -> list[Any]:
            runs = self._runs(kwargs, inputs, run_manager, config)
            return drive_all(runs, stop_at_error=not return_exceptions)

        return _without_interrupts(
            self._batch_with_config(run, inputs, config, return_exceptions=return_exceptions)
        )

    @override
    async def abatch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        async def run(inputs: list[Input], run_manager: list[Any], config: list[Any]) -> list[Any]:
            runs = self._runs(kwargs, inputs, run_manager, config)
            return await adrive_all(runs, stop_at_error=not return_exceptions)

        return _without_interrupts(
            await self._abatch_with_config(run, inputs, config, return_exceptions=return_exceptions)
        )

    def _runs(self, kwargs: Mapping[str, Any], *parts: list[Any]) -> list[FlowRun[Output]]:
        """Return the runs of a batch, from the inputs, the run managers and the configurations."""
        return [
            FlowRun(self._begin(input, kwargs, config), run_manager, config)
            for input, run_manager, config in zip(*parts, strict=True)
        ]


def _without_interrupts(outcomes: list[Output]) -> list[Output]:
    """Raise what ends a batch and is no query's outcome: an interrupt, a cancellation.

    With `return_exceptions`, LangChain returns it once for each query, and so swallows it.
    """
    for outcome in outcomes[:1]:
        if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
            raise outcome
    return outcomes
