"""Find images, audio, video and files in messages, and tell which models can read them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable

from langchain_automix.models.identity import identity
from langchain_automix.models.wrappers import chat_model_of
from langchain_automix.utils.user_warnings import warn_user

_PLURALS = {"image": "images", "audio": "audio", "video": "video", "file": "PDF files"}
_TEXT_BLOCKS = frozenset({"reasoning", "redacted_thinking", "refusal", "text", "thinking"})
_TOOL_BLOCKS = frozenset({"invalid_tool_call", "tool_call", "tool_result", "tool_use"})


def attachments_of(messages: Iterable[BaseMessage]) -> list[dict[str, Any]]:
    """Return the content blocks of human messages and tool results that are not text, in order.

    All messages count, since a question about a picture may come a turn after the picture.
    """
    return [
        block
        for message in messages
        if isinstance(message, HumanMessage | ToolMessage) and isinstance(message.content, list)
        for block in message.content
        if isinstance(block, dict) and _is_attached(block)
    ]


def _is_attached(block: dict[str, Any]) -> bool:
    if "type" in block:
        return block["type"] not in _TEXT_BLOCKS | _TOOL_BLOCKS
    return attachment_kind(block) is not None  # Bedrock's blocks, as far as LangChain reads them


def attachment_kind(block: dict[str, Any]) -> str | None:
    """Return the kind of a content block: `image`, `audio`, `video` or `file`; None if unknown."""
    name = str(next(iter(HumanMessage([block]).content_blocks), block)["type"])
    if name == "non_standard":  # LangChain does not know its format
        name = f"{block.get('type')} {block.get('mime_type')}"
    if name.startswith("text"):
        return None
    return next((kind for kind in _PLURALS if kind in name), "file" if "pdf" in name else None)


def unreadable_reason(
    model: Runnable[Any, Any], attachments: Sequence[dict[str, Any]]
) -> str | None:
    """Say why a model cannot check an answer to these attachments, or return None if it can."""
    kinds = dict.fromkeys(map(attachment_kind, attachments))
    for kind in unreadable_inputs(model, [kind for kind in kinds if kind is not None]):
        name = identity(model)[0] or type(model).__name__
        _warn_unreadable(name, kind)
        return f"the checking model {name} cannot read {_PLURALS[kind]}"
    return None


@functools.cache
def _warn_unreadable(name: str, kind: str) -> None:
    warn_user(
        f"Answers to {_PLURALS[kind]} are not checked: by its profile, the checking model {name} "
        "cannot read them. Pass SelfVerifier(model=...) a model that can."
    )


_INPUTS = {
    "image": "image_inputs",
    "audio": "audio_inputs",
    "video": "video_inputs",
    "file": "pdf_inputs",  # the only kind of file that profiles mention
}


def unreadable_inputs(model: Runnable[Any, Any] | None, kinds: Iterable[str]) -> list[str]:
    """Return which of some kinds (`image`, `audio`, `video`, `file`) a model's profile rules out.

    A model without a profile is assumed to read all kinds.
    """
    chat_model = None if model is None else chat_model_of(model)
    profile: Mapping[str, Any] = (chat_model and chat_model.profile) or {}
    return [kind for kind in kinds if profile.get(_INPUTS.get(kind, kind)) is False]
