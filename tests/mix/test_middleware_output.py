"""What comes out of an agent with `AutoMixMiddleware`: streams, and structured responses."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ModelRequest,
    ModelResponse,
)
from langchain.agents.structured_output import (
    ProviderStrategy,
    StructuredOutputValidationError,
    ToolStrategy,
)
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage

from langchain_automix import (
    AutoMixMiddleware,
    ThresholdRouter,
)
from tests.support.builders.agents import (
    ASKED,
    Tools,
    Weather,
    agent,
    asked,
    by,
    form,
    middleware,
    records,
    said,
    shown,
    steps,
)
from tests.support.builders.scripted_replies import call
from tests.support.servers.openai_server import OpenAIServer


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
@pytest.mark.parametrize("wanted", [ToolStrategy(Weather), ProviderStrategy(Weather), Weather])
class TestStructured:
    async def test_what_fits_is_kept(
        self, server: OpenAIServer, tools: Tools, how: str, wanted: Any
    ) -> None:
        answer = form(wanted, city="Turku", degrees=3)
        server.script = steps([call("weather", city="Turku"), answer])
        state = await by(how, agent(server, tools, response_format=wanted))
        assert state["structured_response"] == Weather(city="Turku", degrees=3)
        assert asked(server) == ["small", "check", "small", "check"]
        assert [record["model"] for record in records(state)] == ["small", "small"]

    async def test_what_does_not_fit_is_rejected_for_free(
        self, server: OpenAIServer, tools: Tools, how: str, wanted: Any
    ) -> None:
        server.script = steps([form(wanted, city="Turku")], [form(wanted, city="Turku", degrees=4)])
        state = await by(how, agent(server, tools, response_format=wanted))
        assert state["structured_response"] == Weather(city="Turku", degrees=4)
        assert asked(server) == ["small", "large"]
        assert len(said(state)) == 1


class TestMisfits:
    @pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy])
    def test_a_json_schema_is_kept_to(self, server: OpenAIServer, strategy: Any) -> None:
        wanted = strategy(Weather.model_json_schema())
        server.script = steps(
            [form(wanted, city="Turku", degrees="cold")], [form(wanted, city="Turku", degrees=4)]
        )
        state = agent(server, None, response_format=wanted).invoke(ASKED)
        assert state["structured_response"] == {"city": "Turku", "degrees": 4}
        assert asked(server) == ["small", "large"]
        assert "degrees: not as its schema says (type: integer)" in records(state)[0]["why"]
        assert "cold" not in records(state)[0]["why"]

    @pytest.mark.parametrize(
        "wanted",
        [
            ToolStrategy(Weather),
            ToolStrategy(Weather, handle_errors=False),
            ProviderStrategy(Weather),
        ],
    )
    def test_the_reason_does_not_quote_what_is_rejected(
        self, server: OpenAIServer, wanted: Any
    ) -> None:
        bad, good = {"city": "Turku", "degrees": "Zebra"}, {"city": "Turku", "degrees": 4}
        server.script = steps([form(wanted, **bad)], [form(wanted, **good)])
        state = agent(server, None, response_format=wanted).invoke(ASKED)
        assert "Zebra" not in str(state["messages"])
        assert "degrees" in records(state)[0]["why"]

    @pytest.mark.parametrize("wanted", [ToolStrategy(Weather), ProviderStrategy(Weather)])
    def test_no_structured_response(self, server: OpenAIServer, wanted: Any) -> None:
        server.script = steps(["Rain."], [form(wanted, city="Turku", degrees=4)])
        state = agent(server, None, response_format=wanted).invoke(ASKED)
        assert asked(server) == ["small", "large"]
        assert state["structured_response"].degrees == 4

    @pytest.mark.parametrize(
        "wanted", [ToolStrategy(Weather, handle_errors=False), ProviderStrategy(Weather)]
    )
    def test_the_last_error_is_raised(self, server: OpenAIServer, wanted: Any) -> None:
        server.script = steps([form(wanted, city="Turku")], [form(wanted, city="Oulu")])
        with pytest.raises(StructuredOutputValidationError, match="Oulu|degrees"):
            agent(server, None, response_format=wanted).invoke(ASKED)
        assert asked(server) == ["small", "large"]

    def test_the_agent_may_ask_again(self, server: OpenAIServer) -> None:
        wanted = ToolStrategy(Weather)
        server.script = steps(
            [form(wanted, city="Turku")],
            [form(wanted, city="Turku"), form(wanted, city="Turku", degrees=5)],
        )
        state = agent(server, None, response_format=wanted).invoke(ASKED)
        assert state["structured_response"].degrees == 5
        assert asked(server) == ["small", "large", "small", "large"]

    def test_an_unchecked_draft_that_may_not_fit_is_not_shown(self, server: OpenAIServer) -> None:
        wanted = ProviderStrategy(Weather)
        fits = form(wanted, city="Turku", degrees=4)
        server.script = steps([form(wanted, city="Oulu")], [fits])
        mixed = agent(server, None, response_format=wanted, max_escalations=0)
        assert shown(mixed.stream(ASKED, stream_mode="messages")) == fits

    def test_a_providers_own_tool_is_known(self, server: OpenAIServer) -> None:
        own = {"type": "bash_20250124", "name": "bash"}
        message = AIMessage("", tool_calls=[{"name": "bash", "args": {"command": "ls"}, "id": "1"}])
        request: ModelRequest[Any] = ModelRequest(
            model=server.model("x"), messages=[HumanMessage("Hi")], tools=[own], tool_choice="any"
        )
        given: Any = middleware(server, verification=False).wrap_model_call(
            request, lambda _: ModelResponse(result=[message])
        )
        assert given.result[0].response_metadata["automix"]["model"] == "small"

    @pytest.mark.parametrize("choice", ["any", {"type": "function", "function": {"name": "bash"}}])
    def test_a_call_that_is_demanded(self, server: OpenAIServer, choice: Any) -> None:
        said = iter([AIMessage("No."), AIMessage("Neither.")])
        request: ModelRequest[Any] = ModelRequest(
            model=server.model("x"),
            messages=[HumanMessage("Hi")],
            tools=[{"type": "bash_20250124", "name": "bash"}],
            tool_choice=choice,
        )
        given: Any = middleware(server).wrap_model_call(request, lambda _: next(said))
        assert given.result[0].text == "Neither."
        assert server.requests == []


@pytest.mark.parametrize("settings", [{}, {"streaming": True}])
class TestStreams:
    def models(self, server: OpenAIServer, settings: dict[str, Any]) -> list[Any]:
        return [server.model("small", **settings), server.model("large", **settings)]

    def mixed(self, server: OpenAIServer, tools: Tools, settings: dict[str, Any]) -> Any:
        mix = AutoMixMiddleware(
            self.models(server, settings), router=ThresholdRouter(threshold=0.5)
        )
        return create_agent(server.model("x"), tools.all, middleware=[mix])

    async def messages(self, how: str, runnable: Any) -> list[Any]:
        if how == "stream":
            return list(runnable.stream(ASKED, stream_mode="messages"))
        return [each async for each in runnable.astream(ASKED, stream_mode="messages")]

    @pytest.mark.parametrize("how", ["stream", "astream"])
    async def test_an_accepted_answer_is_shown_once(
        self, server: OpenAIServer, tools: Tools, how: str, settings: dict[str, Any]
    ) -> None:
        server.script = steps([call("weather", city="Turku"), "Rain in Turku."])
        chunks = await self.messages(how, self.mixed(server, tools, settings))
        assert shown(chunks) == "Rain in Turku."
        called = [c for m, _ in chunks if isinstance(m, AIMessage) for c in m.tool_calls]
        assert [c["name"] for c in called] == ["weather"]

    @pytest.mark.parametrize("how", ["stream", "astream"])
    async def test_an_escalated_answer_comes_token_by_token(
        self, server: OpenAIServer, tools: Tools, how: str, settings: dict[str, Any]
    ) -> None:
        server.script = steps(["No idea at all."], ["Rain in Turku today."], verdicts="r")
        chunks = await self.messages(how, self.mixed(server, tools, settings))
        assert shown(chunks) == "Rain in Turku today."
        texts = [m.text for m, _ in chunks if isinstance(m, AIMessageChunk) and m.text]
        assert texts == ["Rain ", "in ", "Turku ", "today."]

    @pytest.mark.parametrize(("verdicts", "kept", "rejected"), [("a", 0, 1), ("r", 1, 0)])
    async def test_events(
        self,
        server: OpenAIServer,
        tools: Tools,
        settings: dict[str, Any],
        verdicts: str,
        kept: int,
        rejected: int,
    ) -> None:
        words: list[Any] = ["Small words.", "Large words."]
        server.script = steps(words[:1], words[1:], verdicts=verdicts)
        mixed = self.mixed(server, tools, settings)
        events = [event async for event in mixed.astream_events(ASKED, version="v2")]
        streamed = [e for e in events if e["event"] == "on_chat_model_stream"]
        assert "".join(e["data"]["chunk"].text for e in streamed) == words[kept]
        assert words[rejected] not in str(events)
        rendered = [event for event in events if event["event"].startswith("on_chat_model")]
        assert "Verification Decision" not in str(rendered)

    async def test_updates_and_values(
        self, server: OpenAIServer, tools: Tools, settings: dict[str, Any]
    ) -> None:
        server.script = steps(["A draft."], ["An answer."], verdicts="r")
        seen = list(
            self.mixed(server, tools, settings).stream(ASKED, stream_mode=["updates", "values"])
        )
        assert "A draft." not in str(seen)
        assert "automix" in str(seen[-1])

    def test_tokens_reach_no_handler_of_the_user(
        self, server: OpenAIServer, tools: Tools, settings: dict[str, Any]
    ) -> None:
        tokens: list[str] = []

        class Prints(BaseCallbackHandler):
            def on_llm_new_token(self, token: str, **kwargs: Any) -> None:  # type: ignore[override]
                tokens.append(token)

        server.script = steps(["A draft."], ["An answer."], verdicts="r")
        self.mixed(server, tools, settings).invoke(ASKED, {"callbacks": [Prints()]})
        assert "draft" not in "".join(tokens)
