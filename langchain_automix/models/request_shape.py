"""What a check's request holds beside its messages: a format, and the answering call's tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from langchain_automix.models.wrappers import map_chat_models

RequestShape = Callable[[BaseChatModel], BaseChatModel | None]
"""Returns a chat model with more in its requests; None: for such a model no way is known."""


def can_shape(shape: RequestShape, model: Runnable[Any, Any]) -> bool:
    """Whether every chat model of a runnable can be shaped: each fallback, too."""
    found: list[bool] = []

    def noted(chat_model: BaseChatModel) -> BaseChatModel:
        found.append(shape(chat_model) is not None)
        return chat_model

    def no_chat_model(other: Runnable[Any, Any]) -> Runnable[Any, Any]:
        found.append(False)
        return other

    map_chat_models(model, noted, other=no_chat_model)
    return all(found)


def with_tools(tools: Sequence[Mapping[str, Any]]) -> RequestShape:
    """Return the shape of a request that holds the answering call's tools, and calls none.

    Tools stand before the messages in what a provider reads. A check without them would share no
    prefix with the answering call, and find nothing of it in the prompt cache; and Anthropic
    refuses a conversation with tool calls whose tools are not given.
    """

    def shape(chat_model: BaseChatModel) -> BaseChatModel | None:
        if not (_is(chat_model, "BaseChatOpenAI") or _is(chat_model, "ChatAnthropic")):
            return None
        bound: Any = chat_model.bind_tools([dict(tool) for tool in tools])
        extra = {"tools": bound.kwargs["tools"]}
        if _is(chat_model, "BaseChatOpenAI"):
            # At Anthropic another choice of tools would lose the cached messages; at OpenAI it is
            # no part of what the model reads.
            extra["tool_choice"] = "none"
        return _sent_with(chat_model, extra)

    return shape


def in_format(name: str, schema: Mapping[str, Any]) -> RequestShape:
    """Return the shape of a request whose reply must fit a JSON schema."""
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": dict(schema), "strict": True},
    }

    def shape(chat_model: BaseChatModel) -> BaseChatModel | None:
        if (chat_model.profile or {}).get("structured_output") is False:
            return None
        if _is(chat_model, "BaseChatOpenAI") and not uses_responses_api(chat_model):
            # Given as an argument, OpenAI's client would read the replies by itself, and raise
            # for all of them where one was cut.
            body = getattr(chat_model, "extra_body", None) or {}
            extra = {"extra_body": {**body, "response_format": wanted}}
            return chat_model.model_copy(update=extra)
        if _is(chat_model, "BaseChatOpenAI") or _is(chat_model, "ChatAnthropic"):
            return _sent_with(chat_model, {"response_format": wanted})
        return None

    return shape


def together(*shapes: RequestShape) -> RequestShape:
    """Return several shapes as one."""

    def shape(chat_model: BaseChatModel) -> BaseChatModel | None:
        shaped: BaseChatModel | None = chat_model
        for each in shapes:
            shaped = shaped and each(shaped)
        return shaped

    return shape


def uses_responses_api(chat_model: BaseChatModel) -> bool:
    """Whether the model is asked over OpenAI's Responses API, as only it knows."""
    asks = getattr(chat_model, "_use_responses_api", None)
    return asks is not None and bool(asks({}))


def _is(chat_model: BaseChatModel, name: str) -> bool:
    """Whether a model is of a provider's class or derives from it; the provider is not imported."""
    return any(kind.__name__ == name for kind in type(chat_model).__mro__)


def _sent_with(chat_model: BaseChatModel, extra: Mapping[str, Any]) -> BaseChatModel:
    sent = {**getattr(chat_model, "model_kwargs", {}), **extra}
    return chat_model.model_copy(update={"model_kwargs": sent})
