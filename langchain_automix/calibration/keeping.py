"""How a call is known again, and what is kept of what it returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, message_to_dict, messages_from_dict

from langchain_automix.calibration.examples import Example
from langchain_automix.calibration.grading import Grade
from langchain_automix.calibration.journal import Entry
from langchain_automix.calibration.setup import short_hash
from langchain_automix.types import ModelCall, Verification
from langchain_automix.verifiers.sampling import Bill


def asked_about(example: Example) -> str:
    """Return what the calls of an example are kept by: what it asks, whatever its id and place."""
    said = [dict(message) for message in example.messages]
    return short_hash([example.question, example.context, said, example.prompt])


def dumped(output: Any) -> dict[str, Any]:
    """Return what a call returned, as JSON holds it, with its kind."""
    if isinstance(output, BaseMessage):
        return {"message": message_to_dict(output)}
    if isinstance(output, Verification):
        return {"verification": output.model_dump(mode="json")}
    if isinstance(output, Grade):
        return {"grade": output.model_dump(mode="json")}
    return {"value": output}


def recalled(entry: Entry, bills: list[Bill]) -> Any:
    """Return what a kept call returned; its bill is heard as it was then."""
    [(kind, value)] = entry["output"].items()
    made: Any = value
    if kind == "message":
        [made] = messages_from_dict([value])
    elif kind == "verification":
        made = Verification.model_validate(value)
    elif kind == "grade":
        made = Grade.model_validate(value)
    for bill in bills:
        bill.calls = [ModelCall.model_validate(call) for call in entry["calls"]]
        replies = messages_from_dict(entry["replies"]) if "replies" in entry else [made]
        bill.replies = [reply for reply in replies if isinstance(reply, AIMessage)]
    return made


def plain(value: Any) -> Any:
    """Return an input as JSON holds it, so that equal inputs have equal keys."""
    if isinstance(value, BaseMessage):
        return [value.type, value.content, getattr(value, "tool_calls", [])]
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    to_messages = getattr(value, "to_messages", None)
    return plain(to_messages()) if to_messages is not None else value
