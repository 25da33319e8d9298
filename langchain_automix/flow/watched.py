"""`WatchedStream`: stream the answer of one call, and close the stream once it is not wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import message_chunk_to_message
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs
from typing_extensions import override

from langchain_automix.errors import StreamClosedError
from langchain_automix.flow.streaming import add_chunks

CLOSED: Any = object()
"""Returned by a call whose stream was closed before its end."""


class WatchedStream(Runnable[Any, Any]):
    """Streams an answer and returns it whole, or closes the stream and returns `CLOSED`.

    It has no run of its own in a trace. If the stream of a model is closed, the model's run ends
    with a `StreamClosedError` that says why, and its connection is closed.
    """

    def __init__(
        self,
        model: Runnable[Any, Any],
        why_close: Callable[[Any], str | None],
        configs: Sequence[RunnableConfig] = (),
    ) -> None:
        """Watch one call.

        Args:
            model: The Runnable to call. It must not be a binding, which would close an async stream
                too late.
            why_close: Gets each chunk in order; returns the reason to close the stream, or None.
            configs: Configurations that the call's own one is merged into, the first one first.
        """
        self._model, self._why_close, self._configs = model, why_close, configs

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        stream: Any = self._model.stream(input, merge_configs(*self._configs, config), **kwargs)
        parts = []
        with contextlib.closing(stream):
            for chunk in stream:
                parts.append(chunk)
                if (why := self._why_close(chunk)) is not None:
                    with contextlib.suppress(StreamClosedError, StopIteration):
                        stream.throw(StreamClosedError(why))
                    return CLOSED
        return _whole(parts)

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        stream: Any = self._model.astream(input, merge_configs(*self._configs, config), **kwargs)
        parts = []
        async with contextlib.aclosing(stream):
            async for chunk in stream:
                parts.append(chunk)
                if (why := self._why_close(chunk)) is not None:
                    with contextlib.suppress(StreamClosedError, StopAsyncIteration):
                        await stream.athrow(StreamClosedError(why))
                    return CLOSED
        return _whole(parts)


def _whole(parts: list[Any]) -> Any:
    whole = add_chunks(parts)
    return whole if whole is None else message_chunk_to_message(whole)
