"""Images, audio, video and files that an answer was given to: found, and shown to the check."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable

from langchain_automix.models.identity import identity
from langchain_automix.models.wrappers import chat_model_of

_IN_WORDS = {"image": "images", "audio": "audio", "video": "video", "file": "PDF files"}
# Read as text, or no input at all.
_NOT_ATTACHED = frozenset(
    {
        "invalid_tool_call",
        "reasoning",
        "redacted_thinking",
        "refusal",
        "text",
        "thinking",
        "tool_call",
        "tool_result",
        "tool_use",
    }
)


def attachments_of(messages: Iterable[BaseMessage]) -> list[dict[str, Any]]:
    """Return the content blocks that are no text, as they are, in their order.

    Those of all people's messages and of all tools' results: a question on a picture may come
    a turn after the picture.
    """
    return [
        block
        for message in messages
        if isinstance(message, HumanMessage | ToolMessage) and isinstance(message.content, list)
        for block in message.content
        if isinstance(block, dict) and _is_attached(block)
    ]


def _is_attached(block: dict[str, Any]) -> bool:
    # Bedrock's own blocks have no type; of these only what LangChain knows is an input.
    return (
        block["type"] not in _NOT_ATTACHED
        if "type" in block
        else attachment_kind(block) is not None
    )


def attachment_kind(block: dict[str, Any]) -> str | None:
    """Return what a content block holds: `image`, `audio`, `video` or `file`; None if unknown."""
    name = str(next(iter(HumanMessage([block]).content_blocks), block)["type"])
    if name == "non_standard":  # a form that LangChain does not know: its names must do
        name = f"{block.get('type')} {block.get('mime_type')}"
    if name.startswith("text"):
        return None
    return next((kind for kind in _IN_WORDS if kind in name), "file" if "pdf" in name else None)


def unreadable_reason(
    model: Runnable[Any, Any], attachments: Sequence[dict[str, Any]]
) -> str | None:
    """Return why a model cannot check an answer to these attachments; None if it can."""
    kinds = dict.fromkeys(
        kind for block in attachments if (kind := attachment_kind(block)) is not None
    )
    for kind in unreadable_inputs(model, kinds):
        name = identity(model)[0] or type(model).__name__
        _warn_unreadable(name, kind)
        return f"the checking model {name} cannot read {_IN_WORDS[kind]}"
    return None


@functools.cache
def _warn_unreadable(name: str, kind: str) -> None:
    warnings.warn(
        f"Answers to {_IN_WORDS[kind]} are not checked: by its profile, the checking model {name} "
        "cannot read them. Give SelfVerifier(model=...) a model that can.",
        stacklevel=2,
    )


_INPUTS = {
    "image": "image_inputs",
    "audio": "audio_inputs",
    "video": "video_inputs",
    "file": "pdf_inputs",  # the only kind of file that a profile speaks of
}


def unreadable_inputs(model: Runnable[Any, Any] | None, kinds: Iterable[str]) -> list[str]:
    """Return the kinds of input that the model cannot read, as its profile says.

    Args:
        model: The model. One without a profile is taken to read everything.
        kinds: Some of `image`, `audio`, `video`, `file`.
    """
    chat_model = None if model is None else chat_model_of(model)
    profile: Mapping[str, Any] = (chat_model and chat_model.profile) or {}
    return [kind for kind in kinds if profile.get(_INPUTS.get(kind, kind)) is False]
