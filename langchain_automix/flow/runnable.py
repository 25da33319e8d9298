"""The base class of every Runnable in this package that is written as a flow."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import ensure_config
from typing_extensions import override

from langchain_automix.flow.as_completed import LimitedAsCompleted
from langchain_automix.flow.batch import adrive_all, drive_all
from langchain_automix.flow.drivers import adrive, drive
from langchain_automix.flow.run import FlowRun
from langchain_automix.flow.serialization import PackageSerializable
from langchain_automix.flow.steps import Flow, NeedsNoSlot, Steps, made_of_steps

Input = TypeVar("Input")
Output = TypeVar("Output")


_Begin = Callable[[Any, Mapping[str, Any], RunnableConfig], Flow[Any]]


class _Work:
    """Begins a flow in a run that LangChain has started.

    LangChain inspects the signature of each function it calls. With a new function for every query,
    that took a tenth of the query's time. Here it finds a signature that is already known.
    """

    # Without the configuration, which would be built a second time; it is in the context.
    __signature__ = inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            for name in ("input", "run_manager")
        ]
    )

    def __init__(self, begin: _Begin, kwargs: Mapping[str, Any]) -> None:
        self._begin, self._kwargs = begin, kwargs

    def _run(self, input: Any, run_manager: Any) -> FlowRun[Any]:
        config = ensure_config()
        return FlowRun(self._begin(input, self._kwargs, config), run_manager, config)


class _Drive(_Work):
    def __call__(self, input: Any, run_manager: Any) -> Any:
        return drive(self._run(input, run_manager))


class _DriveAsync(_Work):
    async def __call__(self, input: Any, run_manager: Any) -> Any:
        return await adrive(self._run(input, run_manager))


class FlowRunnable(
    LimitedAsCompleted, NeedsNoSlot, PackageSerializable, RunnableSerializable[Input, Output]
):
    """A Runnable whose work is one flow, driven the same way by every method that calls it.

    In a batch, all queries advance level by level, and `max_concurrency` limits the model calls of
    the whole batch, including those of checks.
    """

    @abstractmethod
    def _flow(self, input: Input, **kwargs: Any) -> Steps[Output]: ...

    def steps(self, input: Input, **kwargs: Any) -> Steps[Output]:
        """Return the flow of one input, for a caller that makes its calls itself."""
        return self._flow(input, **kwargs)

    @made_of_steps
    def _begin(
        self, input: Input, kwargs: Mapping[str, Any], config: RunnableConfig
    ) -> Flow[Output]:
        """Return the flow of one run; override it to set a deadline or to report something."""
        del config
        return Flow(self._flow(input, **kwargs))

    @override
    @made_of_steps
    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        return self._call_with_config(_Drive(self._begin, kwargs), input, config)

    @override
    @made_of_steps
    async def ainvoke(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Output:
        return await self._acall_with_config(_DriveAsync(self._begin, kwargs), input, config)

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
            runs = list(self._runs(kwargs, inputs, run_manager, config))
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

    def _runs(self, kwargs: Mapping[str, Any], *parts: list[Any]) -> Iterator[FlowRun[Output]]:
        """Begin the runs of a batch from its inputs, run managers and configurations."""
        for input, run_manager, config in zip(*parts, strict=True):
            yield FlowRun(self._begin(input, kwargs, config), run_manager, config)


def _without_interrupts(outcomes: list[Output]) -> list[Output]:
    """Raise an interrupt or a cancellation, which ends the whole batch.

    With `return_exceptions`, LangChain swallows it: it returns the error once for each query.
    """
    for outcome in outcomes[:1]:
        if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
            raise outcome
    return outcomes
