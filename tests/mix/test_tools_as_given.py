"""Tools go to each model as the user gave them, by every door, and are bound once."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent
from pydantic import BaseModel, SecretStr

from langchain_automix import (
    AutoMixMiddleware,
    AutoMixRunnable,
    ChatAutoMix,
    SelfVerifier,
)
from tests.support.builders.mixes import ACCEPTS, REJECTS, ROUTER, record_of, weather
from tests.support.builders.obedient_replies import obliging
from tests.support.builders.scripted_replies import call
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.gemini_server import GeminiServer
from tests.support.servers.openai_server import OpenAIServer

EPHEMERAL = {"type": "ephemeral"}
LOOK: dict[str, Any] = {
    "name": "look",
    "description": "Looks a city up.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    "cache_control": EPHEMERAL,
}


@tool(extras={"cache_control": EPHEMERAL, "defer_loading": True})
def find(city: str) -> str:
    """Find a city."""
    return f"{city} is in Finland."


class City(BaseModel):
    """A city."""

    name: str


@pytest.fixture
def other() -> Iterator[AnthropicServer]:
    with AnthropicServer() as running:
        running.script = obliging()
        yield running


def _runnable(models: list[Any], tools: list[Any], **fields: Any) -> Any:
    return AutoMixRunnable(models=models, router=ROUTER, **fields).bind_tools(tools).invoke("Go.")


def _chat_model(models: list[Any], tools: list[Any], **fields: Any) -> Any:
    return ChatAutoMix(models=models, router=ROUTER, **fields).bind_tools(tools).invoke("Go.")


def _agent(models: list[Any], tools: list[Any], **fields: Any) -> Any:
    mix = ChatAutoMix(models=models, router=ROUTER, **fields)
    return create_agent(mix, tools).invoke({"messages": [HumanMessage("Go.")]})["messages"][1]


def _middleware(models: list[Any], tools: list[Any], **fields: Any) -> Any:
    mix = AutoMixMiddleware(models=models, router=ROUTER, **fields)
    agent: Any = create_agent(models[-1], tools, middleware=[mix])
    return agent.invoke({"messages": [HumanMessage("Go.")]})["messages"][1]


DOORS = pytest.mark.parametrize("door", [_runnable, _chat_model, _agent, _middleware])
Door = Callable[..., Any]


class TestLossless:
    @DOORS
    @pytest.mark.parametrize("given", [LOOK, find], ids=["dict", "extras"])
    def test_what_only_one_provider_knows_is_kept(
        self, other: AnthropicServer, door: Door, given: Any
    ) -> None:
        """langchain PR 35969."""
        models = [other.model("small"), other.model("large")]
        if given is LOOK:  # an agent has no function for it, so it does not call it
            other.script = lambda body: ["Done."]
        door(models, [given], verifier=REJECTS)
        for body in other.requests[:2]:
            [sent] = body["tools"]
            assert sent["cache_control"] == EPHEMERAL
            assert sent.get("defer_loading", given is LOOK) is True

    @DOORS
    def test_and_kept_from_the_others(
        self, server: OpenAIServer, other: AnthropicServer, door: Door
    ) -> None:
        server.script = lambda body: ["Done."]
        other.script = lambda body: ["Done."]
        shown = {
            "type": "function",
            "function": {"name": "look", "parameters": LOOK["input_schema"]},
            "cache_control": EPHEMERAL,
        }
        door([server.model("small"), other.model("large")], [shown, LOOK], verifier=REJECTS)
        assert "cache_control" not in str(server.requests[0]["tools"])
        assert other.requests[0]["tools"][1]["cache_control"] == EPHEMERAL

    @pytest.mark.parametrize("door", [_runnable, _chat_model, _agent])
    def test_a_tool_without_a_name(self, door: Door) -> None:
        """Gemini's own: `{"google_search": {}}`."""
        pytest.importorskip("langchain_google_genai", reason="asks by Gemini's own client")
        with GeminiServer() as gemini:
            gemini.script = lambda body: ["Done."]
            models = [gemini.model("small"), gemini.model("large")]
            message = door(models, [{"google_search": {}}, weather], verifier=ACCEPTS)
            assert message.text == "Done."
            [asked] = gemini.requests
        found = {name for each in asked["tools"] for name in each}
        assert found == {"googleSearch", "functionDeclarations"}

    @pytest.mark.parametrize("door", [_runnable, _chat_model, _agent])
    def test_a_check_reads_the_same_tools_from_the_cache(
        self, other: AnthropicServer, door: Door
    ) -> None:
        models = [other.model("small"), other.model("large")]
        door(models, [find], verifier=SelfVerifier(samples=1, layout="conversation"))
        asked, check = other.requests[:2]
        assert check["tools"] == asked["tools"]

    def test_several_in_one(self) -> None:
        """Gemini's own form; the names in it are known."""
        pytest.importorskip("langchain_google_genai", reason="asks by Gemini's own client")
        parameters = LOOK["input_schema"]
        declared = [
            {"name": name, "description": "Looks.", "parameters": parameters}
            for name in ("look", "pay")
        ]
        with GeminiServer() as gemini:
            gemini.script = lambda body: [call("pay" if body["model"] == "small" else "look")]
            models = [gemini.model("small"), gemini.model("large")]
            tools: list[Any] = [{"function_declarations": declared}]
            message = _chat_model(models, tools, verifier=ACCEPTS)
        assert [each["name"] for each in message.tool_calls] == ["pay"]


class Counting(ChatOpenAI):
    """Counts how often it is given tools."""

    bound: list[Any] = []  # noqa: RUF012  (a pydantic field)

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        self.bound.append(tools)
        return super().bind_tools(tools, **kwargs)


class TestOnce:
    def models(self, server: OpenAIServer) -> tuple[list[Any], list[Any]]:
        counted: list[Any] = []
        made = [
            Counting(model=name, base_url=server.base_url, api_key=SecretStr("test"), max_retries=0)
            for name in ("small", "large")
        ]
        for model in made:
            model.bound = counted
        return made, counted

    def test_by_every_call(self, server: OpenAIServer) -> None:
        models, counted = self.models(server)
        server.script = obliging("Done.")
        bound = ChatAutoMix(models=models, router=ROUTER, verifier=REJECTS).bind_tools([weather])
        for _ in range(3):
            bound.invoke("Go.")
        list(bound.stream("Go."))
        bound.batch(["Go.", "Go."])
        assert len(counted) == 2, "each model once"

    def test_by_every_step_of_an_agent(self, server: OpenAIServer) -> None:
        models, counted = self.models(server)
        server.script = obliging("Done.")
        mix = ChatAutoMix(models=models, router=ROUTER, verifier=REJECTS)
        agent: Any = create_agent(mix, [weather, find])
        for _ in range(2):
            agent.invoke({"messages": [HumanMessage("Go.")]})
        assert len(counted) == 2

    def test_but_again_after_a_change(self, server: OpenAIServer) -> None:
        models, counted = self.models(server)
        server.script = lambda body: ["Done."]
        mix = ChatAutoMix(models=models, router=ROUTER, verifier=ACCEPTS)
        given: Any = find.model_copy()
        shown = {"type": "function", "function": {"name": "look", "description": "First."}}
        for described in ("First.", "Second."):
            given.description = shown["function"]["description"] = described  # type: ignore[index]
            for each in (given, shown):
                mix.bind_tools([each]).invoke("Go.")
                [sent] = server.requests[-1]["tools"]
                assert sent["function"]["description"] == described
        assert len(counted) == 8
        mix.force_model = "large"
        mix.bind_tools([given]).invoke("Go.")
        assert server.requests[-1]["model"] == "large"

    def test_by_name_of_a_model_and_with_settings(self, server: OpenAIServer) -> None:
        models, _ = self.models(server)
        server.script = lambda body: ["Done."]
        mix = ChatAutoMix(models=models, router=ROUTER, verifier=ACCEPTS)
        bound = mix.bind_tools([weather], tool_choice="auto", parallel_tool_calls=False)
        bound.invoke("Go.", max_tokens=5, model="large")
        sent = server.requests[-1]
        assert (sent["model"], sent["max_completion_tokens"]) == ("large", 5)
        assert (sent["tool_choice"], sent["parallel_tool_calls"]) == ("auto", False)

    def test_goes_to_other_processes(self, server: OpenAIServer) -> None:
        @tool
        def local(city: str) -> str:
            """Look."""
            return city

        server.script = obliging()
        models = [server.model("small"), server.model("large")]
        bound: Any = ChatAutoMix(models=models, router=ROUTER).bind_tools([local])
        shown = pickle.loads(pickle.dumps(bound.kwargs["tools"]))
        assert shown == bound.kwargs["tools"]
        assert shown[0]["function"]["name"] == "local"


class TestInAgents:
    @pytest.mark.parametrize("verifier", [ACCEPTS, REJECTS], ids=["kept", "escalated"])
    def test_a_providers_own_structured_output(
        self, server: OpenAIServer, verifier: Runnable[Any, Any]
    ) -> None:
        server.script = obliging()
        models = [server.model("small"), server.model("large")]
        mix = ChatAutoMix(models=models, router=ROUTER, verifier=verifier)
        agent: Any = create_agent(mix, tools=[weather], response_format=ProviderStrategy(City))
        found = agent.invoke({"messages": [HumanMessage("Where is 'Turku'?")]})
        assert found["structured_response"] == City(name="Turku")
        assert server.requests[0]["tools"][0]["function"]["strict"] is True
        assert server.requests[0]["response_format"]["type"] == "json_schema"

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_an_agent_that_finds_its_tools_bound(self, server: OpenAIServer) -> None:
        server.script = obliging("Done.")
        models = [server.model("small"), server.model("large")]
        mix = ChatAutoMix(models=models, router=ROUTER, verifier=ACCEPTS)
        agent = create_react_agent(mix.bind_tools([weather]), [weather])
        last: AIMessage = agent.invoke({"messages": [HumanMessage("Go.")]})["messages"][-1]
        assert last.text == "Done."
        assert len(server.requests[0]["tools"]) == 1


class TestWritten:
    """A call that is written as text is no answer, as long as another model can be asked."""

    TEXT = '{"name": "weather", "arguments": {"city": "Turku"}}'

    @DOORS
    def test_the_next_model_is_asked(self, server: OpenAIServer, door: Door) -> None:
        server.script = lambda body: [
            self.TEXT
            if body["model"] == "small"
            else call("weather", city="Turku")
            if body["messages"][-1]["role"] == "user"
            else "Sun."
        ]
        models = [server.model("small"), server.model("large")]
        message = door(models, [weather], verifier=ACCEPTS)
        assert [each["name"] for each in message.tool_calls] == ["weather"]
        assert "writes a call of 'weather' as text" in record_of(message)["why"]

    @DOORS
    def test_the_last_models_is_given_as_it_is(self, server: OpenAIServer, door: Door) -> None:
        server.script = lambda body: [self.TEXT]
        models = [server.model("small"), server.model("large")]
        message = door(models, [weather], verifier=ACCEPTS)
        assert message.text == self.TEXT

    def test_without_the_tool_it_is_an_answer(self, server: OpenAIServer) -> None:
        server.script = lambda body: [self.TEXT]
        models = [server.model("small"), server.model("large")]
        plain = AutoMixRunnable(models=models, router=ROUTER, verifier=ACCEPTS)
        for asked in (plain, plain.bind_tools([find])):
            assert not record_of(asked.invoke("Write a call."))["escalated"]


@DOORS
@pytest.mark.parametrize("made", [call("zebra"), {**call("zebra"), "broken": True}], ids=str)
def test_a_rejected_calls_made_up_name_is_shown_nowhere(
    server: OpenAIServer, door: Door, made: dict[str, Any]
) -> None:
    if made.pop("broken", False):
        made["tool_calls"][0]["function"]["arguments"] = "{"
    server.script = lambda body: [made if body["model"] == "small" else "Sun."]
    message = door([server.model("small"), server.model("large")], [weather], verifier=ACCEPTS)
    assert message.text == "Sun."
    assert "zebra" not in str(message)
    assert "tool" in record_of(message)["why"]


def test_models_of_one_kind_take_its_settings(other: AnthropicServer) -> None:
    other.script = lambda body: ["Done."]
    models: list[ChatAnthropic] = [other.model("small"), other.model("large")]
    mix = ChatAutoMix(models=list(models), router=ROUTER, verifier=ACCEPTS)
    mix.bind_tools([weather], cache_control=EPHEMERAL).invoke("Go.")
    assert other.requests[0]["cache_control"] == EPHEMERAL
