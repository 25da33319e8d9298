"""A server, a store's URL, and learners that end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import Learning
from tests.support.builders.learning_mixes import Make
from tests.support.servers.openai_server import OpenAIServer


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/automix.db"


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    made: list[Learning] = []

    def make(store: str = url, **settings: Any) -> Learning:
        made.append(Learning(store, **settings))
        return made[-1]

    yield make
    for learning in made:
        learning.close(2)
