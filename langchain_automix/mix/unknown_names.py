"""Report names that a mix does not know: fields and tools."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.runnables import Runnable

from langchain_automix.errors import AutoMixError, near_matches
from langchain_automix.models.tools import tool_parts
from langchain_automix.models.wrappers import iter_chat_models
from langchain_automix.utils.user_warnings import warn_user

_OF_MODELS = frozenset(
    {
        *("api_key", "base_url", "cache", "max_retries", "model", "model_kwargs", "model_provider"),
        *("n", "output_version", "rate_limiter", "seed", "streaming", "timeout", "top_k", "top_p"),
    }
)
"""Common settings of chat models."""


def refuse_unknown_fields(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Reject unknown fields.

    Raises:
        AutoMixError: A field is unknown; the message gives the nearest field and the list of all.
    """
    fields = sorted(known)
    if unknown := sorted(set(given) - set(fields)):
        near = near_matches(unknown[0], fields)
        raise AutoMixError(
            f"{owner} has no field {unknown[0]!r}.{near} It has: {', '.join(fields)}."
        )


def settings_of_models(names: Iterable[str], models: Any) -> set[str]:
    """Return the names that are settings of the mix's models."""
    found = set(_OF_MODELS)
    for model in models if isinstance(models, Sequence) else ():
        if not isinstance(model, Runnable):
            continue
        for chat_model in iter_chat_models(model):
            fields = {} if chat_model is None else type(chat_model).model_fields
            found |= fields.keys() | {each.alias for each in fields.values() if each.alias}
    return found.intersection(names)


def refuse_unknown_tools(
    always: Iterable[str], tools: Sequence[Mapping[str, Any]], *, are_all: bool = True
) -> None:
    """Reject names in `always_escalate_tools` that no tool has, since a typo protects nothing.

    Args:
        always: The names.
        tools: The tools, in OpenAI's format; if empty, nothing is known about them and nothing is
            rejected.
        are_all: Whether there are no other tools. If there may be, as in an agent whose tools
            differ from step to step, a name is rejected only if it resembles that of a tool.

    Raises:
        AutoMixError: A name is unknown; the message gives the nearest name and the list of all.
    """
    known = [name for name, _, _ in map(tool_parts, tools)]
    unknown = sorted(set(always) - set(known))
    if not known or not unknown:
        return
    near = near_matches(unknown[0], known, cutoff=0.6 if are_all else 0.8)
    text = (
        f"always_escalate_tools names {unknown[0]!r}, but there is no such tool.{near} There "
        f"{'is' if len(known) == 1 else 'are'}: {', '.join(known)}."
    )
    if are_all or near:
        raise AutoMixError(text)
    _warn_once(text)


@functools.lru_cache(maxsize=256)
def _warn_once(text: str) -> None:
    warn_user(text)
