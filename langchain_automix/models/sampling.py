"""A chat model made ready to be sampled."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from langchain_automix.models.request_shape import RequestShape, uses_responses_api
from langchain_automix.models.wrappers import chat_model_of, map_chat_models

ChatRunnable = Runnable[Any, AIMessage]

_REPLY_LENGTH_FIELDS = ("max_tokens", "num_predict", "max_output_tokens")
_REPLY_LENGTHS = frozenset({*_REPLY_LENGTH_FIELDS, "max_completion_tokens"})
# Set for the answering call: they would cut or shape a check's reply, or narrow its sampling.
_ANSWER_ONLY_FIELDS = frozenset(
    {"format", "n", "response_format", "stop", "stop_sequences", "streaming", "top_k", "top_p"}
)
# Bound for the answering call; in a check they would call tools or change the sampling.
_ANSWER_ONLY_KWARGS = frozenset(
    {
        *_REPLY_LENGTHS,
        "function_call",
        "functions",
        "n",
        "parallel_tool_calls",
        "response_format",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "stream_usage",
        "temperature",
        "tool_choice",
        "tools",
    }
)

# How a call samples, whatever it is for: the rest may be kept where an answer is asked for again.
_OF_SAMPLING = frozenset(
    {
        "n",
        "seed",
        "stream",
        "stream_options",
        "stream_usage",
        "streaming",
        "temperature",
        "top_k",
        "top_p",
    }
)


def takes_n(model: Runnable[Any, Any]) -> bool:
    """Whether one request to the model can ask for several replies."""
    chat_model = chat_model_of(model)
    if chat_model is None or "n" not in type(chat_model).model_fields:
        return False
    return not uses_responses_api(chat_model)  # which has no `n`


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
    """Return a copy of the model for drawing samples, with its retries and fallbacks kept.

    Args:
        model: The chat model, bare or bound, with retries or fallbacks.
        temperature: Sampling temperature.
        max_tokens: Longest reply, in tokens; not set where the model thinks first, for the
            thinking counts, too. None: as the model has it.
        n: Replies that one request asks for.
        nth: Number of this request among several like it: a model with a fixed seed gets
            another seed for each, else all would reply the same.
        answers: Whether answers are sampled, so that all that is set or bound to shape them is
            kept: their format, end and tools, and with `max_tokens=None` their length.
        further: Other fields to set, on models that have them, such as `logprobs`.
        shape: What else each chat model's requests hold; where it knows no way, nothing.
    """

    def prepared(chat_model: BaseChatModel) -> ChatRunnable:
        settings = _settings(chat_model, temperature, max_tokens, n, nth, answers=answers)
        fields = type(chat_model).model_fields
        settings |= {name: value for name, value in (further or {}).items() if name in fields}
        copied = chat_model.model_copy(update=settings)
        return copied if shape is None else shape(copied) or copied

    def used_as_it_is(other: ChatRunnable) -> ChatRunnable:
        _warn_used_as_is(type(other).__name__)
        return other

    dropped = _dropped_arguments(max_tokens, answers=answers)

    def for_any_call(kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in kwargs.items() if name not in dropped}

    return map_chat_models(model, prepared, kwargs=for_any_call, other=used_as_it_is)


def _dropped_arguments(max_tokens: int | None, *, answers: bool) -> frozenset[str]:
    """Return the arguments of the answering call that a sample goes without."""
    left_out = _OF_SAMPLING if answers else _ANSWER_ONLY_KWARGS
    return left_out if max_tokens is not None else left_out - _REPLY_LENGTHS


@functools.cache
def _warn_used_as_is(kind: str) -> None:
    warnings.warn(
        f"A check draws its samples from a {kind} as it is: its temperature, cache and tools are "
        "its own, so the samples may all be alike. Give a chat model, bound or with retries or "
        "fallbacks, to have them set.",
        stacklevel=2,
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
    reset = _ANSWER_ONLY_FIELDS & _OF_SAMPLING if answers else _ANSWER_ONLY_FIELDS
    for name in reset & fields.keys():
        settings[name] = fields[name].get_default(call_default_factory=True)
    if isinstance(extra := getattr(model, "model_kwargs", None), dict):
        dropped = _dropped_arguments(max_tokens, answers=answers)
        settings["model_kwargs"] = {k: v for k, v in extra.items() if k not in dropped}
    if "temperature" in fields and profile.get("temperature") is not False:
        settings["temperature"] = temperature
    # A short limit would cut the thinking, not the reply.
    if max_tokens is not None and not profile.get("reasoning_output"):
        settings |= dict.fromkeys([f for f in _REPLY_LENGTH_FIELDS if f in fields], max_tokens)
    if "n" in fields and n > 1:
        settings["n"] = n
    seed = getattr(model, "seed", None)
    if isinstance(seed, int):
        settings["seed"] = seed + nth
    return settings
