"""A loopback server that speaks OpenAI's Responses API, for tests over the real wire."""

from __future__ import annotations

from typing import Any

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.support.builders.scripted_replies import Body
from tests.support.servers.loopback import LoopbackServer, Stream, event


class ResponsesServer(LoopbackServer):
    """Scripts see requests in the shape of chat completions.

    A scripted message may have `status`, `incomplete` (the reason), `error` (the field of that
    name), and `output`: items that stand before its text.
    """

    route = "/responses"
    root = "/v1"

    def model(self, name: str, **settings: Any) -> ChatOpenAI:
        given = {"max_retries": 0, "api_key": SecretStr("test"), **settings}
        return ChatOpenAI(model=name, base_url=self.base_url, use_responses_api=True, **given)

    def _asked(self, body: Body) -> Body:
        return {**body, "messages": body["input"]}

    def _failure(self) -> Any:
        return {"error": {"message": "scripted", "type": "test"}}

    def _whole(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Any:
        [message] = messages
        response = {
            "id": "resp_1",
            "object": "response",
            "created_at": 0,
            "model": body["model"],
            "status": message.get("status", "completed"),
            "error": message.get("error"),
            "incomplete_details": None,
            "output": [*message.get("output", ()), *_said(message), *_called(message)],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage["total_tokens"],
            },
        }
        if reason := message.get("incomplete"):
            response |= {"status": "incomplete", "incomplete_details": {"reason": reason}}
        return response

    def _stream(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Stream:
        whole = self._whole(body, messages, usage)
        begun = {**whole, "status": "in_progress", "output": [], "usage": None, "error": None}
        text = messages[0]["content"] or ""
        delta: dict[str, Any] = {
            "output_index": 0,
            "content_index": 0,
            "item_id": "msg_1",
            "delta": text,
            "logprobs": [],
        }
        kind = f"response.{whole['status']}"
        return Stream(
            _named("response.created", response=begun),
            [_named("response.output_text.delta", **delta)] if text else [b""],
            _named(kind, response=whole),
        )


def _named(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, "sequence_number": 0, **fields}, kind)


def _said(message: dict[str, Any]) -> list[dict[str, Any]]:
    if not message["content"]:
        return []
    text = {"type": "output_text", "text": message["content"], "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    return [{**item, "content": [text]}]


def _called(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "function_call", "id": f"fc_{i}", "call_id": call["id"], **call["function"]}
        for i, call in enumerate(message.get("tool_calls") or ())
    ]
