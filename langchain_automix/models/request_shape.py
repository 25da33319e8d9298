"""What a request carries besides its messages: settings, a format, the answering call's tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from langchain_automix.models.tools import as_given
from langchain_automix.models.wrappers import iter_chat_models, map_chat_models

REPLY_LENGTH_FIELDS = ("max_tokens", "num_predict", "max_output_tokens")
"""The fields by which chat models limit the length of a reply, in tokens."""

REPLY_LENGTHS = frozenset({*REPLY_LENGTH_FIELDS, "max_completion_tokens"})
"""The arguments of a call that limit the length of a reply."""

RequestShape = Callable[[BaseChatModel], BaseChatModel | None]
"""Returns a chat model whose requests carry more, or None if the model does not support it."""


def with_answer_settings(
    model: Runnable[Any, Any], settings: Mapping[str, Any]
) -> Runnable[Any, Any]:
    """Return a model with settings for its answers, under its client's own names for them.

    They are set as fields rather than passed as arguments of a call, which some clients reject.

    Args:
        model: The chat model, bare or wrapped.
        settings: Such as `temperature` and `max_tokens`. If a model's client has no such field,
            the setting is bound as an argument of its calls.
    """
    if not settings:
        return model

    def set_on(chat_model: BaseChatModel) -> Runnable[Any, Any]:
        fields: dict[str, Any] = {}
        arguments: dict[str, Any] = {}
        for name, value in settings.items():
            known = REPLY_LENGTH_FIELDS if name == "max_tokens" else (name,)
            own = [field for field in known if field in type(chat_model).model_fields]
            fields |= dict.fromkeys(own, value)
            arguments |= {} if own else {name: value}
        changed = chat_model.model_copy(update=fields)
        return changed.bind(**arguments) if arguments else changed

    def without(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        # Bound arguments are overridden, as they are by the arguments of a call.
        lengths = REPLY_LENGTHS if "max_tokens" in settings else frozenset()
        return {k: v for k, v in kwargs.items() if k not in settings.keys() | lengths}

    return map_chat_models(
        model, set_on, kwargs=without, other=lambda other: other.bind(**settings)
    )


def can_shape(shape: RequestShape, model: Runnable[Any, Any]) -> bool:
    """Whether every chat model of a runnable can be shaped, fallbacks included."""
    return all(each is not None and shape(each) is not None for each in iter_chat_models(model))


def with_tools(tools: Sequence[Mapping[str, Any]]) -> RequestShape:
    """Return the shape of a request with the answering call's tools, which calls none of them.

    Providers read tools before messages. Without the tools, a check would share no prefix with the
    answering call, and so nothing in the prompt cache. Anthropic also refuses a conversation with
    tool calls if the tools are missing.
    """

    def shape(chat_model: BaseChatModel) -> BaseChatModel | None:
        if not (_is(chat_model, "BaseChatOpenAI") or _is(chat_model, "ChatAnthropic")):
            return None
        bound: Any = chat_model.bind_tools([_for_a_check(tool) for tool in tools])
        extra = {"tools": bound.kwargs["tools"]}
        if _is(chat_model, "BaseChatOpenAI"):
            # With Anthropic, a different tool choice would miss the cached messages; with OpenAI,
            # the tool choice is not part of the prompt.
            extra["tool_choice"] = "none"
        return _with_model_kwargs(chat_model, extra)

    return shape


def _for_a_check(tool: Mapping[str, Any]) -> Any:
    """Return a tool as in the answering call; a provider's own becomes a plain function."""
    given = as_given(tool)
    if not isinstance(given, Mapping):
        return given
    is_own = given.get("type", "function") == "function" and "function_declarations" not in given
    return given if is_own else dict(tool)


def in_format(name: str, schema: Mapping[str, Any]) -> RequestShape:
    """Return the shape of a request whose reply must fit a JSON schema."""
    response_format = {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": dict(schema), "strict": True},
    }

    def shape(chat_model: BaseChatModel) -> BaseChatModel | None:
        if (chat_model.profile or {}).get("structured_output") is False:
            return None
        if _is(chat_model, "BaseChatOpenAI") and not uses_responses_api(chat_model):
            # As an argument, it would make OpenAI's client parse the replies, and raise for all of
            # them if one was truncated.
            body = getattr(chat_model, "extra_body", None) or {}
            extra = {"extra_body": {**body, "response_format": response_format}}
            return chat_model.model_copy(update=extra)
        if _is(chat_model, "BaseChatOpenAI") or _is(chat_model, "ChatAnthropic"):
            return _with_model_kwargs(chat_model, {"response_format": response_format})
        return None

    return shape


def together(*shapes: RequestShape) -> RequestShape:
    """Combine several shapes into one."""

    def shape(chat_model: BaseChatModel) -> BaseChatModel | None:
        shaped: BaseChatModel | None = chat_model
        for each in shapes:
            shaped = shaped and each(shaped)
        return shaped

    return shape


def uses_responses_api(chat_model: BaseChatModel) -> bool:
    """Whether the model uses OpenAI's Responses API."""
    uses = getattr(chat_model, "_use_responses_api", None)
    return uses is not None and bool(uses({}))


def takes_openai_arguments(chat_model: BaseChatModel) -> bool:
    """Whether the arguments of a call go into the request, under OpenAI's names for them."""
    return any(_is(chat_model, name) for name in ("BaseChatOpenAI", "ChatGroq", "ChatLiteLLM"))


def _is(chat_model: BaseChatModel, name: str) -> bool:
    """Whether a model is an instance of a provider's class, without importing that class."""
    return any(kind.__name__ == name for kind in type(chat_model).__mro__)


def _with_model_kwargs(chat_model: BaseChatModel, extra: Mapping[str, Any]) -> BaseChatModel:
    model_kwargs = {**getattr(chat_model, "model_kwargs", {}), **extra}
    return chat_model.model_copy(update={"model_kwargs": model_kwargs})
