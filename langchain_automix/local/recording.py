"""Record what local models answer, and answer from such a recording without the models.

Both are transports of a chat model's HTTP client: a replayed run asks and reads exactly as the
recorded run did, but no server runs and nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import threading
import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.local.server import count_tokens
from langchain_automix.utils.files import atomic_replace

SHIPPED = Path(__file__).parent / "demo" / "recording.json.gz"
_SCHEMA = "langchain-automix/recording/1"
_KEY_FIELDS = ("model", "messages", "n", "temperature", "seed", "content")
# These count only where they are set: a library may send a default or leave it out.
_KEY_FIELDS_IF_SET = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "stream")
# These differ between two calls that are otherwise the same.
_UNREPEATABLE_FIELDS = ("timings", "system_fingerprint", "created", "id")
_LAST_EVENT = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Recording:
    """Recorded calls, and the settings of the run that made them."""

    about: Mapping[str, Any]
    """Settings of the recorded run, such as its seed."""

    calls: Mapping[str, list[dict[str, Any]]]
    """Calls by request key, in the order made, each with its `seconds` and its `response`.

    A streamed call has `events` instead of a `response`: pairs of arrival time and data.
    """

    @classmethod
    def read(cls, path: Path = SHIPPED) -> Recording:
        """Read a recording.

        Raises:
            AutoMixError: The file is missing or is not a recording.
        """
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                content = json.load(file)
            if content["schema"] != _SCHEMA:
                raise ValueError("it has another schema")  # noqa: TRY301
            return cls(about=content["about"], calls=content["calls"])
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise AutoMixError(f"{path} is not a recording of a demo run: {error}.") from error

    def write(self, path: Path) -> None:
        """Write the recording; a reader never sees half of it."""
        text = json.dumps({"schema": _SCHEMA, "about": self.about, "calls": self.calls})
        with atomic_replace(path) as unfinished:
            # No time stamp: the same calls make the same file.
            unfinished.write_bytes(gzip.compress(text.encode(), mtime=0))


class _Transport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport for sync and async clients alike; async ones wait in a thread."""

    @abstractmethod
    def handle_request(self, request: httpx.Request) -> httpx.Response: ...

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await asyncio.to_thread(self.handle_request, request)


class _EventStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a streamed response, for sync and async clients alike."""

    def __init__(self, chunks: Generator[bytes, None, None]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await asyncio.to_thread(next, self._chunks, b""):
            yield chunk

    def close(self) -> None:
        # A cancelled client may leave a thread waiting for a chunk; the generator then ends after.
        with contextlib.suppress(ValueError):
            self._chunks.close()

    async def aclose(self) -> None:
        self.close()


class Recorder(_Transport):
    """Passes requests on to the model servers, and keeps what they answer.

    For a request with several replies, llama.cpp's usage counts the tokens of one; passed on and
    kept is what all of them took, counted by its own tokenizer.
    """

    def __init__(self) -> None:
        self._network = httpx.HTTPTransport(trust_env=False)
        self._calls: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._lock = threading.Lock()

    def recording(self, about: Mapping[str, Any]) -> Recording:
        """Return what was recorded so far."""
        return Recording(about=about, calls=dict(self._calls))

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        start = time.perf_counter()
        body = json.loads(request.read())
        key = request_key(request.url.path, body)
        reply = self._network.handle_request(request)
        if body.get("stream") and reply.is_success:
            return _streamed(self._pass_on(reply, key, start))
        with contextlib.closing(reply):
            content = reply.read()
        if not reply.is_success:
            return httpx.Response(reply.status_code, content=content)
        response = _without_unrepeatable(json.loads(content))
        if len(response.get("choices", ())) > 1:
            _count_all_replies(response, self._token_counter(request, body["model"]))
        self._keep(key, start, {"response": response})
        return httpx.Response(200, json=response)

    def _pass_on(
        self, reply: httpx.Response, key: str, start: float
    ) -> Generator[bytes, None, None]:
        """Yield the events of a stream as they arrive; keep the stream once it is complete."""
        events: list[tuple[float, dict[str, Any]]] = []
        with contextlib.closing(reply):
            for line in reply.iter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    self._keep(key, start, {"events": events})
                    yield _LAST_EVENT
                    return
                event = _without_unrepeatable(json.loads(data))
                events.append((round(time.perf_counter() - start, 3), event))
                yield _encode_event(event)
        yield _encode_event({"error": {"message": "The model's server broke off its stream."}})

    def _token_counter(self, request: httpx.Request, model: str) -> Callable[[str], int]:
        headers = {"Authorization": request.headers["Authorization"]}
        client = httpx.Client(transport=self._network, headers=headers)
        base_url = str(request.url).removesuffix("/chat/completions")
        return lambda text: count_tokens(client, base_url, model, text)

    def _keep(self, key: str, start: float, call: dict[str, Any]) -> None:
        seconds = round(time.perf_counter() - start, 3)
        with self._lock:
            self._calls[key].append({"seconds": seconds, **call})


class Replay(_Transport):
    """Answers requests as they were answered before; those not recorded with a clear error.

    Args:
        recording: What to answer.
        pace: Share of the recorded pauses between streamed events to keep, from 0 to 1.
    """

    def __init__(self, recording: Recording, *, pace: float = 0.0) -> None:
        self._recording = recording
        self._pace = pace
        self._times_asked: dict[str, int] = defaultdict(int)
        self._seconds = 0.0
        self._lock = threading.Lock()

    def clock(self) -> float:
        """Return the seconds that the calls replayed so far took when they were recorded."""
        return self._seconds

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        key = request_key(request.url.path, json.loads(request.read()))
        calls = self._recording.calls.get(key)
        if not calls:
            message = "This request is not in the recording: it was made with other settings."
            error = {"message": message, "type": "not_recorded"}
            return httpx.Response(404, json={"error": error})
        with self._lock:
            call = calls[min(self._times_asked[key], len(calls) - 1)]
            self._times_asked[key] += 1
            self._seconds += call["seconds"]
        if "events" in call:
            return _streamed(self._replay_events(call["events"]))
        return httpx.Response(200, json=call["response"])

    def _replay_events(
        self, events: list[tuple[float, dict[str, Any]]]
    ) -> Generator[bytes, None, None]:
        previous = 0.0
        for arrival, event in events:
            time.sleep(self._pace * max(0.0, arrival - previous))
            previous = arrival
            yield _encode_event(event)
        yield _LAST_EVENT


def _streamed(chunks: Generator[bytes, None, None]) -> httpx.Response:
    headers = {"Content-Type": "text/event-stream"}
    return httpx.Response(200, headers=headers, stream=_EventStream(chunks))


def _encode_event(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


def _without_unrepeatable(response: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in response.items() if name not in _UNREPEATABLE_FIELDS}


def _count_all_replies(response: dict[str, Any], count: Callable[[str], int]) -> None:
    """Set the usage of a response to the tokens of all its replies, if the server counts tokens.

    The token that ends a reply is counted as llama.cpp does: where the reply ended by itself.
    """
    with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
        written = sum(
            count(choice["message"]["content"] or "") + (choice["finish_reason"] == "stop")
            for choice in response["choices"]
        )
        total = response["usage"]["prompt_tokens"] + written
        response["usage"] |= {"completion_tokens": written, "total_tokens": total}


def request_key(path: str, body: Mapping[str, Any]) -> str:
    """Return what a request is recorded under: a hash of the fields that shape its answer."""
    fields = {name: body[name] for name in _KEY_FIELDS if body.get(name) is not None}
    fields |= {name: body[name] for name in _KEY_FIELDS_IF_SET if body.get(name)}
    text = json.dumps([path, fields], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
