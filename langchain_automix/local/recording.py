"""Record the answers of local models, and replay them without the models.

Both are transports of a chat model's HTTP client. A replayed run sends and reads exactly what the
recorded run did, but no server runs and nothing leaves the process.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import threading
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import httpx
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict, override

from langchain_automix.errors import AutoMixError, first_problem
from langchain_automix.local.server import count_tokens
from langchain_automix.local.transport import Content, Transport, read_events
from langchain_automix.utils.files import atomic_replace

SHIPPED = Path(__file__).parent / "demo" / "recording.json.gz"
_SCHEMA = "langchain-automix/recording/1"
_KEY_FIELDS = ("model", "messages", "n", "temperature", "seed", "content")
# These count only if set, since a library may send a default or leave it out.
_KEY_FIELDS_IF_SET = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "stream")
# These differ even between identical calls.
_UNREPEATABLE_FIELDS = ("timings", "system_fingerprint", "created", "id")
_LAST_EVENT = b"data: [DONE]\n\n"

_Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class _WholeCall(TypedDict):
    seconds: _Seconds
    response: dict[str, Any]
    pool: NotRequired[str]
    """For a call with several replies: the `pool_key` of all requests that it can serve."""


class _StreamedCall(TypedDict):
    seconds: _Seconds
    events: list[tuple[_Seconds, dict[str, Any]]]


class _File(TypedDict):
    schema: Literal["langchain-automix/recording/1"]
    about: dict[str, Any]
    calls: dict[str, list[_WholeCall | _StreamedCall]]


_FILE: TypeAdapter[_File] = TypeAdapter(_File)
NOT_RECORDED = "This request is not in the recording: it was made with other settings."
_LONGEST = 2**28
"""Maximum length of a recording, in characters."""


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
        """Write the recording; a reader never sees a partial file."""
        text = json.dumps({"schema": _SCHEMA, "about": self.about, "calls": self.calls})
        with atomic_replace(path) as unfinished:
            # Omit the time stamp, so that the same calls make the same file.
            unfinished.write_bytes(gzip.compress(text.encode(), mtime=0))


class Recorder(Transport):
    """Passes requests on to the model servers, and records their answers.

    For a request with several replies, llama.cpp's usage covers the tokens of only one. It is
    replaced by the tokens of all replies, counted by llama.cpp's own tokenizer, unless the network
    below has counted them.

    Log-probabilities are kept for the written tokens, to four decimals; alternatives are kept only
    if a request asks for them (`top_logprobs`).

    Args:
        network: Carries requests to the servers; None opens one.
        journal: A file to which every finished call is appended at once. Calls that an earlier run
            left there are not repeated, so an interrupted run resumes where it stopped.

    Raises:
        AutoMixError: The journal cannot be read or written.
    """

    def __init__(
        self, network: httpx.BaseTransport | None = None, journal: Path | None = None
    ) -> None:
        self._network = network or httpx.HTTPTransport(trust_env=False)
        self._calls: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._lock = threading.Lock()
        self._journal = journal
        self._earlier = {} if journal is None else _read_journal(journal)

    def recording(self, about: Mapping[str, Any]) -> Recording:
        """Return everything recorded so far."""
        return Recording(about=about, calls=dict(self._calls))

    @override
    def close(self) -> None:
        self._network.close()

    @override
    def _respond(self, request: httpx.Request) -> tuple[int, Content]:
        start = time.perf_counter()
        body = json.loads(request.read())
        key = request_key(request.url.path, body)
        with self._lock:
            earlier = self._earlier[key].popleft() if self._earlier.get(key) else None
            if earlier is not None:
                self._calls[key].append(earlier)
        if earlier is not None:
            return 200, _replay_call(earlier)
        reply = self._network.handle_request(request)
        if body.get("stream") and reply.is_success:
            return 200, self._pass_on(reply, key, start)
        with contextlib.closing(reply):
            content = reply.read()
        if not reply.is_success:
            return reply.status_code, content
        response = _without_unrepeatable(json.loads(content))
        choices = response.get("choices", ())
        if len(choices) > 1 and not any(choice.get("tokens") for choice in choices):
            self._count_all_replies(response, request)
        _drop_alternatives(response, body)
        pool = {"pool": pool_key(request.url.path, body)} if len(choices) > 1 else {}
        self._keep(key, start, {**pool, "response": response})
        return 200, json.dumps(response).encode()

    def _pass_on(self, reply: httpx.Response, key: str, start: float) -> Iterator[bytes]:
        """Yield the events of a stream as they arrive; record the stream once it is complete."""
        events: list[tuple[float, dict[str, Any]]] = []
        with contextlib.closing(reply):
            for data in read_events(reply):
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

        Like llama.cpp, it counts the token that ends a reply, if the reply ended by itself.
        """
        client = httpx.Client(transport=self._network)
        client.headers["Authorization"] = request.headers["Authorization"]
        base_url = str(request.url).removesuffix("/chat/completions")
        written = 0
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
            for choice in response["choices"]:
                text = choice["message"]["content"] or ""
                tokens = count_tokens(client, base_url, response["model"], text)
                choice["tokens"] = tokens + (choice["finish_reason"] == "stop")
                written += choice["tokens"]
            total = response["usage"]["prompt_tokens"] + written
            response["usage"] |= {"completion_tokens": written, "total_tokens": total}

    def _keep(self, key: str, start: float, call: dict[str, Any]) -> None:
        kept = {"seconds": round(time.perf_counter() - start, 3), **call}
        with self._lock:
            self._calls[key].append(kept)
            if self._journal is not None:
                with self._journal.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, kept]) + "\n")


class Replay(Transport):
    """Answers recorded requests; answers any other with a clear error.

    A request for fewer replies than were recorded together gets the first of them, and the next
    such request gets the following ones, since samples of one model with the same settings are
    interchangeable.

    Args:
        recording: The recorded answers.
        pace: Share of the recorded pauses between streamed events to keep, from 0 to 1.
    """

    def __init__(self, recording: Recording, *, pace: float = 0.0) -> None:
        self._recording = recording
        self._pace = pace
        self._times_asked: dict[str, int] = defaultdict(int)
        self._drawn: dict[str, int] = defaultdict(int)
        self._pools: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for calls in recording.calls.values():
            for call in calls:
                if "pool" in call:
                    self._pools[call["pool"]].append(call)
        self._seconds = 0.0
        self._lock = threading.Lock()

    def clock(self) -> float:
        """Return how many seconds the calls replayed so far took when they were recorded."""
        return self._seconds

    def find(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the recorded call that answers a request, or None if it was not recorded."""
        key = request_key(path, body)
        with self._lock:
            call: dict[str, Any] | None
            if calls := self._recording.calls.get(key):
                call = calls[min(self._times_asked[key], len(calls) - 1)]
                self._times_asked[key] += 1
            else:
                call = self._draw(pool_key(path, body), body.get("n") or 1)
            if call is not None:
                self._seconds += call["seconds"]
            return call

    def _draw(self, pool: str, count: int) -> dict[str, Any] | None:
        """Return the next replies of a larger recorded call; only the first draw takes its time."""
        start = self._drawn[pool]
        for call in self._pools.get(pool, ()):
            choices = call["response"]["choices"]
            taken = choices[start : start + count]
            if len(taken) == count and all("tokens" in choice for choice in taken):
                self._drawn[pool] += count
                written = sum(choice["tokens"] for choice in taken)
                usage = {**call["response"]["usage"], "completion_tokens": written}
                usage["total_tokens"] = usage["prompt_tokens"] + written
                renumbered = [{**choice, "index": i} for i, choice in enumerate(taken)]
                response = {**call["response"], "choices": renumbered, "usage": usage}
                return {"seconds": 0.0 if start else call["seconds"], "response": response}
        return None

    @override
    def _respond(self, request: httpx.Request) -> tuple[int, Content]:
        call = self.find(request.url.path, json.loads(request.read()))
        if call is None:
            error = {"error": {"message": NOT_RECORDED, "type": "not_recorded"}}
            return 404, json.dumps(error).encode()
        return 200, _replay_call(call, self._pace)


def _replay_call(call: Mapping[str, Any], pace: float = 0.0) -> Content:
    if "events" in call:
        return _replay_events(call["events"], pace)
    return json.dumps(call["response"]).encode()


def _replay_events(events: Sequence[tuple[float, dict[str, Any]]], pace: float) -> Iterator[bytes]:
    previous = 0.0
    for arrival, event in events:
        time.sleep(pace * max(0.0, arrival - previous))
        previous = arrival
        yield _encode_event(event)
    yield _LAST_EVENT


def _encode_event(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


def _without_unrepeatable(response: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in response.items() if name not in _UNREPEATABLE_FIELDS}


def _drop_alternatives(response: dict[str, Any], request: Mapping[str, Any]) -> None:
    """Keep only the requested log-probabilities; llama.cpp sends twenty alternatives per token."""
    count = request.get("top_logprobs") or 0
    for choice in response.get("choices", ()):
        for token in (choice.get("logprobs") or {}).get("content") or ():
            token.pop("id", None)
            token["logprob"] = round(token["logprob"], 4)
            token["top_logprobs"] = (token.get("top_logprobs") or [])[:count]


def _read_journal(path: Path) -> dict[str, deque[dict[str, Any]]]:
    earlier: dict[str, deque[dict[str, Any]]] = defaultdict(deque)
    try:
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        for line in lines:
            # A run that was killed may have left an incomplete line at the end.
            with contextlib.suppress(json.JSONDecodeError):
                key, call = json.loads(line)
                earlier[key].append(call)
    except (OSError, ValueError, TypeError) as error:
        raise AutoMixError(f"{path} is not the journal of a recording: {error}.") from error
    return earlier


def pool_key(path: str, body: Mapping[str, Any]) -> str:
    """Return the key shared by requests to the same model that differ only in number of replies."""
    return request_key(path, {name: body[name] for name in body if name not in {"n", "seed"}})


def request_key(path: str, body: Mapping[str, Any]) -> str:
    """Return the key of a recorded request: a hash of the fields that shape its answer."""
    fields = {name: body[name] for name in _KEY_FIELDS if body.get(name) is not None}
    fields |= {name: body[name] for name in _KEY_FIELDS_IF_SET if body.get(name)}
    text = json.dumps([path, fields], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
