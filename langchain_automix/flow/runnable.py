"""The base of every Runnable here that is written as a flow: its calls, one and many."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from typing_extensions import override

from langchain_automix.flow.batch import adrive_all, drive_all
from langchain_automix.flow.drivers import adrive, drive
from langchain_automix.flow.run import FlowRun
from langchain_automix.flow.serialization import PackageSerializable
from langchain_automix.flow.steps import NeedsNoSlot, Steps

if TYPE_CHECKING:
    from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun


Input = TypeVar("Input")
Output = TypeVar("Output")


class FlowRunnable(NeedsNoSlot, PackageSerializable, RunnableSerializable[Input, Output]):
    """A Runnable whose work is one flow, driven alike by every way to call it.

    In a batch all queries take their steps level by level, and `max_concurrency` limits the
    model calls of the whole batch, those of a check included.
    """

    @abstractmethod
    def _flow(self, input: Input, **kwargs: Any) -> Steps[Output]: ...

    @override
    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        def run(
            given: Input, run_manager: CallbackManagerForChainRun, config: RunnableConfig
        ) -> Output:
            return drive(FlowRun(self._flow(given, **kwargs), run_manager, config))

        return self._call_with_config(run, input, config)

    @override
    async def ainvoke(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Output:
        async def run(
            given: Input, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
        ) -> Output:
            return await adrive(FlowRun(self._flow(given, **kwargs), run_manager, config))

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
        def run(
            given: list[Input],
            run_manager: list[CallbackManagerForChainRun],
            config: list[RunnableConfig],
        ) -> list[Exception | Output]:
            many = [
                FlowRun(self._flow(each, **kwargs), manager, its_config)
                for each, manager, its_config in zip(given, run_manager, config, strict=True)
            ]
            return drive_all(many, stop_at_error=not return_exceptions)

        return _no_interrupts(
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
        async def run(
            given: list[Input],
            run_manager: list[AsyncCallbackManagerForChainRun],
            config: list[RunnableConfig],
        ) -> list[Exception | Output]:
            many = [
                FlowRun(self._flow(each, **kwargs), manager, its_config)
                for each, manager, its_config in zip(given, run_manager, config, strict=True)
            ]
            return await adrive_all(many, stop_at_error=not return_exceptions)

        return _no_interrupts(
            await self._abatch_with_config(run, inputs, config, return_exceptions=return_exceptions)
        )


def _no_interrupts(outcomes: list[Output]) -> list[Output]:
    """Raise what ends a batch and is no query's outcome: an interrupt, a cancellation.

    With `return_exceptions`, LangChain returns it once for each query, and so swallows it.
    """
    for outcome in outcomes[:1]:
        if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
            raise outcome
    return outcomes
