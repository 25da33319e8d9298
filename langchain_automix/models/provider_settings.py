"""Settings that only some providers accept, and how to remove them for other models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

from langchain_automix.models.wrappers import iter_chat_models

# By `_llm_type`, as in langchain's ModelFallbackMiddleware, which removes the same settings.
_TAKERS = {
    "cache_control": {"anthropic-chat", "anthropic-bedrock-chat", "anthropic-chat-vertexai"},
    "prompt_cache_key": {"openai-chat", "azure-openai-chat", "fireworks-chat"},
}
_HEADER_TAKERS = {"x-session-affinity": {"fireworks-chat"}}
_NESTED = ("extras", "metadata")


def foreign_settings(model: Runnable[Any, Any], own: Runnable[Any, Any]) -> frozenset[str]:
    """Return the settings made for one model that another one does not accept.

    Args:
        model: The model to ask.
        own: The model that the settings were made for. A model of the same kind accepts all of
            them.
    """
    kinds = {_kind(each) for each in iter_chat_models(model)}
    if kinds == {_kind(each) for each in iter_chat_models(own)}:
        return frozenset()
    takers = {**_TAKERS, **_HEADER_TAKERS}
    return frozenset(name for name, takes in takers.items() if not kinds <= takes)


def settings_of_others(
    model: Runnable[Any, Any], models: Sequence[Runnable[Any, Any]]
) -> frozenset[str]:
    """Return the settings that some of the models accept, but this one does not.

    This is for settings made for no particular model. A setting that no model is known to accept
    goes to all of them.
    """
    kinds = {_kind(each) for each in iter_chat_models(model)}
    every = [{_kind(each) for each in iter_chat_models(other)} for other in models]
    return frozenset(
        name
        for name, takes in {**_TAKERS, **_HEADER_TAKERS}.items()
        if not kinds <= takes and any(each <= takes for each in every)
    )


def strip_settings(settings: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return a call's arguments without some settings, also removed from its headers."""
    kept = {name: value for name, value in settings.items() if name not in names}
    if isinstance(headers := kept.get("extra_headers"), Mapping):
        kept["extra_headers"] = {k: v for k, v in headers.items() if str(k).lower() not in names}
        if not kept["extra_headers"]:
            del kept["extra_headers"]
    return kept


def strip_messages(messages: Sequence[BaseMessage], names: frozenset[str]) -> list[BaseMessage]:
    """Return messages without some settings of their content blocks."""
    return [_strip_message(message, names) for message in messages]


def strip_tools(tools: Sequence[Any], names: frozenset[str]) -> list[Any]:
    """Return tools, as objects or dicts, without some settings."""
    return [_strip_tool(tool, names) for tool in tools]


def _strip_message(message: BaseMessage, names: frozenset[str]) -> BaseMessage:
    content = message.content
    if not isinstance(content, list):
        return message
    stripped = [_strip_mapping(block, names) for block in content]
    return message if stripped == content else message.model_copy(update={"content": stripped})


def _strip_tool(tool: Any, names: frozenset[str]) -> Any:
    extras = getattr(tool, "extras", None)
    if not isinstance(tool, BaseTool) or not extras:
        return _strip_mapping(tool, names)
    kept = _strip_mapping(extras, names)
    return tool if kept == extras else tool.model_copy(update={"extras": kept or None})


def _strip_mapping(part: Any, names: frozenset[str]) -> Any:
    if not isinstance(part, Mapping):
        return part
    kept = {name: value for name, value in part.items() if name not in names}
    return kept | {name: _strip_mapping(kept[name], names) for name in _NESTED if name in kept}


def _kind(model: BaseChatModel | None) -> str | None:
    return None if model is None else model._llm_type  # noqa: SLF001  (LangChain's own name)
