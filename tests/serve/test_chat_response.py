"""Answers as bodies, chunks and headers, whatever a provider makes of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from langchain_automix.serve.chat_response import (
    Answer,
    CallNumbers,
    Completion,
    headers_of,
    usage_of,
)

RECORD = {"model": "small", "action": "answer", "tokens": None, "cost": None, "why": "It fits."}


def answer(**fields: Any) -> Answer:
    metadata = {"automix": RECORD, **fields.pop("metadata", {})}
    return Answer.of(AIMessage(**{"content": "", **fields}, response_metadata=metadata))


def test_calls_are_numbered_from_0_in_the_order_in_which_they_come() -> None:
    numbers = CallNumbers()
    parts = [
        tool_call_chunk(name="f", args="", id="a", index=1),  # after a block of text
        tool_call_chunk(name=None, args='{"x"', id=None, index=1),
        tool_call_chunk(name="g", args="{}", id="b", index=3),
        tool_call_chunk(name=None, args=": 1}", id=None, index=1),
        tool_call_chunk(name="h", args="{", id="c", index=None),
        tool_call_chunk(name=None, args="}", id=None, index=None),
    ]
    deltas = [
        numbers.deltas(AIMessageChunk(content="", tool_call_chunks=[part]))[0] for part in parts
    ]
    assert [delta["index"] for delta in deltas] == [0, 0, 1, 0, 2, 2]
    assert [delta.get("id") for delta in deltas] == ["a", None, "b", None, "c", None]
    assert [delta["function"].get("name") for delta in deltas] == ["f", None, "g", None, "h", None]


def test_calls_that_cannot_be_read_are_given_as_they_are() -> None:
    invalid = {"name": "f", "args": "{oops", "id": "c1", "error": None, "type": "invalid_tool_call"}
    made = answer(invalid_tool_calls=[invalid])
    assert made.message()["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{oops"}}
    ]
    assert made.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"finish_reason": "stop"}, "stop"),
        ({"finish_reason": "length"}, "length"),
        ({"stop_reason": "max_tokens"}, "length"),
        ({"finish_reason": "SAFETY"}, "content_filter"),
        ({"stop_reason": "refusal"}, "content_filter"),
        ({"done_reason": "length"}, "length"),
        ({"finish_reason": "error"}, "stop"),
        ({}, "stop"),
    ],
)
def test_why_an_answer_ended(metadata: dict[str, str], reason: str) -> None:
    assert answer(content="It was", metadata=metadata).finish_reason == reason


def test_a_refusal_stands_in_its_own_field() -> None:
    said = {"refusal": "I cannot."}
    blocks: list[Any] = [{"type": "refusal", "refusal": "I cannot."}]
    for made in (answer(additional_kwargs=said), answer(content=blocks)):
        assert made.message() == {"role": "assistant", "content": None, "refusal": "I cannot."}


def test_an_answer_by_a_schema_that_is_a_tool_is_its_json() -> None:
    call = {"name": "built", "args": {"year": 7}, "id": "c1", "type": "tool_call"}
    message = AIMessage("", tool_calls=[call], response_metadata={"automix": RECORD})
    made = Answer.of({"raw": message, "parsed": {"year": 7}, "parsing_error": None})
    assert made.message() == {"role": "assistant", "content": '{"year": 7}', "refusal": None}
    assert made.finish_reason == "stop"


def test_what_is_not_known_is_no_number() -> None:
    body = Completion("chatcmpl-1", 0, "mix").body(answer(content="It was."))
    assert body["usage"] is None
    assert usage_of(None) is None
    assert headers_of(RECORD) == {"x-automix-model": "small", "x-automix-why": "It fits."}
    assert headers_of(None) == {}


def test_any_text_goes_into_a_header() -> None:
    why = "Ωmega: 100 % é \r\nSet-Cookie: x"
    told = headers_of({**RECORD, "why": why})["x-automix-why"]
    assert told.isascii()
    assert told.isprintable()
    assert unquote(told) == "Ωmega: 100 % é Set-Cookie: x"
    assert len(unquote(headers_of({**RECORD, "why": "x" * 5_000})["x-automix-why"])) == 1_003
