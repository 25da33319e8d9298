"""A loopback server that speaks Gemini's `generateContent`, for tests over the real wire."""

from __future__ import annotations

import http.server
import importlib
import json
from typing import Any

from tests.support.builders.scripted_replies import Body
from tests.support.servers.loopback import LoopbackServer, Stream, event, tokens

_STOPS = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP"}


class GeminiServer(LoopbackServer):
    """Scripts see requests in OpenAI's shape; a message's `finish_reason` goes out as it is.

    A scripted message may also have `block_reason`, for a prompt that gets no candidate.
    """

    route = "enerateContent"

    def model(self, name: str, **settings: Any) -> Any:
        # Not among the packages that the tests need: its tests are left out without it.
        client: Any = importlib.import_module("langchain_google_genai")
        given = {"max_retries": 1, "google_api_key": "test", **settings}
        return client.ChatGoogleGenerativeAI(model=name, base_url=self.base_url, **given)

    def _serve(self, handler: http.server.BaseHTTPRequestHandler, path: str, body: Body) -> None:
        # The model and the way of answering are in the path: /v1beta/models/NAME:VERB.
        name, _, verb = path.rpartition("/")[2].partition(":")
        super()._serve(
            handler, path, {**body, "model": name, "stream": verb == "streamGenerateContent"}
        )

    def _asked(self, body: Body) -> Body:
        asked: Body = {"model": body["model"], "stream": body["stream"]}
        system = (body.get("systemInstruction") or {}).get("parts") or []
        asked["messages"] = [{"role": "system", "content": _text(system)}] if system else []
        for content in body["contents"]:
            role = "assistant" if content.get("role") == "model" else "user"
            asked["messages"].append({"role": role, "content": _text(content["parts"])})
        config = body.get("generationConfig") or {}
        if count := config.get("candidateCount"):
            asked["n"] = count
        return asked

    def _failure(self) -> Any:
        return {"error": {"code": 500, "message": "scripted", "status": "INTERNAL"}}

    def _whole(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Any:
        response = {"modelVersion": body["model"], "usageMetadata": _counts(usage)}
        if block := messages[0].get("block_reason"):
            return {**response, "promptFeedback": {"blockReason": block}}
        candidates = [
            {
                "index": i,
                "content": {"role": "model", "parts": _parts(message)},
                "finishReason": _finish(message),
            }
            for i, message in enumerate(messages)
        ]
        return {**response, "candidates": candidates}

    def _stream(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Stream:
        [message] = messages
        pieces = [
            event({"candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}}]})
            for word in tokens(message["content"] or "")
            for part in [{"text": word}]
        ]
        last = {"index": 0, "content": {"role": "model", "parts": []}}
        end = {
            "candidates": [{**last, "finishReason": _finish(message)}],
            "modelVersion": body["model"],
            "usageMetadata": _counts(usage),
        }
        return Stream(b"", pieces, event(end))


def _text(parts: list[dict[str, Any]]) -> str:
    return "".join(part.get("text", "") for part in parts)


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    said = [{"text": message["content"]}] if message["content"] else []
    called = [
        {"functionCall": {"name": each["name"], "args": json.loads(each["arguments"])}}
        for each in (call["function"] for call in message.get("tool_calls") or ())
    ]
    return said + called


def _finish(message: dict[str, Any]) -> str:
    given: str = message.get("finish_reason", "stop")
    return _STOPS.get(given, given)


def _counts(usage: dict[str, Any]) -> dict[str, int]:
    return {
        "promptTokenCount": usage["prompt_tokens"],
        "candidatesTokenCount": usage["completion_tokens"],
        "totalTokenCount": usage["total_tokens"],
    }
