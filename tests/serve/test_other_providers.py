"""A mix whose models are not all of OpenAI's protocol: what is passed on, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from langchain_automix import ChatAutoMix, ThresholdRouter
from tests.support.builders.mixes import REJECTS
from tests.support.builders.scripted_replies import call
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, Served, chunks_of, served, text_of


@pytest.fixture
def anthropic() -> Iterator[AnthropicServer]:
    with AnthropicServer() as provider:
        yield provider


@pytest.fixture
def running(server: OpenAIServer, anthropic: AnthropicServer) -> Iterator[Served]:
    """A mix whose small model speaks OpenAI's protocol, and whose large one speaks Anthropic's."""
    models: list[Any] = [server.model("small"), anthropic.model("large")]
    mix = ChatAutoMix(models=models, verifier=REJECTS, router=ThresholdRouter(threshold=0.5))
    with served({MIX: mix}) as app:
        yield app


@pytest.mark.parametrize("stream", [False, True])
def test_settings_go_to_each_under_its_own_name(
    running: Served, server: OpenAIServer, anthropic: AnthropicServer, stream: bool
) -> None:
    settings: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 77,
        "stop": "END",
    }
    response = running.chat(stream=stream, user="u1", metadata={"a": "b"}, **settings)
    assert text_of(response) == "a large answer"
    [small], [large] = server.requests, anthropic.requests
    assert (small["temperature"], small["max_completion_tokens"]) == (0.5, 77)
    assert (large["temperature"], large["max_tokens"]) == (0.5, 77)
    assert large["stop_sequences"] == ["END"]
    assert large["top_p"] == small["top_p"] == 0.9


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty", "seed"])
def test_what_one_of_them_does_not_take_is_refused(
    running: Served, server: OpenAIServer, name: str
) -> None:
    given: dict[str, Any] = {name: 1}
    response = running.chat(**given)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")
    assert "large" in error["message"]
    assert server.requests == []  # nothing was paid


@pytest.mark.parametrize("stream", [False, True])
def test_tools_go_to_both(
    running: Served, server: OpenAIServer, anthropic: AnthropicServer, stream: bool
) -> None:
    server.script = anthropic.script = lambda body: [call("weather", city="Turku")]
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    response = running.chat(stream=stream, tools=[tool], tool_choice="required")
    if stream:
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(response)]
        parts = [part for delta in deltas for part in delta.get("tool_calls") or ()]
        assert {part["index"] for part in parts} == {0}
        made = "".join(part["function"]["arguments"] for part in parts)
    else:
        [found] = response.json()["choices"][0]["message"]["tool_calls"]
        made = found["function"]["arguments"]
    assert json.loads(made) == {"city": "Turku"}
    assert server.requests[0]["tool_choice"] == "required"
    assert anthropic.requests[0]["tool_choice"] == {"type": "any"}
