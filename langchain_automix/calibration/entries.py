"""The lines of a journal: their types, and how outputs of calls are written and read.

A checksum shows that a line is complete, but not who wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired

from langchain_core.messages import AIMessage, BaseMessage, message_to_dict, messages_from_dict
from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, with_config
from typing_extensions import TypedDict

from langchain_automix.calibration.graders.text import Grade
from langchain_automix.errors import AutoMixError
from langchain_automix.models.usage import UsageCollector
from langchain_automix.policy.data.records import LoggedQuery
from langchain_automix.types import ModelCall, Verification

Entry = dict[str, Any]
"""A line of the journal."""

_RESULTS: Mapping[str, type[Verification | Grade]] = {"verification": Verification, "grade": Grade}

_Tokens = Annotated[int, Field(strict=True, ge=0, le=10**12)]
_Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
_Number = Annotated[int, Field(strict=True, ge=0, le=10**6)]
_CallKey = Annotated[str, Field(pattern=r"^(answer|check|grade) (?s:.)* \d+ \w+$")]
_LOOSE = ConfigDict(extra="allow", strict=True)


@with_config(_LOOSE)
class _Usage(TypedDict):
    input_tokens: NotRequired[_Tokens]
    output_tokens: NotRequired[_Tokens]
    total_tokens: NotRequired[_Tokens]
    input_token_details: NotRequired[dict[str, _Tokens | None] | None]
    output_token_details: NotRequired[dict[str, _Tokens | None] | None]


@with_config(ConfigDict(extra="forbid", strict=True))
class _Request(TypedDict):
    model: NotRequired[str | None]
    provider: NotRequired[str | None]
    usage: NotRequired[_Usage | None]
    cost: NotRequired[Annotated[str, Field(pattern=r"^\d{1,15}(\.\d{1,60})?( [A-Z]{3})?$")] | None]


@with_config(_LOOSE)
class _Call(TypedDict):
    example: str
    call: _CallKey
    check: NotRequired[str | None]
    seconds: _Seconds
    calls: list[_Request]
    lost: NotRequired[_Number]
    output: NotRequired[Annotated[dict[str, Any], Field(min_length=1, max_length=1)]]
    replies: NotRequired[list[dict[str, Any]]]


@with_config(_LOOSE)
class _Failed(TypedDict):
    example: str
    call: str
    error: str
    check: NotRequired[str | None]
    seconds: NotRequired[_Seconds]
    calls: NotRequired[list[_Request]]
    lost: NotRequired[_Number]


@with_config(_LOOSE)
class _Begun(TypedDict):
    example: str
    begun: _CallKey
    check: NotRequired[str | None]


@with_config(_LOOSE)
class _Row(TypedDict):
    example: str
    row: str
    query: dict[str, Any]


@with_config(_LOOSE)
class _Settings(TypedDict):
    checks: NotRequired[dict[str, dict[str, JsonValue]]]


@with_config(_LOOSE)
class _Session(TypedDict):
    session: _Settings


@with_config(_LOOSE)
class _Metadata(TypedDict):
    labels: Literal["references", "agreement", "grade", "corrected"]
    agreement: NotRequired[list[Annotated[float, Field(ge=0, le=1)] | None]]
    failed: NotRequired[dict[str, str]]


_KINDS: Mapping[str, TypeAdapter[Any]] = {
    "begun": TypeAdapter(_Begun),
    "call": TypeAdapter(_Call),
    "row": TypeAdapter(_Row),
    "session": TypeAdapter(_Session),
}
_FAILED: TypeAdapter[Any] = TypeAdapter(_Failed)
_METADATA: TypeAdapter[Any] = TypeAdapter(_Metadata)
_COSTS = {"fixed_cost", "sample_cost"}


def validate_entry(entry: Mapping[str, Any]) -> None:
    """Check the types of one line; its values are checked where they are used.

    Raises:
        ValueError: A calibration does not write such a line.
    """
    kind = next((kind for kind in _KINDS if kind in entry), None)
    if kind is not None:
        (_FAILED if kind == "call" and "error" in entry else _KINDS[kind]).validate_python(entry)


def validate_row(row: Mapping[str, Any], models: Sequence[str], currency: str) -> None:
    """Check the row of an example.

    Raises:
        ValueError: The row belongs to other models or is in another currency.
    """
    query = LoggedQuery.model_validate(row)
    metadata = _METADATA.validate_python(row.get("metadata"))
    if [answer.model for answer in query.answers] != list(models):
        raise ValueError("it is of other models")
    if query.currency != currency:
        raise ValueError("it is in another currency")
    for answer in row["answers"]:
        first = answer.get("verification")
        checks = [*([first] if first else []), *(answer.get("checks") or {}).values()]
        sampled = [check for check in checks if check.get("verdicts") is not None]
        if "cost" not in answer or not all(check.keys() >= _COSTS for check in sampled):
            raise ValueError("it lacks a cost")
    if len(metadata.get("agreement", models)) != len(models):
        raise ValueError("it has an agreement for other models")


def to_entry(output: Any) -> dict[str, Any]:
    """Return the output of a call as JSON data with its kind."""
    if isinstance(output, BaseMessage):
        return {"message": message_to_dict(output)}
    for kind, model in _RESULTS.items():
        if isinstance(output, model):
            return {kind: output.model_dump(mode="json")}
    return {"value": output}


def from_entry(
    entry: Entry, collectors: list[UsageCollector], place: Callable[[Entry], str]
) -> Any:
    """Return the output of a kept call, and give its usage to the collectors.

    Args:
        entry: The kept call.
        collectors: The usage collectors of the call.
        place: Returns the location of an entry, for error messages.

    Raises:
        AutoMixError: The output is not one that a call can return.
    """
    try:
        return _from_entry(entry, collectors)
    except (AttributeError, KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise AutoMixError(
            f"{place(entry)} holds a call that no calibration has kept ({entry.get('call')}): give "
            "another --out."
        ) from error


def _from_entry(entry: Entry, collectors: list[UsageCollector]) -> Any:
    [(kind, value)] = entry["output"].items()
    output: Any = value
    if kind == "message":
        [output] = messages_from_dict([value])
    elif kind in _RESULTS:
        output = _RESULTS[kind].model_validate(value)
    if entry.get("call", "").startswith("answer ") and not isinstance(output, AIMessage):
        raise TypeError("an answer is a message")
    for collector in collectors:
        collector.calls = [ModelCall.model_validate(call) for call in entry["calls"]]
        replies = messages_from_dict(entry["replies"]) if "replies" in entry else [output]
        collector.replies = [reply for reply in replies if isinstance(reply, AIMessage)]
    return output
