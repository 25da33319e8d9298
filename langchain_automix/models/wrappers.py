"""Find and change the chat models inside bindings, configuration, retries and fallbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableConfig,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.configurable import DynamicRunnable


def _layers(model: Runnable[Any, Any]) -> Iterator[Runnable[Any, Any]]:
    """Yield a model and what it wraps, down to the chat model, if any; skip fallbacks."""
    while True:
        yield model
        if isinstance(model, RunnableBindingBase):
            model = model.bound
        elif isinstance(model, RunnableWithFallbacks):
            model = model.runnable
        elif isinstance(model, DynamicRunnable):
            model = model.default
        else:
            return


def unwrap(model: Runnable[Any, Any]) -> tuple[BaseChatModel | None, dict[str, Any]]:
    """Return the chat model inside all wrappers, and what they bind; ignore fallbacks.

    The model is None for a runnable that is not a chat model.
    """
    bound: dict[str, Any] = {}
    for layer in _layers(model):
        if isinstance(layer, BaseChatModel):
            return layer, bound
        if isinstance(layer, RunnableBindingBase):
            bound = {**layer.kwargs, **bound}  # the outer binding wins, as in a call
    return None, bound


def fallbacks_and_config(
    model: Runnable[Any, Any],
) -> tuple[list[Runnable[Any, Any]], dict[str, Any]]:
    """Return a model's fallbacks, and its configured `configurable` values."""
    fallbacks: list[Runnable[Any, Any]] = []
    configured: dict[str, Any] = {}
    for layer in _layers(model):
        if isinstance(layer, RunnableWithFallbacks):
            fallbacks += layer.fallbacks
        elif isinstance(layer, RunnableBindingBase | DynamicRunnable):
            configured = {**(layer.config or {}).get("configurable", {}), **configured}
    return fallbacks, configured


def as_configured(model: Runnable[Any, Any], config: RunnableConfig) -> Runnable[Any, Any]:
    """Return the model that a run's configuration selects, if it is configurable.

    An invalid selection is ignored here; calling the model reports it.
    """
    if isinstance(model, RunnableBindingBase):
        bound = as_configured(model.bound, merge_configs(model.config, config))
        return model if bound is model.bound else model.model_copy(update={"bound": bound})
    if isinstance(model, RunnableWithFallbacks):
        first = as_configured(model.runnable, config)
        return model if first is model.runnable else model.model_copy(update={"runnable": first})
    if isinstance(model, DynamicRunnable):
        try:
            chosen, config = model.prepare(config)
        except Exception:  # noqa: BLE001  (a model may raise anything for its settings)
            return model
        return as_configured(chosen, config)
    return model


class StreamedModel(NamedTuple):
    """A chat model to be streamed, and what its bindings add to a call."""

    model: BaseChatModel
    kwargs: dict[str, Any]
    configs: list[RunnableConfig]
    """Innermost first. They are merged at the call, where LangChain adds the context's own."""


def streamed_model(model: Runnable[Any, Any]) -> StreamedModel | None:
    """Return a model whose stream equals its answer in one piece, or None if it has no such stream.

    Retries and fallbacks act on a whole answer. So does LangChain's cache, which does not support
    streams. A model that asks others (such as a mix), or asks for several replies, has no single
    stream of tokens. A model's own callbacks would show the tokens.
    """
    kwargs: dict[str, Any] = {}
    configs: list[RunnableConfig] = []
    while isinstance(model, RunnableBinding) and type(model).invoke is RunnableBinding.invoke:
        if model.config_factories or model.config.get("callbacks"):
            return None
        kwargs, configs = {**model.kwargs, **kwargs}, [model.config, *configs]
        model = model.bound
    if not isinstance(model, BaseChatModel) or getattr(model, "is_mix", False):
        return None
    caches = get_llm_cache() is not None if model.cache is None else model.cache
    is_single = (kwargs.get("n") or getattr(model, "n", None) or 1) == 1
    can_stream = model.disable_streaming is not True and any(
        getattr(type(model), name) is not getattr(BaseChatModel, name)
        for name in ("_stream", "_astream")
    )
    if caches or model.callbacks or not (is_single and can_stream):
        return None
    return StreamedModel(model, kwargs, configs)


def chat_model_of(model: Runnable[Any, Any]) -> BaseChatModel | None:
    """Return the chat model inside bindings, retries and fallbacks; None for other runnables."""
    return unwrap(model)[0]


def tags_of(model: Runnable[Any, Any]) -> list[str]:
    """Return a model's own tags and those of its bindings; ignore fallbacks."""
    tags: list[str] = []
    for layer in _layers(model):
        if isinstance(layer, RunnableBindingBase):
            tags += layer.config.get("tags") or []
        elif isinstance(layer, BaseChatModel):
            tags += layer.tags or []
    return tags


def iter_chat_models(model: Runnable[Any, Any]) -> Iterator[BaseChatModel | None]:
    """Yield every chat model inside all wrappers; None for a runnable that is not a chat model."""
    if isinstance(model, BaseChatModel):
        yield model
    elif isinstance(model, RunnableBindingBase):
        yield from iter_chat_models(model.bound)
    elif isinstance(model, RunnableWithFallbacks):
        for each in (model.runnable, *model.fallbacks):
            yield from iter_chat_models(each)
    elif isinstance(model, DynamicRunnable):
        yield from iter_chat_models(model.default)
    else:
        yield None


def map_chat_models(
    model: Runnable[Any, Any],
    change: Callable[[BaseChatModel], Runnable[Any, Any]],
    *,
    kwargs: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    other: Callable[[Runnable[Any, Any]], Runnable[Any, Any]] | None = None,
) -> Runnable[Any, Any]:
    """Return the same wrappers around changed chat models, fallbacks included.

    Args:
        model: The chat model, bare or wrapped.
        change: Returns the replacement of a chat model.
        kwargs: Returns the replacement of a binding's arguments; None keeps them.
        other: Returns the replacement of a runnable that is not a chat model; None keeps it.
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
            # The model is configurable, not the binding around it.
            return changed.model_copy(update={"bound": model})
        return model.model_copy(update={"default": changed})
    return model if other is None else other(model)


def without_streaming(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the model without its own `streaming=True`, which would show drafts to callbacks."""
    streams = False

    def stop_streaming(chat_model: BaseChatModel) -> BaseChatModel:
        nonlocal streams
        if not getattr(chat_model, "streaming", False):
            return chat_model
        streams = True
        return chat_model.model_copy(update={"streaming": False, "disable_streaming": True})

    def without_stream(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        nonlocal streams
        streams = streams or bool(kwargs.get("stream"))
        return {name: value for name, value in kwargs.items() if name != "stream"}

    changed = map_chat_models(model, stop_streaming, kwargs=without_stream)
    return changed if streams else model


def replace_structured_model(
    answerer: Runnable[Any, Any], change: Callable[[Any], Runnable[Any, Any]]
) -> Runnable[Any, Any] | None:
    """Return `with_structured_output(..., include_raw=True)` with a changed bound chat model.

    Return None if `answerer` is not such a runnable.
    """
    if isinstance(answerer, RunnableSequence) and isinstance(answerer.first, RunnableParallel):
        bound = answerer.first.steps__.get("raw")
        if isinstance(bound, RunnableBinding):
            return RunnableSequence(RunnableParallel(raw=change(bound)), *answerer.steps[1:])
    return None
