"""Replay the kept answer in chunks to handlers that show tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langsmith import tracing_context
from typing_extensions import override

from langchain_automix.models.wrappers import tags_of


class Replay(Runnable[Any, AIMessage]):
    """Replays a kept answer if anyone listens; one is created per query, and seldom called."""

    def __init__(self, message: AIMessage, model: Runnable[Any, Any] | None) -> None:
        """Take the answer and the model that wrote it; None if the mix itself did."""
        self._message, self._model = message, model

    def _made(self) -> AnswerReplay:
        return AnswerReplay.of(self._message, () if self._model is None else tags_of(self._model))

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        return self._made().invoke(input, config, **kwargs)

    @override
    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        return await self._made().ainvoke(input, config, **kwargs)


class AnswerReplay(BaseChatModel):
    """Replays a kept answer in chunks to handlers that show tokens to users.

    It is not a request to a model: the model's own run was traced and has reported its usage.
    Tracing is therefore turned off, since LangChain adds a tracer, and the context's usage handler,
    to any call without one.
    """

    message: AIMessage

    @classmethod
    def of(cls, message: AIMessage, tags: Sequence[str] = ()) -> AnswerReplay:
        """Build the replay of a message, without its usage and with the tags of its model."""
        return cls(message=without_usage(message), tags=list(tags), cache=False)

    @override
    def invoke(self, *args: Any, **kwargs: Any) -> AIMessage:
        with tracing_context(enabled=False):
            return super().invoke(*args, **kwargs)

    @override
    async def ainvoke(self, *args: Any, **kwargs: Any) -> AIMessage:
        with tracing_context(enabled=False):
            return await super().ainvoke(*args, **kwargs)

    @property
    @override
    def _llm_type(self) -> str:
        return "automix-answer"

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.message)])

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in answer_chunks(self.message):
            yield ChatGenerationChunk(message=chunk)

    def _stream_chat_model_events(self, *_: Any, **__: Any) -> Iterator[Mapping[str, Any]]:
        """Yield the answer as protocol events (`stream_events(version="v3")`).

        The events carry the answer's own id, by which LangGraph recognises that the message
        returned by the node has already been streamed.
        """
        # Called only by versions of LangChain that have these events.
        from langchain_core.language_models._compat_bridge import message_to_events  # noqa: PLC0415

        yield from message_to_events(self.message, message_id=self.message.id)

    async def _astream_chat_model_events(
        self, *_: Any, **__: Any
    ) -> AsyncIterator[Mapping[str, Any]]:
        for event in self._stream_chat_model_events():
            yield event


def answer_chunks(message: AIMessage, *, streamed: bool = False) -> Iterator[AIMessageChunk]:
    """Yield a kept answer as chunks, with the record of its query in the last one.

    Args:
        message: The answer, with its record.
        streamed: Whether everything except the record has been passed on already.
    """
    if streamed:
        record = {"automix": message.response_metadata["automix"]}
        rest: dict[str, Any] = {"content": "", "id": message.id, "response_metadata": record}
    else:
        rest = message.model_dump(exclude={"type", "chunk_position"})
    yield AIMessageChunk(**rest, chunk_position="last")


def without_last_mark(chunk: Any) -> Any:
    """Return a model's chunk without its end mark, since the record still follows."""
    if getattr(chunk, "chunk_position", None) is None and not _has_record(chunk):
        return chunk
    # If the model is itself a mix, it has its own record, and two records cannot be added.
    metadata = {k: v for k, v in chunk.response_metadata.items() if k != "automix"}
    return chunk.model_copy(update={"chunk_position": None, "response_metadata": metadata})


def _has_record(chunk: Any) -> bool:
    return "automix" in getattr(chunk, "response_metadata", ())


def as_result(message: AIMessage) -> ChatResult:
    """Return an answer as the result of a chat model, without its usage."""
    return ChatResult(generations=[ChatGeneration(message=without_usage(message))])


def without_usage(message: Any) -> Any:
    """Return an answer, or a chunk of one, without its usage: its model's own run reports it."""
    return message.model_copy(update={"usage_metadata": None})
