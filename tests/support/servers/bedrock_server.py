"""A loopback server that speaks Bedrock's Converse: in one piece, and as a stream of binary frames.

A frame has a prelude (its length, that of its headers, their checksum), headers, the JSON of one
event, and a checksum of it all.
"""

from __future__ import annotations

import http.server
import importlib
import json
import struct
from typing import Any
from urllib.parse import unquote
from zlib import crc32

from pydantic import SecretStr

from tests.support.builders.scripted_replies import Body
from tests.support.servers.loopback import LoopbackServer, Stream, fragments, tokens

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def frame(kind: str, event: dict[str, Any]) -> bytes:
    """Return an event as the frame that stands for it on the wire."""
    names = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value
        for name, value in ((name, value.encode()) for name, value in names.items())
    )
    payload = json.dumps(event).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    told = prelude + struct.pack("!I", crc32(prelude)) + headers + payload
    return told + struct.pack("!I", crc32(told))


class BedrockServer(LoopbackServer):
    """Scripts see requests in OpenAI's shape."""

    route = "/converse"
    stream_type = "application/vnd.amazon.eventstream"

    def model(self, name: str, **settings: Any) -> Any:
        client: Any = importlib.import_module("langchain_aws")
        given = {
            "region_name": "us-east-1",
            "aws_access_key_id": SecretStr("test"),
            "aws_secret_access_key": SecretStr("test"),
            "provider": "anthropic",
            "disable_streaming": False,
            **settings,
        }
        return client.ChatBedrockConverse(model=name, endpoint_url=self.base_url, **given)

    def _serve(self, handler: http.server.BaseHTTPRequestHandler, path: str, body: Body) -> None:
        _, _, name, action = path.split("/")  # /model/NAME/converse
        asked = {**body, "model": unquote(name), "stream": action == "converse-stream"}
        super()._serve(handler, path.removesuffix("-stream"), asked)

    def _asked(self, body: Body) -> Body:
        def said(content: list[dict[str, Any]]) -> str:
            return "".join(block.get("text", "") for block in content)

        messages = [
            {"role": sent["role"], "content": said(sent["content"])} for sent in body["messages"]
        ]
        if body.get("system"):
            messages.insert(0, {"role": "system", "content": said(body["system"])})
        return {"model": body["model"], "messages": messages}

    def _failure(self) -> Any:
        return {"message": "scripted"}

    def _whole(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Any:
        [message] = messages
        content: list[dict[str, Any]] = [{"text": message["content"]}] if message["content"] else []
        for call in message.get("tool_calls") or ():
            made = call["function"]
            used = {"toolUseId": call["id"], "name": made["name"]}
            content.append({"toolUse": {**used, "input": json.loads(made["arguments"])}})
        return {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": _stop_reason(message),
            "usage": _usage(usage),
            "metrics": {"latencyMs": 1},
        }

    def _stream(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Stream:
        [message] = messages
        pieces = [
            frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": token}})
            for token in tokens(message["content"] or "")
        ]
        if pieces:
            pieces.append(frame("contentBlockStop", {"contentBlockIndex": 0}))
        for place, call in enumerate(message.get("tool_calls") or (), start=1):
            made, at = call["function"], {"contentBlockIndex": place}
            used = {"toolUse": {"toolUseId": call["id"], "name": made["name"]}}
            pieces.append(frame("contentBlockStart", {**at, "start": used}))
            pieces += [
                frame("contentBlockDelta", {**at, "delta": {"toolUse": {"input": part}}})
                for part in fragments(made["arguments"])
            ]
            pieces.append(frame("contentBlockStop", at))
        told = {"usage": _usage(usage), "metrics": {"latencyMs": 1}}
        closing = frame("messageStop", {"stopReason": _stop_reason(message)})
        return Stream(
            frame("messageStart", {"role": "assistant"}), pieces, closing + frame("metadata", told)
        )


def _stop_reason(message: dict[str, Any]) -> str:
    given: str = message.get("finish_reason", "tool_calls" if message.get("tool_calls") else "stop")
    return _STOPS.get(given, given)


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "inputTokens": usage["prompt_tokens"],
        "outputTokens": usage["completion_tokens"],
        "totalTokens": usage["total_tokens"],
    }
