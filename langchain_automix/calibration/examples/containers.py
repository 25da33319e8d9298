"""Interpret values in a user's data: lists in a cell, messages, and answers in known forms."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from langchain_automix.utils.plain_values import python_value

UNANSWERABLE = "unanswerable"
"""Accepted answer to a question that cannot be answered from its context."""

_ASSISTANTS = ("ai", "assistant", "model")
# Traces of a list written as text: Python's quotes, or numpy's missing commas.
_WRITTEN = re.compile(
    r"""\s*(?:\[\s*(?:array\(|np\.|[\[{]?'|"|-?\d[\d.]*\s+-?\d)|array\(|\{\s*'\w+'\s*:)"""
)


def is_written_value(text: str, *, but_json: bool = False) -> bool:
    """Return whether a text looks like a Python or numpy list or object written as text."""
    if _WRITTEN.match(text) is None:
        return False
    try:
        return not (but_json and isinstance(json.loads(text), list))
    except (ValueError, RecursionError):
        return True


def read_cell(cell: str) -> Any:
    """Return the list or object written in a table cell, or the text unchanged if there is none.

    Raises:
        ValueError: The text looks like a list, but cannot be read with certainty.
    """
    try:
        value = json.loads(cell) if cell.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, list):
        return value
    if (value := python_value(cell)) is not None:
        return value
    if is_written_value(cell):
        raise ValueError(
            "the cell looks like a list or an object, but cannot be read for sure; write it as "
            "JSON, or give JSON lines"
        )
    return cell


def last_answer(messages: Sequence[Any]) -> str:
    """Return the text of the last answer in a conversation.

    Raises:
        ValueError: The conversation has no answer with text.
    """
    said = [_role_and_text(message) for message in messages]
    texts = [text for role, text in filter(None, said) if _is_assistant(role) and text.strip()]
    if not texts:
        raise ValueError("the messages hold no answer in words")
    return texts[-1]


def is_conversation(value: Any) -> bool:
    """Return whether a value is a list of messages, not all of which are answers with text."""
    if not isinstance(value, list | tuple) or not value:
        return False
    said = [_role_and_text(message) for message in value]
    known = [each for each in said if each is not None]
    return len(known) == len(said) and not all(
        _is_assistant(role) and text.strip() for role, text in known
    )


def message_text(value: Any) -> str | None:
    """Return the text of a message in a form used by LangChain, OpenAI or LangSmith."""
    said = _role_and_text(value)
    return None if said is None else said[1]


def answers_in(value: Mapping[str, Any]) -> Any:
    """Return the answers in an object of a known form, or the object itself if it has none.

    Known forms: SQuAD's `{"text": [...]}`, where an empty list means that the question cannot be
    answered, and `{"text": "...", "answer_start": 5}`; TriviaQA's `value` with `aliases`; the
    `messages` of a conversation; the `choices` of an OpenAI response; the `generations` of a
    LangChain result.
    """
    text = value.get("text")
    if isinstance(text, list | tuple):
        return text or UNANSWERABLE
    if isinstance(text, str) and (len(value) == 1 or "answer_start" in value):
        return text
    if isinstance(value.get("aliases"), list | tuple) and isinstance(value.get("value"), str):
        return [value["value"], *value["aliases"]]
    if len(value) == 1 and isinstance(value.get("messages"), list | tuple):
        return last_answer(value["messages"])
    return _generated(value) or value


def _generated(value: Mapping[str, Any]) -> Any:
    """Return the first message or text in the result of a model; None if it is not a result."""
    first = value.get("choices") or value.get("generations")
    while isinstance(first, list) and first:
        first = first[0]
    return (first.get("message") or first.get("text")) if isinstance(first, Mapping) else None


def _is_assistant(role: str) -> bool:
    return role.lower().startswith(_ASSISTANTS)


def _role_and_text(value: Any) -> tuple[str, str] | None:
    """Return the role and the text of a message; None if the value is not a message."""
    if isinstance(value, BaseMessage):
        return value.type, str(value.text)
    if not isinstance(value, Mapping):
        return None
    role: Any = value.get("role") or value.get("type")
    fields: Any = value
    if value.get("lc") == 1 and isinstance(value.get("id"), list) and value["id"]:
        role, fields = value["id"][-1], value.get("kwargs")  # as written by `dumpd`
    elif isinstance(value.get("data"), Mapping):
        fields = value["data"]  # as written by `messages_to_dict`
    if not isinstance(role, str) or not isinstance(fields, Mapping) or "content" not in fields:
        return None
    try:
        return role, str(AIMessage(fields["content"] or "").text)
    except (ValueError, TypeError):
        return None
