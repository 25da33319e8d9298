"""A loopback server that speaks Ollama's `/api/chat`, for tests over the real wire."""

from __future__ import annotations

import importlib
import json
from typing import Any

from tests.support.builders.scripted_replies import Body
from tests.support.servers.loopback import LoopbackServer, Stream, tokens

_STOPS = {"tool_calls": "stop"}


class OllamaServer(LoopbackServer):
    """Scripts see requests in OpenAI's shape, which is nearly Ollama's."""

    route = "/api/chat"

    def model(self, name: str, **settings: Any) -> Any:
        client: Any = importlib.import_module("langchain_ollama")
        return client.ChatOllama(model=name, base_url=self.base_url, **settings)

    def _failure(self) -> Any:
        return {"error": "scripted"}

    def _whole(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Any:
        [message] = messages
        return self._end(body, message, usage, _message(message, message["content"] or ""))

    def _stream(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Stream:
        [message] = messages
        head = {"model": body["model"], "created_at": "2026-01-01T00:00:00Z", "done": False}
        pieces = [
            _line({**head, "message": {"role": "assistant", "content": word}})
            for word in tokens(message["content"] or "")
        ]
        return Stream(b"", pieces, _line(self._end(body, message, usage, _message(message, ""))))

    def _end(
        self, body: Body, message: dict[str, Any], usage: dict[str, Any], said: dict[str, Any]
    ) -> dict[str, Any]:
        given = message.get("finish_reason", "stop")
        return {
            "model": body["model"],
            "created_at": "2026-01-01T00:00:00Z",
            "message": said,
            "done": True,
            "done_reason": _STOPS.get(given, given),
            "prompt_eval_count": usage["prompt_tokens"],
            "eval_count": usage["completion_tokens"],
        }


def _line(data: Any) -> bytes:
    return json.dumps(data).encode() + b"\n"


def _message(message: dict[str, Any], content: str) -> dict[str, Any]:
    made = [
        {"function": {"name": each["name"], "arguments": json.loads(each["arguments"])}}
        for each in (call["function"] for call in message.get("tool_calls") or ())
    ]
    called = {"tool_calls": made} if made else {}
    return {"role": "assistant", "content": content, **called}
