"""Calls as the journal keeps them: how one is recognised, and its output as JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, message_to_dict, messages_from_dict

from langchain_automix.calibration.config import json_hash
from langchain_automix.calibration.entries import Entry
from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.graders.text import Grade
from langchain_automix.errors import AutoMixError
from langchain_automix.models.usage import UsageCollector
from langchain_automix.types import ModelCall, Verification

_RESULTS: Mapping[str, type[Verification | Grade]] = {"verification": Verification, "grade": Grade}


def example_key(example: Example) -> str:
    """Return the key of an example's calls: its content, regardless of its id and position."""
    messages = [dict(message) for message in example.messages]
    return json_hash([example.question, example.context, messages, example.prompt])


def to_entry(output: Any) -> dict[str, Any]:
    """Return the output of a call in a form that JSON holds, with its kind."""
    if isinstance(output, BaseMessage):
        return {"message": message_to_dict(output)}
    for kind, model in _RESULTS.items():
        if isinstance(output, model):
            return {kind: output.model_dump(mode="json")}
    return {"value": output}


def from_entry(entry: Entry, collectors: list[UsageCollector]) -> Any:
    """Return the output of a kept call, and give the collectors its usage.

    Raises:
        AutoMixError: It is nothing that a call returns.
    """
    try:
        return _from_entry(entry, collectors)
    except (AttributeError, KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise AutoMixError(
            f"The journal holds a call that no calibration has kept ({entry.get('call')}): give "
            "another --out."
        ) from error


def _from_entry(entry: Entry, collectors: list[UsageCollector]) -> Any:
    [(kind, value)] = entry["output"].items()
    output: Any = value
    if kind == "message":
        [output] = messages_from_dict([value])
    elif kind in _RESULTS:
        output = _RESULTS[kind].model_validate(value)
    for collector in collectors:
        collector.calls = [ModelCall.model_validate(call) for call in entry["calls"]]
        replies = messages_from_dict(entry["replies"]) if "replies" in entry else [output]
        collector.replies = [reply for reply in replies if isinstance(reply, AIMessage)]
    return output


def to_plain_input(value: Any) -> Any:
    """Return an input in a form that JSON holds, so that equal inputs have equal keys."""
    if isinstance(value, BaseMessage):
        return [value.type, value.content, getattr(value, "tool_calls", [])]
    if isinstance(value, Mapping):
        return {str(key): to_plain_input(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain_input(each) for each in value]
    to_messages = getattr(value, "to_messages", None)
    return to_plain_input(to_messages()) if to_messages is not None else value
