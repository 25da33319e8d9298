"""Prepare a chat model for sampling."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from langchain_automix.models.refusals import SEVERAL_REPLIES
from langchain_automix.models.request_shape import (
    REPLY_LENGTH_FIELDS,
    REPLY_LENGTHS,
    RequestShape,
    uses_responses_api,
)
from langchain_automix.models.wrappers import chat_model_of, map_chat_models
from langchain_automix.utils.user_warnings import warn_user

ChatRunnable = Runnable[Any, AIMessage]

_STREAM_KWARGS = frozenset({"stream", "stream_options", "stream_usage"})
# How a call samples, whatever its purpose; the rest can stay if an answer is sampled again.
_SAMPLING = _STREAM_KWARGS | {
    *("n", "random_seed", "seed", "streaming", "temperature", "top_k", "top_p"),
}
# Whatever shapes an answer, by every provider's name for it: format, stop words, media, tokens.
_SHAPES = frozenset(
    {
        "format",  # Ollama; Anthropic in `output_config`, OpenAI's Responses in `text`
        "output_format",  # Anthropic
        "response_format",  # OpenAI, Mistral, LiteLLM, vLLM
        "text_format",
        "textFormat",  # Bedrock in `outputConfig`
        *("response_json_schema", "response_mime_type", "response_schema"),  # Gemini
        *("responseJsonSchema", "responseMimeType", "responseSchema"),
        *("guided_choice", "guided_decoding", "guided_grammar", "guided_json"),  # vLLM
        *("guided_regex", "guided_whitespace_pattern", "structured_outputs"),
        *("ebnf", "regex", "structural_tag"),  # SGLang
        *("grammar", "json_schema"),  # llama.cpp, SGLang
        *("audio", "image_config", "modalities", "response_modalities", "speech_config"),
        *("logit_bias", "prediction"),
        *("stop", "stop_sequences", "stop_token_ids", "stopSequences"),
    }
)
# Arguments that contain others, for instance those that a client does not know by name.
_CONTAINERS = frozenset(
    {
        *("additional_model_request_fields", "extra_body", "generation_config", "model_kwargs"),
        *("options", "outputConfig", "output_config", "text"),
    }
)
# Fields for the answering call alone: they would truncate or shape a check's reply, or its
# sampling.
_ANSWER_ONLY_FIELDS = _SHAPES | {"n", "streaming", "top_k", "top_p"}
# Arguments for the answering call alone: they would call tools in a check, or change its sampling.
_TOOL_KWARGS = frozenset(
    {
        *("function_call", "functions", "parallel_tool_calls"),
        *("tool_choice", "tool_config", "tools"),
    }
)
_ANSWER_ONLY_KWARGS = (REPLY_LENGTHS | _SHAPES | _TOOL_KWARGS | _SAMPLING) - {"top_k", "top_p"}


def takes_n(model: Runnable[Any, Any]) -> bool:
    """Whether one request can ask the model for several replies."""
    chat_model = chat_model_of(model)
    if chat_model is None or "n" not in type(chat_model).model_fields:
        return False
    if SEVERAL_REPLIES.knows(model):
        return False
    return not uses_responses_api(chat_model)  # it has no `n`


def thinks(model: Runnable[Any, Any]) -> bool:
    """Whether a model thinks before it replies, by its profile; if so, set no short limit."""
    chat_model = chat_model_of(model)
    return bool(chat_model is not None and (chat_model.profile or {}).get("reasoning_output"))


def for_sampling(
    model: ChatRunnable,
    *,
    temperature: float,
    max_tokens: int | None,
    n: int = 1,
    nth: int = 0,
    answers: bool = False,
    further: Mapping[str, Any] | None = None,
    shape: RequestShape | None = None,
) -> ChatRunnable:
    """Return a copy of the model to draw samples from, with its retries and fallbacks.

    Args:
        model: The chat model, bare or wrapped.
        temperature: Sampling temperature.
        max_tokens: Maximum length of a reply, in tokens; ignored if the model thinks first, since
            its thinking counts towards it. None uses the model's own limit.
        n: Number of replies per request.
        nth: Index of this request among similar ones. A fixed seed is increased by it, since
            otherwise all replies would be the same.
        answers: Whether answers are sampled. If so, whatever shapes an answer is kept: format, stop
            words, tools and, if `max_tokens` is None, the length.
        further: Other fields to set on models that have them, such as `logprobs`.
        shape: What else the requests carry, if the model supports it.
    """

    def prepared(chat_model: BaseChatModel) -> ChatRunnable:
        settings = _settings(chat_model, temperature, max_tokens, n, nth, answers=answers)
        fields = type(chat_model).model_fields
        settings |= {name: value for name, value in (further or {}).items() if name in fields}
        copied = chat_model.model_copy(update=settings)
        return copied if shape is None else shape(copied) or copied

    def use_as_is(other: ChatRunnable) -> ChatRunnable:
        _warn_used_as_is(type(other).__name__)
        return other

    dropped = _dropped_arguments(max_tokens, answers=answers)

    def keep_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return _without(kwargs, dropped)

    return map_chat_models(model, prepared, kwargs=keep_arguments, other=use_as_is)


def _dropped_arguments(max_tokens: int | None, *, answers: bool) -> frozenset[str]:
    """Return the arguments of the answering call that a sample leaves out."""
    dropped = _SAMPLING if answers else _ANSWER_ONLY_KWARGS
    return dropped if max_tokens is not None else dropped - REPLY_LENGTHS


def _without(arguments: Mapping[str, Any], dropped: frozenset[str]) -> dict[str, Any]:
    """Return arguments without some of them, including those nested in container arguments."""
    kept: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in dropped:
            continue
        if name in _CONTAINERS and isinstance(value, Mapping):
            inner = _without(value, dropped)
            if value and not inner:
                continue
            kept[name] = inner
        else:
            kept[name] = value
    return kept


@functools.cache
def _warn_used_as_is(kind: str) -> None:
    warn_user(
        f"A check draws its samples from a {kind}, whose temperature, cache and tools cannot be "
        "set: the samples may all be alike. Pass a chat model, bound or with retries or fallbacks."
    )


def _settings(
    model: BaseChatModel,
    temperature: float,
    max_tokens: int | None,
    n: int,
    nth: int,
    *,
    answers: bool,
) -> dict[str, Any]:
    fields = type(model).model_fields
    profile: Mapping[str, Any] = model.profile or {}
    settings: dict[str, Any] = {"cache": False, "disable_streaming": True}
    reset = _ANSWER_ONLY_FIELDS & _SAMPLING if answers else _ANSWER_ONLY_FIELDS
    for name in reset & fields.keys():
        settings[name] = fields[name].get_default(call_default_factory=True)
    dropped = _dropped_arguments(max_tokens, answers=answers)
    for name in _CONTAINERS & fields.keys():
        if isinstance(extra := getattr(model, name), dict):
            default = fields[name].get_default(call_default_factory=True)
            settings[name] = _without(extra, dropped) or default
    if "temperature" in fields and profile.get("temperature") is not False:
        settings["temperature"] = temperature
    # A short limit would truncate the thinking, not the reply.
    if max_tokens is not None and not profile.get("reasoning_output"):
        settings |= dict.fromkeys([f for f in REPLY_LENGTH_FIELDS if f in fields], max_tokens)
    if "n" in fields and n > 1:
        settings["n"] = n
    for name in ("seed", "random_seed"):  # Mistral calls it `random_seed`
        if isinstance(seed := getattr(model, name, None), int):
            settings[name] = seed + nth
    return settings
