"""Bytes that no client of good will sends: each gets a clear answer or a closed connection."""

from __future__ import annotations

import gzip
import json
import re
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.builders.waiting import LONG
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, Served

PATH = "/v1/chat/completions"
GOOD = {"model": MIX, "messages": [{"role": "user", "content": "Who?"}]}
GOOD_BYTES = json.dumps(GOOD).encode()
quickly = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def exchange(running: Served, *sent: bytes, leaves: bool = False) -> bytes:
    """Send bytes, and return all that comes until the server closes the connection."""
    address = "127.0.0.1", int(running.root_url.rpartition(":")[2])
    with socket.create_connection(address, LONG) as connection:
        for part in sent:
            connection.sendall(part)
        if leaves:
            connection.shutdown(socket.SHUT_WR)
        try:
            return b"".join(iter(lambda: connection.recv(65_536), b""))
        except ConnectionResetError:
            return b""


def request(body: bytes, path: str = PATH, *, last: bool = True, **headers: str) -> bytes:
    given = {
        "Host": "127.0.0.1",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    given |= {"Connection": "close"} if last else {}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def status_of(raw: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", raw)
    assert found, raw[:200]
    return int(found[1])


def error_of(raw: bytes) -> dict[str, Any]:
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"application/json" in head
    error: dict[str, Any] = json.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


def check_lives(running: Served) -> None:
    assert status_of(exchange(running, request(GOOD_BYTES))) == 200


BODIES: dict[str, tuple[bytes, set[int]]] = {
    "NaN": (GOOD_BYTES[:-1] + b', "temperature": NaN}', {400}),
    "infinity": (GOOD_BYTES[:-1] + b', "temperature": 1e999}', {400}),
    "infinity in a tool": (
        GOOD_BYTES[:-1]
        + b', "tools": [{"type": "function", "function": {"name": "f", "parameters": '
        + b'{"properties": {"a": {"maximum": -1e999}}}}}]}',
        {400},
    ),
    "usage of no stream": (
        GOOD_BYTES[:-1] + b', "stream_options": {"include_usage": true}}',
        {400},
    ),
    "huge integer": (GOOD_BYTES[:-1] + b', "seed": ' + b"9" * 4_000 + b"}", {400}),
    "longer integer": (GOOD_BYTES[:-1] + b', "seed": ' + b"9" * 50_000 + b"}", {400}),
    "deep nesting": (GOOD_BYTES[:-1] + b', "metadata": ' + b"[" * 50_000 + b"}", {400}),
    "deep and whole": (b"[" * 900 + b"]" * 900, {400}),
    "deep tool": (
        GOOD_BYTES[:-1]
        + b', "tools": [{"type": "function", "function": {"name": "f", "parameters": '
        + b'{"a":' * 900
        + b"1"
        + b"}" * 900
        + b"}}]}",
        {200, 400},
    ),
    "lone surrogate": (GOOD_BYTES.replace(b"Who?", b"\\ud800"), {400}),
    "surrogate as bytes": (GOOD_BYTES.replace(b"Who?", b"\xed\xa0\x80"), {400}),
    "pair of surrogates": (GOOD_BYTES.replace(b"Who?", b"\\ud83d\\ude00"), {200}),
    "surrogate as a key": (GOOD_BYTES[:-1] + b', "\\udc00": 1}', {400}),
    "null character": (GOOD_BYTES.replace(b"Who?", b"\\u0000"), {200, 400}),
    "duplicate keys": (GOOD_BYTES[:-1] + b', "model": "nowhere"}', {400, 404}),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD_BYTES, {200, 400}),
    "UTF-16": (json.dumps(GOOD).encode("utf-16"), {400}),
    "two values": (GOOD_BYTES + GOOD_BYTES, {400}),
    "a comment": (GOOD_BYTES + b" // asked", {400}),
    "nothing": (b"", {400}),
    "a form": (b"model=mix&messages=hello", {400}),
    "zipped": (gzip.compress(GOOD_BYTES), {400, 415}),
    "half a body of JSON": (GOOD_BYTES[:30], {400}),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(running: Served, name: str) -> None:
    body, allowed = BODIES[name]
    raw = exchange(running, request(body))
    assert status_of(raw) in allowed, raw[:1_000]
    if status_of(raw) != 200:
        assert error_of(raw)["type"] == "invalid_request_error"
    check_lives(running)


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "x"],
)
def test_content_types(running: Served, kind: str) -> None:
    raw = exchange(running, request(GOOD_BYTES, Content_Type=kind))
    assert status_of(raw) in {200, 400, 415}, raw[:1_000]
    if status_of(raw) != 200:
        error_of(raw)


def test_a_body_that_says_that_it_is_zipped(running: Served, provider: OpenAIServer) -> None:
    zipped = gzip.compress(GOOD_BYTES)
    raw = exchange(running, request(zipped, Content_Encoding="gzip"))
    assert status_of(raw) in {400, 415}
    assert error_of(raw)
    assert provider.requests == []


def test_a_body_in_chunks(running: Served) -> None:
    head = request(b"", Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"")
    halves = GOOD_BYTES[:20], GOOD_BYTES[20:]
    chunks = [b"%x\r\n%s\r\n" % (len(half), half) for half in halves]
    assert status_of(exchange(running, head, *chunks, b"0\r\n\r\n")) == 200
    assert status_of(exchange(running, head, b"zz\r\n")) == 400
    check_lives(running)


def test_requests_one_behind_the_other(running: Served) -> None:
    several = request(GOOD_BYTES, last=False) * 2 + request(b"{", last=False) + request(GOOD_BYTES)
    raw = exchange(running, several)
    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", raw) == [b"200", b"200", b"400", b"200"]


@pytest.mark.parametrize("length", [0, 1, 10, 60, 150, -1])
def test_half_a_request(running: Served, provider: OpenAIServer, length: int) -> None:
    exchange(running, request(GOOD_BYTES)[:length], leaves=True)
    assert provider.requests == []  # nothing was begun
    check_lives(running)


@quickly
@given(st.binary(max_size=200))
@example(b"GET / HTTP/9.9\r\n\r\n")
@example(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n")
@example(b"POST /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999999\r\n\r\n")
@example(b"POST /%ff%00 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
@example(b"GET /v1/models/%2e%2e%2f%00 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
def test_any_bytes(running: Served, raw: bytes) -> None:
    found = exchange(running, raw + b"\r\n\r\n", leaves=True)
    assert not found or status_of(found) < 500


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = [
    *("model", "messages", "stream", "stream_options", "tools", "tool_choice", "response_format"),
    *("max_tokens", "temperature", "stop", "n", "logit_bias", "metadata", "parallel_tool_calls"),
]


@quickly
@given(st.dictionaries(st.sampled_from(FIELDS), values, max_size=4), st.booleans())
def test_any_json(running: Served, fields: dict[str, Any], is_beside: bool) -> None:
    body = json.dumps({**GOOD, **fields} if is_beside else fields).encode()
    raw = exchange(running, request(body))
    assert status_of(raw) < 500, (fields, raw[:1_000])
    if status_of(raw) != 200:
        error_of(raw)
