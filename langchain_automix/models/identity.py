"""A model's name, provider and secrets."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from pydantic import SecretStr

from langchain_automix.errors import AutoMixError
from langchain_automix.models.prices import token_prices
from langchain_automix.models.wrappers import map_chat_models, unwrap

_SECRET_LENGTH = 8
"""Of a key, at least; what is shorter (`test`, `none`) is a word, and no secret."""


def identity(model: Runnable[Any, Any]) -> tuple[str | None, str | None]:
    """Return the model's name and its provider, as LangChain reports them in traces."""
    chat_model, bound = unwrap(model)
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

    map_chat_models(model, counted)
    return identity(model) if len(found) == 1 else (None, None)


def secrets_of(model: Runnable[Any, Any]) -> set[str]:
    """Return the keys of a model and of its fallbacks, which no text for people may hold."""
    found: set[str] = set()

    def noted(chat_model: BaseChatModel) -> BaseChatModel:
        values = (getattr(chat_model, name, None) for name in type(chat_model).model_fields)
        found.update(v.get_secret_value() for v in values if isinstance(v, SecretStr))
        return chat_model

    map_chat_models(model, noted)
    return {secret for secret in found if len(secret) >= _SECRET_LENGTH}


def list_prices(model: Runnable[Any, Any]) -> tuple[Any, Any] | None:
    """Return what a million tokens cost, in and out; None where that is not known."""
    name, provider = identity(model)
    return None if name is None else token_prices(name, provider)


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
