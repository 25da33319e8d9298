"""A rejected draft is in no byte that leaves the server, whatever is asked and whatever fails."""

from __future__ import annotations

import itertools
import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langchain_automix import LogProbabilityVerifier, SelfVerifier, ThresholdRouter
from langchain_automix.serve.settings import ServeSettings
from tests.serve.test_completions import SCHEMA, TOOL
from tests.support.builders.mixes import REJECTED, REJECTS
from tests.support.builders.scripted_replies import Body, Cut, Error, call
from tests.support.builders.waiting import LONG
from tests.support.servers.loopback import tokens
from tests.support.servers.openai_server import OpenAIServer, is_check, token
from tests.support.servers.serve_process import serve_process
from tests.support.servers.serving import Served, chat_mix, served

MARK = "Zebra"
"""Stands in every part of the small model's drafts, and in all that quotes them."""

EVENTS = "/v1/events"
"""Where the events of the live page are; they never end."""

FORMAT = {"type": "json_schema", "json_schema": {"name": "built", "schema": SCHEMA}}
MIXES: dict[str, dict[str, Any]] = {
    "self-check": {"verifier": SelfVerifier(samples=2)},
    "strict-check": {"verifier": SelfVerifier(samples=2), "on_verification_error": "raise"},
    "free": {"verifier": REJECTS},
    "early": {
        "verifier": LogProbabilityVerifier(statistic="min"),
        "router": ThresholdRouter(threshold=0.5),
        "give_up_early": True,
    },
    "hedged": {"verifier": REJECTS, "hedge": 0.0, "max_latency": LONG},
    "retried": {"verifier": REJECTS, "retries_if_unusable": 1},
}

quoting = {"error": {"message": f"Filtered: the {MARK}", "code": "content_filter"}}


def unsure(text: str, **fields: Any) -> dict[str, Any]:
    """A draft with a word of which the model was not sure."""
    logprobs = [token(word, 0.1 if MARK in word else 0.9) for word in tokens(text)]
    return {"content": text, "logprobs": logprobs, **fields}


DRAFTS: dict[str, Any] = {
    "text": [unsure(f"The {MARK} built it, not so long ago.")],
    "refusal": [{"content": None, "refusal": f"I am a {MARK}."}],
    "tool": [call("weather", town=MARK)],
    "unknown tool": [call(MARK, city="Turku")],
    "arguments that are no JSON": [
        {
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": MARK}}
            ],
        }
    ],
    "text and tool": [{**call("weather", town=MARK), **unsure(f"{MARK} first.")}],
    "JSON": [unsure(json.dumps({"year": MARK}))],
    "out of tokens": [unsure(MARK, finish_reason="length")],
    "cut": Cut(unsure(f"{MARK} {MARK} {MARK}"), after=1),
    "cut politely": Cut(unsure(f"{MARK} {MARK}"), after=1, politely=True),
    "fails in its own words": Error(500, quoting),
}
ANSWERS: dict[str, Any] = {
    "kept": None,  # what fits the request
    "cut": Cut("one two three", after=2),
    "cut at once": Cut("one two three", after=0),
    "fails": Error(500),
    "refuses": Error(400, {"error": {"message": "Too long.", "code": "context_length_exceeded"}}),
    "no quota": Error(429),
}
CHECKS: dict[str, Any] = {
    "rejects": REJECTED.replace("Zebra", MARK),
    "fails": Error(500, quoting),
    "refuses": Error(400, quoting),
    "illegible": f"The {MARK} again.",
}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tools": {"tools": [TOOL]},
    "a tool": {"tools": [TOOL], "tool_choice": "required"},
    "schema": {"response_format": FORMAT},
    "JSON": {"response_format": {"type": "json_object"}},
    "both": {"tools": [TOOL], "response_format": FORMAT},
}
STREAMS: dict[str, dict[str, Any]] = {
    "whole": {},
    "streamed": {"stream": True},
    "with usage": {"stream": True, "stream_options": {"include_usage": True}},
}


def kept(body: Body) -> list[Any]:
    """What fits a request."""
    if body.get("response_format"):
        return ['{"year": 1931}']
    return [call("weather", city="Turku")] if body.get("tools") else ["By a yard in Turku."]


def script_of(draft: str, answer: str, check: str) -> Any:
    def script(body: Body) -> Any:
        if is_check(body):
            found = CHECKS[check]
            return found if isinstance(found, Error) else [found] * (body.get("n") or 1)
        if body["model"] == "small":
            return DRAFTS[draft]
        return kept(body) if ANSWERS[answer] is None else ANSWERS[answer]

    return script


ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "Who? Answer in JSON if so."}]}


def exchange(address: tuple[str, int], method: str, path: str, body: Any = None) -> bytes:
    """Every byte that a server sends to one request, until it closes the connection."""
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection(address, LONG) as connection:
        connection.sendall(head.encode() + content)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text in a JSON value, by its path."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield f"{path} key", key
            yield from texts(each, f"{path}.{key}")
    elif isinstance(value, list):
        for each in value:
            yield from texts(each, path)
    elif isinstance(value, str):
        yield path, value


def readings(raw: bytes) -> Iterator[str]:
    """Yield all ways to read a response in which a draft might stand, in pieces or escaped."""
    yield raw.decode("latin-1")
    yield unquote_to_bytes(raw).decode("latin-1")
    _, _, body = raw.partition(b"\r\n\r\n")
    body = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", b"\r\n" + body)  # of the chunks
    joined: dict[str, str] = {}
    for line in body.decode("utf-8", "replace").splitlines():
        data = line.removeprefix("data: ")
        if data.startswith("{"):
            for path, text in texts(json.loads(data)):
                joined[path] = joined.get(path, "") + text
    yield from joined.values()


def test_the_readings_find_what_is_in_pieces() -> None:
    """The test of the test: a marker over two events, and one that is escaped."""
    events = b"\r\n\r\n" + b"".join(
        b"10\r\ndata: " + json.dumps({"delta": {"content": part}}).encode() + b"\n\n\r\n"
        for part in ("Ze", "bra")
    )
    assert MARK.encode() not in events
    assert any(MARK in text for text in readings(events))
    assert any(MARK in text for text in readings(b"x-automix-why: %5Aebra\r\n\r\n"))


@pytest.fixture(scope="module")
def everything(shared_provider: OpenAIServer) -> Iterator[Served]:
    mixes = {name: chat_mix(shared_provider, **fields) for name, fields in MIXES.items()}
    with served(mixes, ServeSettings(show_texts=True)) as running:
        yield running


def address_of(running: Served) -> tuple[str, int]:
    return "127.0.0.1", int(running.root_url.rpartition(":")[2])


def ask(running: Served, mix: str, shape: str, stream: str) -> bytes:
    body = {"model": mix, **ASKED, **SHAPES[shape], **STREAMS[stream]}
    return exchange(address_of(running), "POST", "/v1/chat/completions", body)


def check_bytes(running: Served, raw: bytes, told: str) -> None:
    found = [text for text in readings(raw) if MARK in text]
    assert not found, found
    assert MARK not in told
    assert raw.startswith(b"HTTP/1.1 ")


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(
    mix=st.sampled_from(list(MIXES)),
    shape=st.sampled_from(list(SHAPES)),
    stream=st.sampled_from(list(STREAMS)),
    draft=st.sampled_from(list(DRAFTS)),
    answer=st.sampled_from(list(ANSWERS)),
    check=st.sampled_from(list(CHECKS)),
)
def test_in_no_byte(
    everything: Served,
    shared_provider: OpenAIServer,
    caplog: pytest.LogCaptureFixture,
    mix: str,
    shape: str,
    stream: str,
    draft: str,
    answer: str,
    check: str,
) -> None:
    shared_provider.script = script_of(draft, answer, check)
    caplog.clear()
    everything.queries.clear()
    with caplog.at_level(logging.DEBUG, "langchain_automix"):
        raw = ask(everything, mix, shape, stream)
        everything.state.observers.flush()
    check_bytes(everything, raw, caplog.text + repr(everything.queries))
    if (answer, check) == ("kept", "rejects"):
        assert raw.startswith(b"HTTP/1.1 200 ")  # by the large model


def test_in_no_byte_of_anything_else(everything: Served, shared_provider: OpenAIServer) -> None:
    shared_provider.script = script_of("text", "kept", "rejects")
    for mix in MIXES:
        check_bytes(everything, ask(everything, mix, "plain", "whole"), "")
    everything.state.observers.flush()
    paths = [getattr(route, "path", "") for route in everything.app.routes]
    assert "/v1/models" in paths
    assert "/metrics" in paths
    for path in {*paths, "/v1/models/free", "/v1/models/nothing", "/nothing"}:
        for method in ("GET", "HEAD", "PUT"):
            if (method, path) == ("GET", EVENTS):
                continue
            check_bytes(everything, exchange(address_of(everything), method, path), "")


def test_in_no_event(everything: Served, shared_provider: OpenAIServer) -> None:
    shared_provider.script = script_of("text", "kept", "rejects")
    for mix in MIXES:
        check_bytes(everything, ask(everything, mix, "plain", "whole"), "")
    everything.state.observers.flush()
    head = f"GET {EVENTS}?last={len(MIXES)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    raw = b""
    with socket.create_connection(address_of(everything), LONG) as connection:
        connection.sendall(head.encode())
        while raw.count(b"event: query") < len(MIXES) or not raw.endswith(b"\n\n\r\n"):
            part = connection.recv(65_536)
            assert part
            raw += part
    check_bytes(everything, raw, "")


def test_in_no_line_of_the_process(server: OpenAIServer, tmp_path: Path) -> None:
    config = tmp_path / "mixes.toml"
    table = (
        '[mixes.mix]\nmodels = ["openai:small", "openai:large"]\ncheck = "few-shot"\nsamples = 2\n'
    )
    config.write_text(table)
    with serve_process(server, tmp_path / "log", config) as process:
        # Only what OpenAI's client does not ask again after a while.
        drafts = [name for name in DRAFTS if not name.startswith(("cut", "fails"))]
        ways = itertools.product(drafts, ("kept", "refuses"), ("rejects", "refuses"))
        for (draft, answer, check), stream in zip(ways, itertools.cycle(STREAMS)):
            server.script = script_of(draft, answer, check)
            body = {"model": "mix", **ASKED, **SHAPES["tools"], **STREAMS[stream]}
            raw = exchange(process.address, "POST", "/v1/chat/completions", body)
            assert not [text for text in readings(raw) if MARK in text]
        assert process.stop() == 0
    assert MARK not in process.log.read_text()
