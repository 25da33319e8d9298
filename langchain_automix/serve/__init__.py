"""`automix serve`: mixes behind OpenAI's protocol, for clients in any language."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_automix.serve.app import create_app as create_app
    from langchain_automix.serve.keys import ApiKey as ApiKey
    from langchain_automix.serve.mixes import PolicyFile as PolicyFile
    from langchain_automix.serve.observing import ServedQuery as ServedQuery
    from langchain_automix.serve.settings import ServeSettings as ServeSettings

_HOME = {
    "ApiKey": "keys",
    "PolicyFile": "mixes",
    "ServeSettings": "settings",
    "ServedQuery": "observing",
    "create_app": "app",
}

__all__ = sorted(_HOME)  # noqa: PLE0605  (one list, and it is above)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
