"""One app for the tests of a file, as each app takes half a second to start and stop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.builders.mixes import ACCEPTS
from tests.support.builders.waiting import Gate
from tests.support.servers.openai_server import OpenAIServer, answering
from tests.support.servers.serving import Served, served_mix


@pytest.fixture(scope="module")
def shared_provider() -> Iterator[OpenAIServer]:
    with OpenAIServer() as provider:
        yield provider


@pytest.fixture(scope="module")
def shared_app(shared_provider: OpenAIServer) -> Iterator[Served]:
    with served_mix(shared_provider, verifier=ACCEPTS) as running:
        yield running


@pytest.fixture
def provider(shared_provider: OpenAIServer) -> OpenAIServer:
    """The provider of `asked`, of which nothing was asked yet."""
    shared_provider.requests.clear()
    shared_provider.billed.clear()
    shared_provider.script = answering("a small answer", "a large answer")
    return shared_provider


@pytest.fixture
def running(shared_app: Served, provider: OpenAIServer) -> Served:
    """An app with one mix, whose check accepts every draft, and which was told of no query yet."""
    shared_app.state.observers.flush()
    shared_app.queries.clear()
    return shared_app


@pytest.fixture
def gate(server: OpenAIServer) -> Iterator[Gate]:
    """Holds every request to the provider until it is opened."""
    gate = Gate()
    server.delay = gate
    yield gate
    gate.open()
