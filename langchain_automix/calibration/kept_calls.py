"""Keys by which kept calls are found again: the example, and the input of the call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.fingerprints import json_hash


def example_key(example: Example) -> str:
    """Return the key of an example's calls: its content, regardless of its id and position."""
    messages = [dict(message) for message in example.messages]
    return json_hash([example.question, example.context, messages, example.prompt])


def to_plain_input(value: Any) -> Any:
    """Return an input as JSON data, so that equal inputs have equal keys."""
    if isinstance(value, BaseMessage):
        return [value.type, value.content, getattr(value, "tool_calls", [])]
    if isinstance(value, Mapping):
        return {str(key): to_plain_input(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain_input(each) for each in value]
    to_messages = getattr(value, "to_messages", None)
    return to_plain_input(to_messages()) if to_messages is not None else value
