"""What is under a Runnable that stands for a chat model: the model, its tools, its senses.

A chat model may come bound, configured, with retries or with fallbacks. Nothing else in the
package takes such wrappers apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from langchain_core.embeddings import Embeddings
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
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import SecretStr

from langchain_automix.costs import token_prices
from langchain_automix.errors import AutoMixError

_SECRET_LENGTH = 8
"""Of a key, at least; what is shorter (`test`, `none`) is a word, and no secret."""

_INPUTS = {
    "image": "image_inputs",
    "audio": "audio_inputs",
    "video": "video_inputs",
    "file": "pdf_inputs",  # the only kind of file that a profile speaks of
}


def unwrapped(model: Runnable[Any, Any]) -> tuple[BaseChatModel | None, dict[str, Any]]:
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


def around(model: Runnable[Any, Any]) -> tuple[list[Runnable[Any, Any]], dict[str, Any]]:
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
    return unwrapped(model)[0]


def rebuilt(
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
        return rebuilt(model, change, kwargs=kwargs, other=other)

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


def identity(model: Runnable[Any, Any]) -> tuple[str | None, str | None]:
    """Return the model's name and its provider, as LangChain reports them in traces."""
    chat_model, bound = unwrapped(model)
    if chat_model is None:
        return None, None
    # Only the name can be bound; all that is bound (tools, schemas) would be slow to pass.
    named = {"model": bound["model"]} if "model" in bound else {}
    params = chat_model._get_ls_params(**named)  # noqa: SLF001  (only there both stand)
    return params.get("ls_model_name"), params.get("ls_provider")


def sole_identity(model: Runnable[Any, Any]) -> tuple[str | None, str | None]:
    """Return name and provider as `identity` does; nothing where a fallback may have answered."""
    found: list[BaseChatModel] = []

    def counted(chat_model: BaseChatModel) -> BaseChatModel:
        found.append(chat_model)
        return chat_model

    rebuilt(model, counted)
    return identity(model) if len(found) == 1 else (None, None)


def secrets_of(model: Runnable[Any, Any]) -> set[str]:
    """Return the keys of a model and of its fallbacks, which no text for people may hold."""
    found: set[str] = set()

    def noted(chat_model: BaseChatModel) -> BaseChatModel:
        values = (getattr(chat_model, name, None) for name in type(chat_model).model_fields)
        found.update(v.get_secret_value() for v in values if isinstance(v, SecretStr))
        return chat_model

    rebuilt(model, noted)
    return {secret for secret in found if len(secret) >= _SECRET_LENGTH}


def prices(model: Runnable[Any, Any]) -> tuple[Any, Any] | None:
    """Return what a million tokens cost, in and out; None where that is not known."""
    name, provider = identity(model)
    return None if name is None else token_prices(name, provider)


def bound_tools(model: Runnable[Any, Any]) -> list[dict[str, Any]]:
    """Return the tools that are bound to a model, as `tools_in_openai_format` has them."""
    return tools_in_openai_format(unwrapped(model)[1].get("tools") or ())


def tools_in_openai_format(tools: Iterable[Any]) -> list[dict[str, Any]]:
    """Return tools as `{"type": "function", "function": {"name": ..., ...}}`.

    Of a provider's own tool (`bash`, say) only the name is known; one without a name runs at
    the provider, is never called by a message, and is left out.
    """
    found: list[dict[str, Any]] = []
    for tool in tools:
        try:
            converted = convert_to_openai_tool(tool)
        except Exception:  # noqa: BLE001  (any provider's own form may come here)
            converted = dict(tool) if isinstance(tool, Mapping) else {}
        # The Responses API has name and parameters beside the type, where Chat has `function`.
        inner = converted.get(str(converted.get("type")))
        about = inner if isinstance(inner, Mapping) else converted
        if about.get("name"):
            kept = {k: about[k] for k in ("name", "description", "parameters") if about.get(k)}
            found.append({"type": "function", "function": kept})
    return found


def blind_to(model: Runnable[Any, Any] | None, kinds: Iterable[str]) -> list[str]:
    """Return the kinds of input that the model cannot read, as its profile says.

    Args:
        model: The model. One without a profile is taken to read everything.
        kinds: Some of `image`, `audio`, `video`, `file`.
    """
    chat_model = None if model is None else chat_model_of(model)
    profile: Mapping[str, Any] = (chat_model and chat_model.profile) or {}
    return [kind for kind in kinds if profile.get(_INPUTS.get(kind, kind)) is False]


def quiet(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
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

    changed = rebuilt(model, still, kwargs=without_stream)
    return changed if streams else model


def embeddings_name(embeddings: Embeddings) -> str | None:
    """Return the name of the model behind embeddings; None where they do not tell."""
    named = (getattr(embeddings, field, None) for field in ("model", "model_name"))
    return next((name for name in named if isinstance(name, str)), None)


def within(
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


def chat_model_named(name: str) -> BaseChatModel:
    """Return the chat model that a name such as `openai:gpt-5.4-mini` stands for.

    Raises:
        AutoMixError: `langchain`, which knows the names, is not installed.
    """
    try:  # a dependency of users who give names
        from langchain.chat_models import init_chat_model  # noqa: PLC0415
    except ImportError as error:
        raise AutoMixError(
            f"A model given by name ({name!r}) needs langchain: pip install langchain, or give "
            "the chat model itself."
        ) from error
    return init_chat_model(name)
