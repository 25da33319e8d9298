"""A loopback server that speaks OpenAI's chat completions, for tests over the real wire."""

from __future__ import annotations

import http.server
import itertools
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

ACCEPT = "The context says so.\nVerification Decision: Correct"
REJECT = "The context says otherwise.\nVerification Decision: Incorrect"

Script = Callable[[dict[str, Any]], list[str] | int]
"""From a request to its replies, as many as it asks for; or to the status of an error."""


def is_check(body: dict[str, Any]) -> bool:
    return "You check answers" in body["messages"][0]["content"]


def answering(*answers: str, verdicts: str = "a") -> Script:
    """Models small, large, ... answer in this order; verdicts a, r, i are drawn from a cycle."""
    texts = {"a": ACCEPT, "r": REJECT, "i": "I would rather not say."}
    stream = itertools.cycle(verdicts)
    by_model = dict(zip(("small", "large", "third"), answers, strict=False))

    def script(body: dict[str, Any]) -> list[str]:
        n = body.get("n") or 1
        if is_check(body):
            return [texts[next(stream)] for _ in range(n)]
        return [by_model[body["model"]]] * n

    return script


class OpenAIServer:
    """Keeps every request, and what it billed for it."""

    def __init__(self) -> None:
        self.script: Script = answering("a small answer", "a large answer")
        self.requests: list[dict[str, Any]] = []
        self.billed: list[dict[str, Any]] = []
        self.knows_n = True
        self.delay = 0.0
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                outer._answer(self, json.loads(self.rfile.read(length)))

            def log_message(self, *args: Any) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def checks(self) -> list[dict[str, Any]]:
        return [body for body in self.requests if is_check(body)]

    def model(self, name: str, **settings: Any) -> ChatOpenAI:
        return ChatOpenAI(
            model=name,
            base_url=self.base_url,
            api_key=SecretStr("test"),
            max_retries=0,
            **settings,
        )

    def _answer(self, handler: http.server.BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            self.requests.append(body)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.delay)
        asked = body if self.knows_n else {**body, "n": 1}
        with self._lock:
            replies = self.script(asked)
            status, out = self._response(body, replies)
            self._at_once -= 1
        text = json.dumps(out).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    def _response(self, body: dict[str, Any], replies: list[str] | int) -> tuple[int, Any]:
        if isinstance(replies, int):
            return replies, {"error": {"message": "scripted", "type": "test"}}
        prompt = sum(len(str(message["content"]).split()) for message in body["messages"])
        written = sum(len(reply.split()) for reply in replies)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        }
        self.billed.append({"model": body["model"], **usage})
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": reply},
                "finish_reason": "stop",
            }
            for i, reply in enumerate(replies)
        ]
        return 200, {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": choices,
            "usage": usage,
        }
