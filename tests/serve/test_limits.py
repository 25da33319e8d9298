"""How much may be asked at once, for how long, and by whom; a client that goes away."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI

from langchain_automix.serve.app import create_app
from langchain_automix.serve.settings import ServeSettings
from tests.support.builders.mixes import ACCEPTS, REJECTS
from tests.support.builders.waiting import Gate, wait_for
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, address, chat_mix, served_mix, serving

ASKED = {"model": MIX, "messages": [{"role": "user", "content": "Who?"}]}


def test_a_body_that_is_too_large(server: OpenAIServer) -> None:
    settings = ServeSettings(max_body_bytes=1_000)
    large = b'{"model": "' + b"x" * 2_000 + b'"}'

    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield large

    with served_mix(server, settings, verifier=ACCEPTS) as running:
        headers = {"Content-Type": "application/json"}
        for content in (large, pieces()):
            with running.client(headers=headers) as client:
                response = client.post("/v1/chat/completions", content=content)
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "request_too_large"
        assert running.chat().status_code == 200
    assert len(server.requests) == 1


def test_a_body_that_does_not_come(server: OpenAIServer) -> None:
    with served_mix(server, ServeSettings(timeout=0.05), verifier=ACCEPTS) as running:
        client = http.client.HTTPConnection("127.0.0.1", int(running.root_url.rpartition(":")[2]))
        client.putrequest("POST", "/v1/chat/completions")
        client.putheader("Content-Type", "application/json")
        client.putheader("Content-Length", "100")
        client.endheaders(b"{")
        response = client.getresponse()
        assert response.status == 408
        assert json.loads(response.read())["error"]["code"] == "request_timeout"
        client.close()


def test_one_query_too_many(server: OpenAIServer, gate: Gate) -> None:
    settings = ServeSettings(max_concurrent=1)
    with served_mix(server, settings, verifier=ACCEPTS) as running, ThreadPoolExecutor() as pool:
        first = pool.submit(running.chat)
        wait_for(lambda: server.requests)
        refused = running.chat()
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "overloaded"
        assert refused.headers["retry-after"] == "1"
        gate.open()
        assert first.result().status_code == 200
        assert running.chat().status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_query_that_takes_too_long(server: OpenAIServer, gate: Gate, stream: bool) -> None:
    with served_mix(server, ServeSettings(timeout=0.05), verifier=ACCEPTS) as running:
        response = running.chat(stream=stream)
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "timeout"
        [query] = running.told()
        assert (query.outcome, query.status) == ("failed", 504)
        assert running.state.slots.taken == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_its_query(
    server: OpenAIServer, gate: Gate, stream: bool
) -> None:
    with served_mix(server, verifier=REJECTS) as running:
        client = http.client.HTTPConnection("127.0.0.1", int(running.root_url.rpartition(":")[2]))
        body = json.dumps({**ASKED, "stream": stream})
        headers = {"Content-Type": "application/json"}
        client.request("POST", "/v1/chat/completions", body, headers)
        wait_for(lambda: server.requests)
        client.close()
        [query] = running.told()
        assert (query.outcome, query.status, query.model) == ("cancelled", 499, None)
        assert running.state.slots.taken == 0
    assert len(server.requests) == 1  # the large model was not asked


def test_a_client_that_leaves_a_stream_half_way(server: OpenAIServer) -> None:
    held = Gate(lambda body: body["model"] == "large")
    server.token_delay = held
    try:
        with served_mix(server, verifier=REJECTS) as running, running.client() as client:
            asked = {**ASKED, "stream": True}
            with client.stream("POST", "/v1/chat/completions", json=asked) as response:
                assert next(response.iter_lines()).startswith("data: ")
            [query] = running.told()
            assert query.outcome == "cancelled"
    finally:
        held.open()


def test_scripts_of_web_pages_may_ask_only_where_they_are_named(server: OpenAIServer) -> None:
    page = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    with served_mix(server) as running, running.client() as client:
        plain = client.options("/v1/chat/completions", headers=page)
        listed = client.get("/v1/models", headers=page)
    assert plain.status_code == 405
    assert not [name for name in (*plain.headers, *listed.headers) if "access-control" in name]
    settings = ServeSettings(cors_origins=("https://app.example.com",))
    with served_mix(server, settings) as running, running.client() as client:
        named = client.options("/v1/chat/completions", headers=page)
        other = client.get("/v1/models", headers={"Origin": "https://evil.example.com"})
    assert named.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "access-control-allow-origin" not in other.headers


def test_a_server_that_is_about_to_stop_is_not_ready(server: OpenAIServer) -> None:
    with served_mix(server, verifier=ACCEPTS) as running, running.client() as client:
        assert client.get("/readyz").json() == {"status": "ok"}
        running.state.is_draining = True
        stopping = client.get("/readyz")
        assert (stopping.status_code, stopping.json()) == (503, {"status": "draining"})
        assert client.get("/healthz").status_code == 200
        assert running.chat().status_code == 200  # what comes is answered to the end


def test_an_app_within_another_one(server: OpenAIServer) -> None:
    outer = FastAPI()
    outer.mount("/llm", create_app({MIX: chat_mix(server, verifier=ACCEPTS)}))
    with serving(outer) as running, httpx.Client(trust_env=False) as client:
        root = address(running).removesuffix("/v1")
        assert client.get(f"{root}/llm/readyz").status_code == 200
        answer = client.post(f"{root}/llm/v1/chat/completions", json=ASKED)
        missing = client.post(f"{root}/llm/v1/chat/completions", json={**ASKED, "model": "x"})
    assert answer.json()["choices"][0]["message"]["content"] == "a small answer"
    assert missing.json()["error"]["code"] == "model_not_found"
