"""A loopback server that speaks Anthropic's messages, for tests with a second provider.

Scripts are the same as for OpenAI's wire: they see each request in that shape (`requests` keeps
what came), and what they reply is put into blocks. A content that is already a list of blocks
goes out as it is.
"""

from __future__ import annotations

import json
from typing import Any

from langchain_anthropic import ChatAnthropic
from pydantic import SecretStr

from tests.support.builders.scripted_replies import Body, text_of
from tests.support.servers.loopback import LoopbackServer, Stream, event, fragments, tokens

_STOPS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class AnthropicServer(LoopbackServer):
    route = "/v1/messages"

    def model(self, name: str, **settings: Any) -> ChatAnthropic:
        given = {"max_retries": 0, "api_key": SecretStr("test"), **settings}
        return ChatAnthropic(model_name=name, base_url=self.base_url, **given)

    def _asked(self, body: Body) -> Body:
        asked: Body = {key: body[key] for key in ("model", "max_tokens", "stream") if key in body}
        asked["messages"] = [message for sent in body["messages"] for message in _opened(sent)]
        if body.get("system"):
            asked["messages"].insert(0, {"role": "system", "content": text_of(body["system"])})
        if body.get("stop_sequences"):
            asked["stop"] = body["stop_sequences"]
        if body.get("tools"):
            asked["tools"] = [_function(tool) for tool in body["tools"]]
        if body.get("tool_choice"):
            asked["tool_choice"] = _choice(body["tool_choice"])
        wanted = (body.get("output_config") or {}).get("format")
        if wanted:
            asked["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": wanted["schema"]},
            }
        return asked

    def _failure(self) -> Any:
        return {"type": "error", "error": {"type": "api_error", "message": "scripted"}}

    def _whole(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Any:
        [message] = messages
        return {
            **_head(body),
            "content": _blocks(message),
            "stop_reason": _stop(message),
            "usage": _counts(usage),
        }

    def _stream(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Stream:
        [message] = messages
        counts = {**_counts(usage), "output_tokens": 0}
        start = {**_head(body), "content": [], "stop_reason": None, "usage": counts}
        opening = _named("message_start", message=start)
        pieces = []
        for i, block in enumerate(_blocks(message)):
            begin, deltas = _parts(block)
            sent = [_named("content_block_delta", index=i, delta=delta) for delta in deltas]
            # Where a block begins and ends is no piece of its own: nothing is generated there.
            sent = sent or [b""]
            sent[0] = _named("content_block_start", index=i, content_block=begin) + sent[0]
            sent[-1] += _named("content_block_stop", index=i)
            pieces += sent
        end = {"stop_reason": _stop(message), "stop_sequence": None}
        closing = _named("message_delta", delta=end, usage=_counts(usage)) + _named("message_stop")
        return Stream(opening, pieces, closing)


def _named(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)


def _head(body: Body) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "stop_sequence": None,
    }


def _counts(usage: dict[str, Any]) -> dict[str, int]:
    return {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}


def _stop(message: dict[str, Any]) -> str:
    usual = "tool_calls" if message.get("tool_calls") else "stop"
    given: str = message.get("finish_reason", usual)
    return _STOPS.get(given, given)


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    used = [
        {
            "type": "tool_use",
            "id": tool_call["id"],
            "name": tool_call["function"]["name"],
            "input": json.loads(tool_call["function"]["arguments"]),
        }
        for tool_call in message.get("tool_calls") or ()
    ]
    return [*(content or ()), *used]


def _parts(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The block as it begins, and what is then added to it."""
    if block["type"] == "text":
        words = tokens(block["text"])
        return {**block, "text": ""}, [{"type": "text_delta", "text": word} for word in words]
    if block["type"] == "tool_use":
        parts = fragments(json.dumps(block["input"], ensure_ascii=False))
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        return {**block, "input": {}}, deltas
    return block, []


def _opened(sent: dict[str, Any]) -> list[dict[str, Any]]:
    """One message as OpenAI has it, or several: there each tool's result is a message."""
    if isinstance(sent["content"], str):
        return [sent]
    blocks = sent["content"]
    results = [
        {"role": "tool", "tool_call_id": block["tool_use_id"], "content": block.get("content")}
        for block in blocks
        if block["type"] == "tool_result"
    ]
    tool_calls = [
        {
            "id": block["id"],
            "type": "function",
            "function": {"name": block["name"], "arguments": json.dumps(block["input"])},
        }
        for block in blocks
        if block["type"] == "tool_use"
    ]
    rest = [block for block in blocks if block["type"] not in ("tool_result", "tool_use")]
    message = {"role": sent["role"], "content": rest}
    if tool_calls:
        message["tool_calls"] = tool_calls
    return [*results, message] if rest or tool_calls else results


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "parameters": tool.get("input_schema") or {}}
    return {"type": "function", "function": function}


def _choice(choice: dict[str, Any]) -> Any:
    if choice["type"] == "tool":
        return {"type": "function", "function": {"name": choice["name"]}}
    return _CHOICES[choice["type"]]
