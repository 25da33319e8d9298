"""What every test gets: no key, no tracing, nothing kept from the test before."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from langsmith import tracing_context

from langchain_automix.routers import pomdp
from tests.openai_server import OpenAIServer


@pytest.fixture(autouse=True)
def hermetic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "LANGSMITH_", "LANGCHAIN_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    pomdp._say_uncalibrated.cache_clear()
    with tracing_context(enabled=False):
        yield


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running
