"""A server on this machine that keeps and counts requests; subclasses speak a provider's wire."""

from __future__ import annotations

import http.server
import json
import re
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

from tests.support.builders.scripted_replies import (
    Body,
    Cut,
    Error,
    Reply,
    Script,
    answering,
    is_check,
    text_of,
)
from tests.support.servers.prompt_cache import PromptCache

Pause = float | Callable[[Body], float]
"""Seconds; or a callable that gives them per request, and may itself wait (for an event, say)."""


class Stream(NamedTuple):
    """Events: `token_delay` passes between the pieces, and the rest goes at once."""

    opening: bytes
    pieces: list[bytes]
    closing: bytes


def event(data: Any, name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def tokens(text: str) -> list[str]:
    """Words with the space after them: joined, they are the text."""
    return re.findall(r"\S+\s*|\s+", text)


def fragments(arguments: str, size: int = 7) -> list[str]:
    """A tool call's arguments as they are streamed, broken anywhere."""
    return [arguments[at : at + size] for at in range(0, len(arguments), size)]


class _HTTP(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # fifty clients may knock before the first is let in

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client goes away, as it may
            super().handle_error(request, client_address)


class LoopbackServer(ABC):
    """Keeps every request, and what it billed for it (in full, also where a stream is cut)."""

    route: ClassVar[str]
    root: ClassVar[str] = ""
    stream_type: ClassVar[str] = "text/event-stream"

    def __init__(self) -> None:
        self.script: Script = answering("a small answer", "a large answer")
        self.requests: list[Body] = []
        self.billed: list[dict[str, Any]] = []
        self.knows_n = True
        self.cached = 0
        """Most tokens of a prompt that are billed as read from a cache."""

        self.prompt_cache: PromptCache | None = None
        """Instead of a fixed number: a cache that works as a provider's does."""

        self.delay: Pause = 0.0
        self.token_delay: Pause = 0.0
        self.written: list[tuple[str, int]] = []
        """Model and pieces of each stream that ended, or that its client left."""

        self.most_at_once = 0
        self.at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # small writes, each of which must arrive at once

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                try:
                    outer._serve(self, self.path.partition("?")[0], body)
                except ConnectionError:  # the client went away, as it may
                    self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        self._http = _HTTP(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._http.server_port}{self.root}"

    def __enter__(self) -> Self:
        # A short poll, because each test waits for one to end.
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def checks(self) -> list[Body]:
        return [body for body in self.requests if is_check(self._asked(body))]

    def _asked(self, body: Body) -> Body:
        """The request as a script sees it."""
        return body

    @abstractmethod
    def _whole(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Any:
        """The response in one piece."""

    @abstractmethod
    def _stream(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Stream:
        """The response in events."""

    @abstractmethod
    def _failure(self) -> Any:
        """The body of an error, as the provider shapes it."""

    def _serve(self, handler: http.server.BaseHTTPRequestHandler, path: str, body: Body) -> None:
        with self._lock:
            self.requests.append(body)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        missing = Error(404, self._failure())
        try:
            known = path.endswith(self.route)
            last = self._answer(handler, body) if known else partial(send, handler, missing)
        finally:
            with self._lock:
                self.at_once -= 1
        # Only now, for a client that has seen the end may ask again before this thread goes on.
        last()

    def _answer(
        self, handler: http.server.BaseHTTPRequestHandler, body: Body
    ) -> Callable[[], None]:
        """Do everything but the last write."""
        asked = self._asked(body)
        # A cache holds what was read by then, and not what is being read at the same time.
        found = None if self.prompt_cache is None else self.prompt_cache.begin(asked)
        _wait(self.delay, asked)
        with self._lock:
            outcome = self.script(asked if self.knows_n else {**asked, "n": 1})
            if isinstance(outcome, int):
                outcome = Error(outcome)
            if isinstance(outcome, Error):
                shown = self._failure() if outcome.body is None else outcome.body
                error = Error(outcome.status, shown, outcome.headers)
                return partial(send, handler, error)
            cut = outcome if isinstance(outcome, Cut) else None
            replies = [outcome.reply] if isinstance(outcome, Cut) else list(outcome)
            messages = [_message(reply) for reply in replies]
            usage = _usage(asked, messages, self.cached, found)
            if self.prompt_cache:
                self.prompt_cache.finish(asked)
            self.billed.append({"model": body["model"], **usage})
        if body.get("stream"):
            return self._play(handler, asked, self._stream(body, messages, usage), cut)
        whole = Error(200, self._whole(body, messages, usage))
        return partial(send, handler, whole, half=cut is not None)

    def _play(
        self,
        handler: http.server.BaseHTTPRequestHandler,
        asked: Body,
        stream: Stream,
        cut: Cut | None,
    ) -> Callable[[], None]:
        handler.send_response(200)
        handler.send_header("Content-Type", self.stream_type)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        number = 0
        try:
            _chunk(handler, stream.opening)
            for i, piece in enumerate(stream.pieces[: cut.after] if cut else stream.pieces):
                if i:
                    _wait(self.token_delay, asked)
                _chunk(handler, piece)
                number += 1
        finally:
            with self._lock:
                self.written.append((asked["model"], number))
        if cut and cut.politely:
            return partial(_chunk, handler, b"", end=True)
        if cut:
            return lambda: setattr(handler, "close_connection", True)
        return partial(_chunk, handler, stream.closing, end=True)


def _wait(pause: Pause, body: Body) -> None:
    seconds = pause(body) if callable(pause) else pause
    if seconds:
        time.sleep(seconds)


def send(handler: http.server.BaseHTTPRequestHandler, out: Error, *, half: bool = False) -> None:
    text = (out.body if isinstance(out.body, str) else json.dumps(out.body)).encode()
    handler.send_response(out.status)
    for name, value in {"Content-Type": "application/json", **out.headers}.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(text)))
    handler.end_headers()
    handler.wfile.write(text[: len(text) // 2] if half else text)
    handler.close_connection |= half


def _chunk(handler: http.server.BaseHTTPRequestHandler, data: bytes, *, end: bool = False) -> None:
    if data:
        data = b"%x\r\n%s\r\n" % (len(data), data)
    handler.wfile.write(data + b"0\r\n\r\n" * end)


def _message(reply: Reply) -> dict[str, Any]:
    given = {"content": reply} if isinstance(reply, str) else reply
    return {"role": "assistant", "content": None, **given}


def _usage(
    asked: Body, messages: list[dict[str, Any]], cached: int, found: tuple[int, int] | None
) -> dict[str, Any]:
    """A word is a token, and a tool call is its name and its arguments."""
    prompt = sum(len(str(message.get("content") or "").split()) for message in asked["messages"])
    if found:
        prompt, cached = found
    written = 0
    for message in messages:
        written += len(text_of(message["content"]).split())
        for tool_call in message.get("tool_calls") or ():
            written += 1 + len(tool_call["function"]["arguments"].split())
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
    }
    if cached or found:
        usage["prompt_tokens_details"] = {"cached_tokens": min(cached, prompt)}
    return usage
