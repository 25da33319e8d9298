"""An app of `langchain_automix.serve` on 127.0.0.1, for clients over real HTTP."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from langchain_automix import ChatAutoMix, ThresholdRouter
from langchain_automix.serve.app import create_app
from langchain_automix.serve.observing import Observer, ServedQuery
from langchain_automix.serve.settings import ServeSettings
from langchain_automix.serve.state import ServeState
from tests.support.builders.waiting import LONG, wait_for
from tests.support.servers.openai_server import OpenAIServer

MIX = "mix"
"""The name of the mix that `served_mix` serves."""

PRICES = {"small": {"input": 1.0, "output": 2.0}, "large": {"input": 10.0, "output": 20.0}}


@dataclass
class Served:
    """An app that is served, and what its observers were told."""

    base_url: str
    """With `/v1`, as OpenAI's clients take it."""

    app: FastAPI
    queries: list[ServedQuery]
    server: uvicorn.Server

    @property
    def root_url(self) -> str:
        return self.base_url.removesuffix("/v1")

    @property
    def state(self) -> ServeState:
        state: ServeState = self.app.state.automix
        return state

    def told(self, number: int = 1) -> list[ServedQuery]:
        """Wait until the observers were told of so many queries."""
        wait_for(lambda: len(self.queries) >= number)
        return self.queries

    def client(self, key: str | None = None, **settings: Any) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        given = {"timeout": LONG, "trust_env": False, "headers": headers, **settings}
        return httpx.Client(base_url=self.root_url, **given)

    def chat(self, question: str = "Who built it?", **body: Any) -> httpx.Response:
        asked = {"model": MIX, "messages": [{"role": "user", "content": question}], **body}
        with self.client() as client:
            return client.post("/v1/chat/completions", json=asked)


@contextlib.contextmanager
def serving(app: FastAPI, **config: Any) -> Iterator[uvicorn.Server]:
    """Serve an app by uvicorn in a thread, on a free port of 127.0.0.1."""
    given = {"host": "127.0.0.1", "port": 0, "log_level": "error", "access_log": False, **config}
    server = uvicorn.Server(uvicorn.Config(app, **given))
    thread = threading.Thread(target=server.run, name="served", daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        assert server.started, "the app did not start"
        yield server
    finally:
        server.should_exit = True
        thread.join(LONG)


def address(server: uvicorn.Server) -> str:
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"http://127.0.0.1:{port}/v1"


@contextlib.contextmanager
def served(
    mixes: Mapping[str, Any],
    settings: ServeSettings | None = None,
    observers: Sequence[Observer] = (),
) -> Iterator[Served]:
    """Serve mixes, by name."""
    queries: list[ServedQuery] = []
    app = create_app(mixes, settings, observers=[queries.append, *observers])
    with serving(app) as server:
        try:
            yield Served(address(server), app, queries, server)
        finally:
            app.state.automix.is_draining = True  # as a signal does: streams of events end


def chat_mix(provider: OpenAIServer, **fields: Any) -> ChatAutoMix:
    """A mix of two models of a loopback provider, whose prices are known."""
    given = {"router": ThresholdRouter(threshold=0.5), "prices": PRICES, **fields}
    # langchain-openai shares one asynchronous client among all models of an address, even those in
    # another app's event loop, which cannot use its connections.
    models = [
        provider.model(
            name, stream_usage=True, http_async_client=httpx.AsyncClient(trust_env=False)
        )
        for name in ("small", "large")
    ]
    return ChatAutoMix(models=models, **given)


@contextlib.contextmanager
def served_mix(
    provider: OpenAIServer, settings: ServeSettings | None = None, **fields: Any
) -> Iterator[Served]:
    """Serve one mix of a loopback provider, as `mix`."""
    with served({MIX: chat_mix(provider, **fields)}, settings) as running:
        yield running


def events(response: httpx.Response) -> list[str]:
    """The data of a stream's events."""
    lines = response.text.split("\n\n")
    assert all(line.startswith("data: ") for line in lines if line), lines
    return [line.removeprefix("data: ") for line in lines if line]


@dataclass
class ServerEvent:
    """One of the events at `/v1/events`."""

    name: str
    data: Any
    id: str | None = None


def live_events(response: httpx.Response) -> Iterator[ServerEvent]:
    """The events of a stream, as they come; comments are events of the name `comment`."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line.startswith(":"):
            yield ServerEvent("comment", line)
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield ServerEvent(fields["event"], json.loads(fields["data"]), fields.get("id"))
            fields = {}


@contextlib.contextmanager
def watching(
    running: Served, key: str | None = None, **headers: str
) -> Iterator[Iterator[ServerEvent]]:
    """Watch the events of an app, those before among them."""
    with (
        running.client(key) as client,
        client.stream("GET", "/v1/events?last=1000", headers=headers) as response,
    ):
        assert response.status_code == 200, response.read()
        yield live_events(response)


def next_of(events: Iterator[ServerEvent], name: str) -> ServerEvent:
    """The next event of a name."""
    return next(event for event in events if event.name == name)


def chunks_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a stream that has come to its end."""
    *chunks, last = events(response)
    assert last == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def text_of(response: httpx.Response) -> str:
    """The text of an answer, whole or streamed."""
    if not response.headers["content-type"].startswith("text/event-stream"):
        return str(response.json()["choices"][0]["message"]["content"])
    deltas = [choice["delta"] for chunk in chunks_of(response) for choice in chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)
