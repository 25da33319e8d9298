"""The kept answer of a mix as the body, the chunks and the headers of a chat completion."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from langchain_core.messages import AIMessage, AIMessageChunk, convert_to_openai_messages

from langchain_automix.models.provider_quirks import early_ending

_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_LONGEST_HEADER = 1_000
_FINISH_REASONS = {
    "out of tokens": "length",
    "filtered": "content_filter",
    "refused": "content_filter",
    "failed": "stop",
}


@dataclass(frozen=True)
class Completion:
    """What all parts of one response have in common."""

    id: str
    """Its id, by which feedback names it."""

    created: int
    """When it began, in seconds since 1970."""

    mix: str
    """Name of the mix that answers."""

    def body(self, answer: Answer) -> dict[str, Any]:
        """Return the body of a response that is no stream."""
        choice = {
            "index": 0,
            "message": answer.message(),
            "logprobs": None,
            "finish_reason": answer.finish_reason,
        }
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": usage_of(answer.record),
            "automix": answer.record,
        }

    def chunk(
        self, delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """Return one chunk of a stream."""
        choice = {
            "index": 0,
            "delta": dict(delta),
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return {**self._head("chat.completion.chunk"), "choices": [choice], **more}

    def usage_chunk(self, record: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the chunk that tells the usage, and holds no part of the answer."""
        told: dict[str, Any] = {"choices": [], "usage": usage_of(record), "automix": record}
        return {**self._head("chat.completion.chunk"), **told}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.mix}


@dataclass
class Answer:
    """An answer, as far as it has come."""

    text: str = ""
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """In OpenAI's format."""

    metadata: dict[str, Any] = field(default_factory=dict)
    """`response_metadata` of the message."""

    @classmethod
    def of(cls, output: Any) -> Answer:
        """Return the answer of a mix: its message, or that of a structured output."""
        message, parsed = output, None
        if isinstance(output, Mapping):
            message, parsed = output["raw"], output.get("parsed")
        text = str(message.text)
        calls = tool_calls_of(message)
        if parsed is not None and not text.strip():
            # A model that takes a schema as a tool has answered by calling that.
            text, calls = json.dumps(parsed, ensure_ascii=False), []
        return cls(text, refusal_of(message), calls, dict(message.response_metadata))

    @property
    def record(self) -> dict[str, Any] | None:
        """The record of the query; None: it is not known yet."""
        return self.metadata.get("automix")

    @property
    def finish_reason(self) -> str:
        """Why the answer ended, in OpenAI's words."""
        ending = early_ending(self.metadata)
        if self.record is not None and self.record.get("action") == "abstain":
            return "stop"
        if ending is not None and ending[0] != "failed":
            return _FINISH_REASONS[ending[0]]
        return "tool_calls" if self.tool_calls else "stop"

    def message(self) -> dict[str, Any]:
        """Return the message of a response that is no stream."""
        says_nothing = not self.text and (self.tool_calls or self.refusal)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if says_nothing else self.text,
            "refusal": self.refusal,
        }
        return {**message, "tool_calls": self.tool_calls} if self.tool_calls else message


def refusal_of(message: AIMessage) -> str | None:
    """Return the words by which a model refuses; None if it does not."""
    if said := message.additional_kwargs.get("refusal"):
        return str(said)
    blocks = message.content if isinstance(message.content, list) else []
    said = [
        str(block["refusal"])
        for block in blocks
        if isinstance(block, dict) and block.get("type") == "refusal" and "refusal" in block
    ]
    return "".join(said) or None


def tool_calls_of(message: AIMessage) -> list[dict[str, Any]]:
    """Return the tool calls of a message in OpenAI's format, also those that cannot be read."""
    converted: Any = convert_to_openai_messages(message) if message.tool_calls else {}
    calls = list(converted.get("tool_calls") or ())
    calls += [
        {
            "id": call.get("id"),
            "type": "function",
            "function": {"name": call.get("name") or "", "arguments": call.get("args") or ""},
        }
        for call in message.invalid_tool_calls
    ]
    return calls


@dataclass
class CallNumbers:
    """Numbers the tool calls of a stream from 0, as OpenAI's clients count them."""

    _known: dict[Any, int] = field(default_factory=dict)
    _last: Any = None

    def deltas(self, chunk: AIMessageChunk) -> list[dict[str, Any]]:
        """Return the parts of tool calls in a chunk."""
        return [self._delta(call) for call in chunk.tool_call_chunks]

    def _delta(self, call: Mapping[str, Any]) -> dict[str, Any]:
        key = call.get("id") if call.get("index") is None else call["index"]
        # A part without either goes on with the call before it.
        key = self._last = self._last if key is None else key
        is_new = key not in self._known
        number = self._known.setdefault(key, len(self._known))
        function: dict[str, Any] = {"arguments": call.get("args") or ""}
        delta: dict[str, Any] = {"index": number}
        if call.get("id"):
            delta |= {"id": call["id"], "type": "function"}
        if is_new:
            function = {"name": call.get("name") or "", **function}
        return {**delta, "function": function}


def usage_of(record: Mapping[str, Any] | None) -> dict[str, int] | None:
    """Return the tokens of all requests of a query; None as soon as one did not tell its own."""
    tokens = (record or {}).get("tokens")
    if tokens is None:
        return None
    return {
        "prompt_tokens": tokens["input_tokens"],
        "completion_tokens": tokens["output_tokens"],
        "total_tokens": tokens["total_tokens"],
    }


def headers_of(record: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the headers that tell of a query: model, cost and why, percent-encoded.

    What is not known has no header.
    """
    told = {name: (record or {}).get(name) for name in ("model", "cost", "why")}
    return {f"x-automix-{name}": _header(value) for name, value in told.items() if value}


HEADERS: Iterable[str] = ("x-automix-model", "x-automix-cost", "x-automix-why")


def _header(value: Any) -> str:
    """Return a text as the value of a header, in which any other character is percent-encoded."""
    text = " ".join(str(value).split())
    if len(text) > _LONGEST_HEADER:
        text = f"{text[:_LONGEST_HEADER]}..."
    return quote(text.encode("utf-8", "replace"), safe=_PRINTABLE)
