"""A provider as a process of its own that costs next to nothing, for measuring what asks it.

    python -m tests.support.servers.quick_provider SECONDS

It answers every request after so many seconds, with the same words, and prints its address. The
model `small` is not sure of its answer to a question that holds `hard`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvicorn

from tests.support.servers.openai_server import token

WORDS = [f"word{i} " for i in range(20)]
_USAGE = {"prompt_tokens": 10, "completion_tokens": len(WORDS), "total_tokens": 10 + len(WORDS)}


def _events(model: str, *, is_sure: bool, logprobs: bool) -> list[bytes]:
    """The first word as an event, and all others."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": model}
    found = []
    for i, word in enumerate(WORDS):
        choice: dict[str, Any] = {"index": 0, "delta": {"content": word}, "finish_reason": None}
        if logprobs:
            chance = 0.1 if i == 0 and not is_sure else 0.9
            choice["logprobs"] = {"content": [token(word, chance)], "refusal": None}
        found.append({**head, "choices": [choice]})
    found.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    found.append({**head, "choices": [], "usage": _USAGE})
    lines = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in found]
    return [lines[0], b"".join([*lines[1:], b"data: [DONE]\n\n"])]


def _whole(model: str, *, is_sure: bool, logprobs: bool) -> list[bytes]:
    told = [token(word, 0.1 if not i and not is_sure else 0.9) for i, word in enumerate(WORDS)]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(WORDS)},
        "finish_reason": "stop",
        "logprobs": {"content": told, "refusal": None} if logprobs else None,
    }
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": model}
    return [json.dumps({**head, "choices": [choice], "usage": _USAGE}).encode()]


class QuickProvider:
    """An ASGI app that answers from memory."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._made: dict[tuple[str, bool, bool, bool], list[bytes]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        content = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            content += message["body"]
            more = message.get("more_body", False)
        body = json.loads(content)
        is_sure = body["model"] != "small" or b"hard" not in content
        key = body["model"], is_sure, bool(body.get("logprobs")), bool(body.get("stream"))
        if key not in self._made:
            make = _events if key[3] else _whole
            self._made[key] = make(key[0], is_sure=is_sure, logprobs=key[2])
        await asyncio.sleep(self._seconds)
        kind = b"text/event-stream" if key[3] else b"application/json"
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        parts = self._made[key]
        for i, part in enumerate(parts):
            more = i + 1 < len(parts)
            await send({"type": "http.response.body", "body": part, "more_body": more})


class _Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"http://127.0.0.1:{port}/v1", flush=True)  # noqa: T201


if __name__ == "__main__":
    app = QuickProvider(float(sys.argv[1]))
    given: dict[str, Any] = {"lifespan": "off", "access_log": False, "log_level": "error"}
    _Server(uvicorn.Config(app, port=0, backlog=4096, **given)).run()
