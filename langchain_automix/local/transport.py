"""Transports of a chat model's HTTP client: their base, and one that waits per token."""

from __future__ import annotations

import asyncio
import contextlib
import json
from abc import abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
from typing_extensions import override

Content = bytes | Iterator[bytes]
_ROUTE = "/chat/completions"
# Requests whose streams cannot be joined here.
_KEPT_WHOLE = ("stream", "tools", "response_format")


class Transport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers requests itself; for async clients, in a thread."""

    @abstractmethod
    def _respond(self, request: httpx.Request) -> tuple[int, Content]:
        """Return status and content: a whole body, or the chunks of a stream."""

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        status, content = self._respond(request)
        return httpx.Response(status, headers=_headers(content), content=content)

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, content = await asyncio.to_thread(self._respond, request)
        body = content if isinstance(content, bytes) else _in_threads(content)
        return httpx.Response(status, headers=_headers(content), content=body)


def _headers(content: Content) -> dict[str, str]:
    is_whole = isinstance(content, bytes)
    return {"Content-Type": "application/json" if is_whole else "text/event-stream"}


async def _in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


def read_events(reply: httpx.Response) -> Iterator[str]:
    """Yield the data of a reply's server-sent events, including `[DONE]`."""
    for line in reply.iter_lines():
        if line.startswith("data:"):
            yield line.removeprefix("data:").strip()


class PerTokenTransport(Transport):
    """Requests streams from a llama.cpp server, and returns the whole answers that were asked for.

    A client's timeout then covers the wait for the next token, or for progress in reading the
    prompt, instead of the whole answer. So on a slow or busy machine, the client waits as long as
    tokens arrive.

    Each choice of the answer has its number of `tokens`, and the usage covers all choices. Without
    streams, llama.cpp counts only one of them.
    """

    def __init__(self) -> None:
        self._network = httpx.HTTPTransport(trust_env=False)

    @override
    def close(self) -> None:
        self._network.close()

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith(_ROUTE):
            return self._network.handle_request(request)
        body = json.loads(request.read())
        if any(body.get(name) for name in _KEPT_WHOLE):
            return self._network.handle_request(request)
        return super().handle_request(request)

    @override
    def _respond(self, request: httpx.Request) -> tuple[int, Content]:
        body = json.loads(request.read())
        if not request.url.path.endswith(_ROUTE) or any(body.get(name) for name in _KEPT_WHOLE):
            with contextlib.closing(self._network.handle_request(request)) as whole:
                return whole.status_code, whole.read()
        body |= {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in {"content-length", "transfer-encoding"}
        }
        asked = httpx.Request(
            "POST", request.url, headers=headers, json=body, extensions=request.extensions
        )
        with contextlib.closing(self._network.handle_request(asked)) as reply:
            if not reply.is_success:
                return reply.status_code, reply.read()
            return join_events(read_events(reply))


def join_events(events: Iterator[str]) -> tuple[int, bytes]:
    """Join a stream of chunks into the status and the body of a whole answer.

    Raises:
        httpx.RemoteProtocolError: The stream ended before it was complete.
    """
    joined = _Joined()
    for event in events:
        if event == "[DONE]":
            return 200, json.dumps(joined.whole()).encode()
        chunk = json.loads(event)
        if "error" in chunk:
            status = chunk["error"].get("code")
            return status if isinstance(status, int) else 500, event.encode()
        joined.add(chunk)
    raise httpx.RemoteProtocolError("The model's server broke off its answer.")


class _Joined:
    """The chunks of one answer so far."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._texts: dict[int, list[str]] = defaultdict(list)
        self._reasons: dict[int, str] = {}
        self._logprobs: dict[int, list[Any]] = defaultdict(list)
        self._ended: list[int] = []
        self._usages: list[dict[str, Any]] = []

    def add(self, chunk: dict[str, Any]) -> None:
        self._fields |= {name: chunk[name] for name in ("id", "created", "model") if name in chunk}
        for choice in chunk.get("choices", ()):
            index = choice["index"]
            self._texts[index].append(choice.get("delta", {}).get("content") or "")
            self._logprobs[index] += (choice.get("logprobs") or {}).get("content") or []
            if choice.get("finish_reason"):
                self._reasons[index] = choice["finish_reason"]
                self._ended.append(index)
        if usage := chunk.get("usage"):
            self._usages.append(usage)

    def whole(self) -> dict[str, Any]:
        # llama.cpp sends a usage after the end of each choice; OpenAI sends one for all choices.
        each = len(self._usages) == len(self._ended)
        written = [usage["completion_tokens"] for usage in self._usages]
        tokens = dict(zip(self._ended, written, strict=True)) if each else {}
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": "".join(self._texts[index])},
                "finish_reason": self._reasons.get(index),
                "logprobs": {"content": self._logprobs[index]} if self._logprobs[index] else None,
                **({"tokens": tokens[index]} if index in tokens else {}),
            }
            for index in sorted(self._texts)
        ]
        whole = {"object": "chat.completion", **self._fields, "choices": choices}
        if self._usages:
            read = self._usages[-1]["prompt_tokens"]
            counts = {"completion_tokens": sum(written), "total_tokens": read + sum(written)}
            whole["usage"] = {**self._usages[-1], **counts}
        return whole
