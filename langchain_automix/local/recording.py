"""Record the calls of a run, and serve them again: real answers without the models.

Both are loopback servers that models are pointed at, so a replayed run takes the same way
over HTTP as the one that was recorded.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import json
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_automix.errors import AutoMixError
from langchain_automix.local.server import count_tokens
from langchain_automix.utils.files import atomic_replace

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


SHIPPED = Path(__file__).parent / "demo" / "recording.json.gz"
_SCHEMA = "langchain-automix/recording/1"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# What makes two requests the same. Client libraries add other fields, which differ by version.
_TELLING = ("model", "messages", "n", "temperature", "seed", "content")
# These count only where they say something: a library may send a default or leave it out.
_TELLING_IF_SET = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "stream")
_OF_ONE_CALL = ("timings", "system_fingerprint", "created", "id")

_Events = Generator[dict[str, Any], None, None]
_Reply = dict[str, Any] | _Events


@dataclass(frozen=True)
class Recording:
    """Recorded calls, and what the run was that made them."""

    about: Mapping[str, Any]
    """Settings of the recorded run, such as its seed."""

    calls: Mapping[str, list[dict[str, Any]]]
    """Responses by request, in the order given, each with the `seconds` that it took.

    A streamed one has `events` instead of a `response`: for each, when it came and its data.
    """

    @classmethod
    def read(cls, path: Path = SHIPPED) -> Recording:
        """Read a recording.

        Raises:
            AutoMixError: The file is missing or is not a recording.
        """
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                found = json.load(file)
            if found["schema"] != _SCHEMA:
                raise ValueError("it has another schema")  # noqa: TRY301
            return cls(about=found["about"], calls=found["calls"])
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise AutoMixError(f"{path} is not a recording of a demo run: {error}.") from error

    def write(self, path: Path) -> None:
        """Write the recording; a reader never sees half of it."""
        text = json.dumps({"schema": _SCHEMA, "about": self.about, "calls": self.calls})
        with atomic_replace(path) as unfinished:
            # No time stamp: the same calls make the same file.
            unfinished.write_bytes(gzip.compress(text.encode(), mtime=0))


class _Loopback:
    """An HTTP server on 127.0.0.1 for the length of a `with` block, which answers POSTs."""

    def __init__(self) -> None:
        serve = self._respond

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                status, body = serve(self.path, json.loads(self.rfile.read(length)))
                if isinstance(body, dict):
                    self._send(status, body)
                else:
                    self._stream(body)

            def _send(self, status: int, body: dict[str, Any]) -> None:
                out = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(out)))
                self.end_headers()
                self.wfile.write(out)

            def _stream(self, events: _Events) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")  # which is where the stream ends
                self.end_headers()
                with contextlib.closing(events), contextlib.suppress(ConnectionError):
                    for event in events:
                        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                    self.wfile.write(b"data: [DONE]\n\n")

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._lock = threading.Lock()
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def _respond(self, path: str, body: dict[str, Any]) -> tuple[int, _Reply]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class Recorder(_Loopback):
    """Passes requests on to the server of the model that they name, and keeps the answers.

    Of a request with several replies, llama.cpp's usage counts the tokens of one; passed on and
    kept is what all of them took, counted by its own tokenizer.

    Args:
        upstream: Base URL and key of each model's server, by model name.
    """

    def __init__(self, upstream: Mapping[str, tuple[str, str]]) -> None:
        super().__init__()
        self._upstream = upstream
        self._calls: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def recording(self, about: Mapping[str, Any]) -> Recording:
        """Return what was recorded so far."""
        return Recording(about=about, calls=dict(self._calls))

    def _respond(self, path: str, body: dict[str, Any]) -> tuple[int, _Reply]:
        base_url, key = self._upstream[body["model"]]
        url = base_url.removesuffix("/v1") + path
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310
        start = time.perf_counter()
        try:
            reply = _OPENER.open(request)
            if body.get("stream"):
                return 200, self._passed_on(reply, request_key(path, body), start)
            with reply:
                response = json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, {"error": {"message": error.read().decode(errors="replace")}}
        except OSError as error:
            return 502, _no_answer(error)
        response = _lasting(response)
        if len(response.get("choices", ())) > 1:
            # A server without a tokenizer to ask is no llama.cpp: its word counts.
            with contextlib.suppress(OSError, ValueError, KeyError):
                response["usage"] = _usage_of_all(
                    response, lambda text: count_tokens(base_url, key, body["model"], text)
                )
        self._keep(request_key(path, body), start, {"response": response})
        return 200, response

    def _passed_on(self, reply: http.client.HTTPResponse, key: str, start: float) -> _Events:
        """Pass on the events of a stream as they come; a whole stream is kept."""
        events: list[tuple[float, dict[str, Any]]] = []
        with reply:
            try:
                for line in reply:
                    data = line.strip().removeprefix(b"data:").strip()
                    if data == line.strip():  # blank, or another field than data
                        continue
                    if data == b"[DONE]":
                        self._keep(key, start, {"events": events})
                        return
                    event = _lasting(json.loads(data))
                    events.append((round(time.perf_counter() - start, 3), event))
                    yield event
                yield _no_answer("its stream broke off")
            except (OSError, http.client.HTTPException, ValueError) as error:
                yield _no_answer(error)

    def _keep(self, key: str, start: float, call: dict[str, Any]) -> None:
        seconds = round(time.perf_counter() - start, 3)
        with self._lock:
            self._calls[key].append({"seconds": seconds, **call})


class Replay(_Loopback):
    """Answers recorded requests with what was recorded; others with an error that says so.

    Args:
        recording: What to answer.
        pace: Share of the recorded pauses between the events of a stream that is kept.
    """

    def __init__(self, recording: Recording, *, pace: float = 0.0) -> None:
        super().__init__()
        self._recording = recording
        self._pace = pace
        self._served: dict[str, int] = defaultdict(int)
        self._seconds = 0.0

    def clock(self) -> float:
        """Return the seconds that the answers served so far took when they were recorded."""
        return self._seconds

    def _respond(self, path: str, body: dict[str, Any]) -> tuple[int, _Reply]:
        key = request_key(path, body)
        answers = self._recording.calls.get(key)
        if not answers:
            message = "This request is not in the recording: it was made with other settings."
            return 404, {"error": {"message": message, "type": "not_recorded"}}
        with self._lock:
            answer = answers[min(self._served[key], len(answers) - 1)]
            self._served[key] += 1
            self._seconds += answer["seconds"]
        if "events" in answer:
            return 200, self._paced(answer["events"])
        return 200, answer["response"]

    def _paced(self, events: Iterable[tuple[float, dict[str, Any]]]) -> _Events:
        before = 0.0
        for at, event in events:
            time.sleep(self._pace * max(0.0, at - before))
            before = at
            yield event


def _lasting(response: dict[str, Any]) -> dict[str, Any]:
    """Return a response without what only that one call had."""
    return {name: value for name, value in response.items() if name not in _OF_ONE_CALL}


def _usage_of_all(response: Mapping[str, Any], count: Callable[[str], int]) -> dict[str, Any]:
    """Return the usage of a response with the tokens of all its replies.

    The token that ends a reply is counted as llama.cpp does it: where one ended by itself.
    """
    written = sum(
        count(choice["message"]["content"] or "") + (choice["finish_reason"] == "stop")
        for choice in response["choices"]
    )
    usage: dict[str, Any] = response["usage"]
    total = usage["prompt_tokens"] + written
    return {**usage, "completion_tokens": written, "total_tokens": total}


def _no_answer(reason: object) -> dict[str, Any]:
    return {"error": {"message": f"the model's server does not answer: {reason}"}}


def request_key(path: str, body: Mapping[str, Any]) -> str:
    """Return what a request is recorded under: a hash of the fields that shape its answer."""
    telling = {field: body[field] for field in _TELLING if body.get(field) is not None}
    telling |= {field: body[field] for field in _TELLING_IF_SET if body.get(field)}
    text = json.dumps([path, telling], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
