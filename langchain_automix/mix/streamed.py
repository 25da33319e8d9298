"""`StreamedRunnable`: a flow whose answer is streamed by every method that streams."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import RunnableConfig
from typing_extensions import override

from langchain_automix.flow.run import FlowRun
from langchain_automix.flow.runnable import FlowRunnable
from langchain_automix.flow.steps import Flow
from langchain_automix.flow.streaming import adrive_stream, drive_stream
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.kept_answer import without_last_mark
from langchain_automix.models.messages import add_chunks

if TYPE_CHECKING:
    from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun


class StreamedRunnable(FlowRunnable[Any, Any]):
    """Streams the tokens of one flow, then its last chunks."""

    @abstractmethod
    def _query(
        self, input: Any, kwargs: Mapping[str, Any], config: RunnableConfig | None = None
    ) -> Flow[ModelAnswer]: ...

    @abstractmethod
    def _last_chunks(self, run: FlowRun[ModelAnswer]) -> Iterator[Any]: ...

    @override
    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        yield from self.transform(iter([input]), config, **kwargs)

    @override
    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async def one() -> AsyncIterator[Any]:
            yield input

        stream: Any = self.atransform(one(), config, **kwargs)
        async with contextlib.aclosing(stream) as chunks:
            async for chunk in chunks:
                yield chunk

    @override
    def transform(
        self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        def run(
            parts: Iterator[Any], run_manager: CallbackManagerForChainRun, config: RunnableConfig
        ) -> Iterator[AIMessageChunk]:
            total = None
            for part in parts:
                total = part if total is None else add_chunks(total, part)
            flow_run = FlowRun(self._query(total, kwargs, config), run_manager, config)
            yield from map(without_last_mark, drive_stream(flow_run))
            yield from self._last_chunks(flow_run)

        yield from self._transform_stream_with_config(input, run, config)

    @override
    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async def run(
            parts: AsyncIterator[Any],
            run_manager: AsyncCallbackManagerForChainRun,
            config: RunnableConfig,
        ) -> AsyncIterator[AIMessageChunk]:
            total = None
            async for part in parts:
                total = part if total is None else add_chunks(total, part)
            flow_run = FlowRun(self._query(total, kwargs, config), run_manager, config)
            driven: Any = adrive_stream(flow_run)
            async with contextlib.aclosing(driven) as chunks:
                async for chunk in chunks:
                    yield without_last_mark(chunk)
            for chunk in self._last_chunks(flow_run):
                yield chunk

        # If the reader leaves, close the stream at once, and with it the model's connection.
        stream: Any = self._atransform_stream_with_config(input, run, config)
        async with contextlib.aclosing(stream) as chunks:
            async for chunk in chunks:
                yield chunk
