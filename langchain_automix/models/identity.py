"""Identify a model: its name, provider, server and secrets."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from pydantic import SecretStr

from langchain_automix.errors import AutoMixError
from langchain_automix.models.prices import PriceSource, is_priced, token_prices
from langchain_automix.models.wrappers import chat_model_of, iter_chat_models, unwrap

if TYPE_CHECKING:
    from langchain_core.language_models.model_profile import ModelProfile

_URL_FIELDS = (
    *("base_url", "openai_api_base", "anthropic_api_url", "azure_endpoint"),
    *("endpoint_url", "endpoint", "api_base"),
)
_MIX = "automix"  # the provider by which prices of a nested mix are looked up
_MIN_SECRET_LENGTH = 8  # anything shorter (`test`, `none`) is a word, not a key


def identity(model: Runnable[Any, Any]) -> tuple[str | None, str | None]:
    """Return the model's name and its provider, as LangChain reports them in traces."""
    chat_model, bound = unwrap(model)
    if chat_model is None:
        return None, None
    # Of the bound arguments, pass only the name; tools and schemas would make this slow.
    named = {"model": bound["model"]} if "model" in bound else {}
    params = chat_model._get_ls_params(**named)  # noqa: SLF001  (the only place with both)
    is_mix = getattr(chat_model, "is_mix", False)
    # A mix has its models' provider, but is on none of its price lists.
    return params.get("ls_model_name"), _MIX if is_mix else params.get("ls_provider")


def shared_provider(models: Iterable[Runnable[Any, Any]]) -> str | None:
    """Return the provider shared by all models and their fallbacks, or None if they differ."""
    return _shared(models, lambda model: model._get_ls_params().get("ls_provider"))  # noqa: SLF001


def shared_kind(models: Iterable[Runnable[Any, Any]]) -> str | None:
    """Return the kind (`_llm_type`) shared by all models and fallbacks, or None if they differ.

    LangChain's middleware uses it to count tokens and to decide which settings a model accepts.
    """
    return _shared(models, lambda model: model._llm_type)  # noqa: SLF001  (as the middleware does)


def _shared(
    models: Iterable[Runnable[Any, Any]], of: Callable[[BaseChatModel], str | None]
) -> str | None:
    chat_models = (each for model in models for each in iter_chat_models(model))
    found = {None if each is None else of(each) for each in chat_models}
    return found.pop() if len(found) == 1 else None


def shared_profile(models: Sequence[Runnable[Any, Any]]) -> ModelProfile | None:
    """Return what all the models can do, with their lowest limits; None if any is unknown."""
    chat_models = [chat_model_of(model) for model in models]
    profiles: list[dict[str, Any]] = [
        dict(model.profile or {}) for model in chat_models if model is not None
    ]
    if not profiles or len(profiles) < len(models):
        return None
    found: dict[str, Any] = {}
    for key in sorted(set.intersection(*map(set, profiles))):
        values: list[Any] = [profile[key] for profile in profiles]
        if all(isinstance(value, bool) for value in values):
            found[key] = all(values)
        elif all(isinstance(value, int) for value in values):
            found[key] = min(values)
    return found or None  # type: ignore[return-value]


def model_names(models: Sequence[Runnable[Any, Any]]) -> tuple[str, ...]:
    """Return the names of a mix's models, made unique; `model-0` and so on if there is no name."""
    names: list[str] = []
    for i, model in enumerate(models):
        name = identity(model)[0] or f"model-{i}"
        names.append(f"{name}-{i}" if name in names else name)
    return tuple(names)


def sole_identity(model: Runnable[Any, Any]) -> tuple[str | None, str | None]:
    """Return the name and provider as `identity` does; Nones if a fallback may have answered."""
    return identity(model) if len([m for m in iter_chat_models(model) if m]) == 1 else (None, None)


def lacks_price(model: Runnable[Any, Any], prices: PriceSource | None) -> bool:
    """Return whether requests to a model have no known price.

    Which models a mix, or a model with fallbacks, calls is known only from its answers, so that of
    those it is False.
    """
    name, provider = sole_identity(model)
    return name is not None and provider != _MIX and not is_priced(name, provider, prices)


def server_key(model: Runnable[Any, Any]) -> Hashable | None:
    """Return the model's name, provider and server, or None for a model without a name."""
    name, provider = identity(model)
    if name is None:
        return None
    chat_model, _ = unwrap(model)
    urls = (getattr(chat_model, field, None) for field in _URL_FIELDS)
    return (name, provider, next((str(url) for url in urls if url), None))


def secrets_of(model: Runnable[Any, Any]) -> set[str]:
    """Return the API keys of a model and its fallbacks, which must never be shown."""
    chat_models = (each for each in iter_chat_models(model) if each is not None)
    values = (getattr(each, name, None) for each in chat_models for name in type(each).model_fields)
    secrets = {value.get_secret_value() for value in values if isinstance(value, SecretStr)}
    return {secret for secret in secrets if len(secret) >= _MIN_SECRET_LENGTH}


def list_prices(model: Runnable[Any, Any]) -> tuple[Any, Any] | None:
    """Return the prices of a million input and output tokens, or None if unknown."""
    name, provider = identity(model)
    return None if name is None else token_prices(name, provider)


def chat_model_named(name: str) -> BaseChatModel:
    """Open the chat model with a name such as `openai:gpt-5.4-mini`.

    Raises:
        AutoMixError: `langchain`, which resolves names, is not installed.
    """
    try:  # not a dependency; only names need it
        from langchain.chat_models import init_chat_model  # noqa: PLC0415
    except ImportError as error:
        raise AutoMixError(
            f"A model given by name ({name!r}) needs langchain: pip install langchain, or pass "
            "the chat model itself."
        ) from error
    return init_chat_model(name)


def open_models(models: Iterable[Runnable[Any, Any] | str]) -> list[Runnable[Any, Any]]:
    """Return the models, opening those that are given by name."""
    return [chat_model_named(model) if isinstance(model, str) else model for model in models]
