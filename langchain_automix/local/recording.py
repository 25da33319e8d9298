"""Record the answers of local models, and replay them without the models.

Both are transports of a chat model's HTTP client: a replayed run sends and reads exactly what the
recorded run did, but no server runs and nothing leaves the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import threading
import time
import zlib
from abc import abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict, override

from langchain_automix.errors import AutoMixError, first_problem
from langchain_automix.local.server import count_tokens
from langchain_automix.utils.files import atomic_replace

SHIPPED = Path(__file__).parent / "demo" / "recording.json.gz"
_SCHEMA = "langchain-automix/recording/1"
_KEY_FIELDS = ("model", "messages", "n", "temperature", "seed", "content")
# These count only if they are set: a library may send a default or leave it out.
_KEY_FIELDS_IF_SET = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "stream")
# These differ between otherwise identical calls.
_UNREPEATABLE_FIELDS = ("timings", "system_fingerprint", "created", "id")
_LAST_EVENT = b"data: [DONE]\n\n"

_Content = bytes | Iterator[bytes]


_Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class _WholeCall(TypedDict):
    seconds: _Seconds
    response: dict[str, Any]


class _StreamedCall(TypedDict):
    seconds: _Seconds
    events: list[tuple[_Seconds, dict[str, Any]]]


class _File(TypedDict):
    schema: Literal["langchain-automix/recording/1"]
    about: dict[str, Any]
    calls: dict[str, list[_WholeCall | _StreamedCall]]


_FILE: TypeAdapter[_File] = TypeAdapter(_File)
_LONGEST = 2**28
"""In characters."""


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
                text = file.read(_LONGEST)
            if len(text) == _LONGEST:
                raise ValueError("it is too long")  # noqa: TRY301
            content = _FILE.validate_python(json.loads(text))
            calls: Mapping[str, list[Any]] = content["calls"]
            return cls(about=content["about"], calls=calls)
        except ValidationError as error:
            raise AutoMixError(
                f"{path} is not a recording of a demo run: {first_problem(error)}"
            ) from error
        except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
            raise AutoMixError(f"{path} is not a recording of a demo run: {error}.") from error

    def write(self, path: Path) -> None:
        """Write the recording; a reader never sees half of it."""
        text = json.dumps({"schema": _SCHEMA, "about": self.about, "calls": self.calls})
        with atomic_replace(path) as unfinished:
            # No time stamp: the same calls make the same file.
            unfinished.write_bytes(gzip.compress(text.encode(), mtime=0))


class _Transport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers requests itself, those of async clients in a thread."""

    @abstractmethod
    def _respond(self, request: httpx.Request) -> tuple[int, _Content]:
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


def _headers(content: _Content) -> dict[str, str]:
    is_whole = isinstance(content, bytes)
    return {"Content-Type": "application/json" if is_whole else "text/event-stream"}


async def _in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


class Recorder(_Transport):
    """Passes requests on to the model servers, and keeps their answers.

    For a request with several replies, llama.cpp's usage counts the tokens of one; it is replaced
    by the tokens of all, counted by its own tokenizer.
    """

    def __init__(self) -> None:
        self._network = httpx.HTTPTransport(trust_env=False)
        self._calls: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._lock = threading.Lock()

    def recording(self, about: Mapping[str, Any]) -> Recording:
        """Return what was recorded so far."""
        return Recording(about=about, calls=dict(self._calls))

    @override
    def close(self) -> None:
        self._network.close()

    @override
    def _respond(self, request: httpx.Request) -> tuple[int, _Content]:
        start = time.perf_counter()
        body = json.loads(request.read())
        key = request_key(request.url.path, body)
        reply = self._network.handle_request(request)
        if body.get("stream") and reply.is_success:
            return 200, self._pass_on(reply, key, start)
        with contextlib.closing(reply):
            content = reply.read()
        if not reply.is_success:
            return reply.status_code, content
        response = _without_unrepeatable(json.loads(content))
        if len(response.get("choices", ())) > 1:
            self._count_all_replies(response, request)
        self._keep(key, start, {"response": response})
        return 200, json.dumps(response).encode()

    def _pass_on(self, reply: httpx.Response, key: str, start: float) -> Iterator[bytes]:
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

    def _count_all_replies(self, response: dict[str, Any], request: httpx.Request) -> None:
        """Set the usage to the tokens of all replies, if the server counts tokens.

        The token that ends a reply is counted as llama.cpp does: where the reply ended by itself.
        """
        client = httpx.Client(transport=self._network)
        client.headers["Authorization"] = request.headers["Authorization"]
        base_url = str(request.url).removesuffix("/chat/completions")
        written = 0
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
            for choice in response["choices"]:
                text = choice["message"]["content"] or ""
                written += count_tokens(client, base_url, response["model"], text)
                written += choice["finish_reason"] == "stop"
            total = response["usage"]["prompt_tokens"] + written
            response["usage"] |= {"completion_tokens": written, "total_tokens": total}

    def _keep(self, key: str, start: float, call: dict[str, Any]) -> None:
        seconds = round(time.perf_counter() - start, 3)
        with self._lock:
            self._calls[key].append({"seconds": seconds, **call})


class Replay(_Transport):
    """Answers requests as recorded; answers others with a clear error.

    Args:
        recording: The recorded answers.
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
    def _respond(self, request: httpx.Request) -> tuple[int, _Content]:
        key = request_key(request.url.path, json.loads(request.read()))
        calls = self._recording.calls.get(key)
        if not calls:
            message = "This request is not in the recording: it was made with other settings."
            error = {"error": {"message": message, "type": "not_recorded"}}
            return 404, json.dumps(error).encode()
        with self._lock:
            call = calls[min(self._times_asked[key], len(calls) - 1)]
            self._times_asked[key] += 1
            self._seconds += call["seconds"]
        if "events" in call:
            return 200, self._replay_events(call["events"])
        return 200, json.dumps(call["response"]).encode()

    def _replay_events(self, events: Sequence[tuple[float, dict[str, Any]]]) -> Iterator[bytes]:
        previous = 0.0
        for arrival, event in events:
            time.sleep(self._pace * max(0.0, arrival - previous))
            previous = arrival
            yield _encode_event(event)
        yield _LAST_EVENT


def _encode_event(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


def _without_unrepeatable(response: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in response.items() if name not in _UNREPEATABLE_FIELDS}


def request_key(path: str, body: Mapping[str, Any]) -> str:
    """Return the key of a recorded request: a hash of the fields that shape its answer."""
    fields = {name: body[name] for name in _KEY_FIELDS if body.get(name) is not None}
    fields |= {name: body[name] for name in _KEY_FIELDS_IF_SET if body.get(name)}
    text = json.dumps([path, fields], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
