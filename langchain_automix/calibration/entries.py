"""The shapes of a journal's lines: a checksum tells that a line is whole, not who wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, with_config
from typing_extensions import TypedDict

from langchain_automix.policy.data.records import LoggedQuery

Entry = dict[str, Any]
"""A line of the journal."""

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


def validate_entry(entry: Mapping[str, Any]) -> None:
    """Check the shape of one line; what it holds is checked where it is used.

    Raises:
        ValueError: A calibration writes no such line.
    """
    kind = next((kind for kind in _KINDS if kind in entry), None)
    if kind is not None:
        (_FAILED if kind == "call" and "error" in entry else _KINDS[kind]).validate_python(entry)


def validate_row(row: Mapping[str, Any], models: Sequence[str]) -> None:
    """Check the row of an example.

    Raises:
        ValueError: It is none of these models.
    """
    query = LoggedQuery.model_validate(row)
    metadata = _METADATA.validate_python(row.get("metadata"))
    if [answer.model for answer in query.answers] != list(models):
        raise ValueError("it is of other models")
    if len(metadata.get("agreement", models)) != len(models):
        raise ValueError("it has an agreement for other models")
