"""A loopback server that speaks Bedrock's Converse, in one piece: its streams are binary."""

from __future__ import annotations

import http.server
import importlib
import json
from typing import Any
from urllib.parse import unquote

from pydantic import SecretStr

from tests.support.builders.scripted_replies import Body
from tests.support.servers.loopback import LoopbackServer, Stream

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class BedrockServer(LoopbackServer):
    """Scripts see requests in OpenAI's shape."""

    route = "/converse"

    def model(self, name: str, **settings: Any) -> Any:
        client: Any = importlib.import_module("langchain_aws")
        given = {
            "region_name": "us-east-1",
            "aws_access_key_id": SecretStr("test"),
            "aws_secret_access_key": SecretStr("test"),
            "provider": "anthropic",
            "disable_streaming": True,
            **settings,
        }
        return client.ChatBedrockConverse(model=name, endpoint_url=self.base_url, **given)

    def _serve(self, handler: http.server.BaseHTTPRequestHandler, path: str, body: Body) -> None:
        name = unquote(path.split("/")[2])  # /model/NAME/converse
        super()._serve(handler, path, {**body, "model": name})

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
        given = message.get("finish_reason", "tool_calls" if message.get("tool_calls") else "stop")
        return {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": _STOPS.get(given, given),
            "usage": {
                "inputTokens": usage["prompt_tokens"],
                "outputTokens": usage["completion_tokens"],
                "totalTokens": usage["total_tokens"],
            },
            "metrics": {"latencyMs": 1},
        }

    def _stream(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Stream:
        raise NotImplementedError
