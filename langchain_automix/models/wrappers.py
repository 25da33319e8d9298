"""What is under a Runnable that stands for a chat model: the model, its tools, its senses.

A chat model may come bound, configured, with retries or with fallbacks. Nothing else in the
package takes such wrappers apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable


def unwrap(model: Runnable[Any, Any]) -> tuple[BaseChatModel | None, dict[str, Any]]:
    """Return the chat model under all wrappers, and what is bound to it on the way.

    With fallbacks it is the first model. None stands for a runnable that is no chat model.
    """
    bound: dict[str, Any] = {}
    while not isinstance(model, BaseChatModel):
        if isinstance(model, RunnableBindingBase):
            bound = {**model.kwargs, **bound}  # the outer binding wins, as in a call
            model = model.bound
        elif isinstance(model, RunnableWithFallbacks):
            model = model.runnable
        elif isinstance(model, DynamicRunnable):
            model = model.default
        else:
            return None, bound
    return model, bound


def fallbacks_and_config(
    model: Runnable[Any, Any],
) -> tuple[list[Runnable[Any, Any]], dict[str, Any]]:
    """Return a model's fallbacks, and what is `configurable` of it and configured."""
    fallbacks: list[Runnable[Any, Any]] = []
    configured: dict[str, Any] = {}
    while not isinstance(model, BaseChatModel):
        if isinstance(model, RunnableBindingBase):
            configured = {**model.config.get("configurable", {}), **configured}
            model = model.bound
        elif isinstance(model, RunnableWithFallbacks):
            fallbacks += model.fallbacks
            model = model.runnable
        elif isinstance(model, DynamicRunnable):
            configured = {**(model.config or {}).get("configurable", {}), **configured}
            model = model.default
        else:
            break
    return fallbacks, configured


def chat_model_of(model: Runnable[Any, Any]) -> BaseChatModel | None:
    """Return the chat model under any bindings, retries and fallbacks; None for other runnables."""
    return unwrap(model)[0]


def map_chat_models(
    model: Runnable[Any, Any],
    change: Callable[[BaseChatModel], Runnable[Any, Any]],
    *,
    kwargs: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    other: Callable[[Runnable[Any, Any]], Runnable[Any, Any]] | None = None,
) -> Runnable[Any, Any]:
    """Return the same wrappers around changed chat models; each fallback is changed, too.

    Args:
        model: The chat model, bare or bound, configurable, with retries or fallbacks.
        change: Returns what stands in a chat model's place.
        kwargs: Returns what is bound in place of a binding's arguments. None: the same.
        other: Returns what stands in the place of a runnable that is no chat model.
            None: the same.
    """

    def inner(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        return map_chat_models(model, change, kwargs=kwargs, other=other)

    if isinstance(model, BaseChatModel):
        return change(model)
    if isinstance(model, RunnableBindingBase):
        bound = model.kwargs if kwargs is None else dict(kwargs(model.kwargs))
        return model.model_copy(update={"bound": inner(model.bound), "kwargs": bound})
    if isinstance(model, RunnableWithFallbacks):
        fallbacks = [inner(fallback) for fallback in model.fallbacks]
        return model.model_copy(update={"runnable": inner(model.runnable), "fallbacks": fallbacks})
    if isinstance(model, DynamicRunnable):
        changed = inner(model.default)
        if isinstance(changed, RunnableBindingBase) and changed.bound is model.default:
            # What is configurable is the model, not the binding around it.
            return changed.model_copy(update={"bound": model})
        return model.model_copy(update={"default": changed})
    return model if other is None else other(model)


def without_streaming(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the model without a `streaming=True` of its own; itself where there is none.

    Such a model would stream a draft to every callback, though the draft may be rejected.
    """
    streams = False

    def still(chat_model: BaseChatModel) -> BaseChatModel:
        nonlocal streams
        if not getattr(chat_model, "streaming", False):
            return chat_model
        streams = True
        return chat_model.model_copy(update={"streaming": False, "disable_streaming": True})

    def without_stream(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        nonlocal streams
        streams = streams or bool(kwargs.get("stream"))
        return {name: value for name, value in kwargs.items() if name != "stream"}

    changed = map_chat_models(model, still, kwargs=without_stream)
    return changed if streams else model


def replace_structured_model(
    answerer: Runnable[Any, Any], change: Callable[[Any], Runnable[Any, Any]]
) -> Runnable[Any, Any] | None:
    """Return a structured model (`with_structured_output(..., include_raw=True)`) that asks anew.

    Args:
        answerer: The structured model.
        change: Returns what it asks by, in place of the bound chat model that it asks by now.

    Returns:
        None where it is no such model, or cannot be told how to ask.
    """
    if isinstance(answerer, RunnableSequence) and isinstance(answerer.first, RunnableParallel):
        asked = answerer.first.steps__.get("raw")
        if isinstance(asked, RunnableBinding):
            return RunnableSequence(RunnableParallel(raw=change(asked)), *answerer.steps[1:])
    return None
