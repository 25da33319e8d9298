"""Tools with the mix over real HTTP: a tool call is an answer, checked for free first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_automix import AutoMixRunnable, Decision, RoutingState, ThresholdRouter
from tests.support.builders.faults import WAYS, ask
from tests.support.builders.mixes import DRAFT, mix, pay, record_of, weather
from tests.support.builders.scripted_replies import ACCEPT, Body, Reply, call, calls
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.openai_server import OpenAIServer, answering, is_check
from tests.support.servers.responses_server import ResponsesServer

TURKU = call("weather", city="Turku")
LARGE = call("weather", city="Turku, Finland")


def answers(small: Reply, large: Reply = LARGE, verdicts: str = "a") -> Any:
    return answering(small, large, verdicts=verdicts)  # type: ignore[arg-type]


def broken(arguments: str, name: str = "weather") -> dict[str, Any]:
    made = call(name)
    made["tool_calls"][0]["function"]["arguments"] = arguments
    return made


@pytest.fixture
def other() -> Iterator[AnthropicServer]:
    with AnthropicServer() as running:
        yield running


class TestTwoProviders:
    def both(self, server: OpenAIServer, other: AnthropicServer) -> AutoMixRunnable:
        found = AutoMixRunnable.from_models(
            server.model("small"), other.model("large"), router=ThresholdRouter()
        )
        return found.bind_tools([weather, pay])

    def test_each_gets_its_own_format(self, server: OpenAIServer, other: AnthropicServer) -> None:
        server.script = answers(TURKU, verdicts="r")
        other.script = answers(TURKU, LARGE)
        message = self.both(server, other).invoke("Weather?")
        assert message.tool_calls[0]["args"] == {"city": "Turku, Finland"}
        [asked, check] = server.requests
        assert [tool["function"]["name"] for tool in asked["tools"]] == ["weather", "pay"]
        assert "tools" not in check
        [sent] = other.requests
        assert [tool["name"] for tool in sent["tools"]] == ["weather", "pay"]
        assert all("input_schema" in tool for tool in sent["tools"])

    async def test_a_turn_later(self, server: OpenAIServer, other: AnthropicServer) -> None:
        server.script = answers("Sun.", verdicts="r")
        other.script = answers("Sun.", "Sun, and warm.")
        first = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "T"}, "id": "c1"}])
        history = [HumanMessage("Weather?"), first, ToolMessage("Sun in T.", tool_call_id="c1")]
        message = await self.both(server, other).ainvoke(history)
        assert message.text == "Sun, and warm."
        assert server.requests[0]["messages"][-1]["role"] == "tool"
        assert other.requests[0]["messages"][-1]["content"][0]["type"] == "tool_result"
        assert "Sun in T." in server.checks[0]["messages"][-1]["content"]


class TestAnswers:
    def test_the_check_sees_the_call_and_the_tools(self, server: OpenAIServer) -> None:
        server.script = answers(TURKU)
        message = mix(server).bind_tools([weather]).invoke("Weather?")
        assert message.tool_calls[0]["name"] == "weather"
        read = server.checks[0]["messages"][-1]["content"]
        assert "[calls weather with" in read
        assert "Say what the weather is like." in read

    @pytest.mark.parametrize("how", ["invoke", "ainvoke", "batch", "abatch"])
    async def test_parallel_calls(self, server: OpenAIServer, how: str) -> None:
        server.script = answers(calls(TURKU, call("pay", amount=3)))
        asked = mix(server).bind_tools([weather, pay], parallel_tool_calls=True)
        if how in ("invoke", "batch"):
            message = asked.invoke("Do.") if how == "invoke" else asked.batch(["Do."])[0]
        else:
            message = (
                await asked.ainvoke("Do.") if how == "ainvoke" else (await asked.abatch(["Do."]))[0]
            )
        assert [made["name"] for made in message.tool_calls] == ["weather", "pay"]
        assert server.requests[0]["parallel_tool_calls"] is True

    @pytest.mark.parametrize(
        ("draft", "why"),
        [
            (broken('{"city": "Tur'), "not JSON"),
            (broken('{"town": "Turku"}'), "do not fit"),
            (broken('{"city": 3}'), "do not fit"),
            (broken("{}", name="whether"), "no known tool"),
            (calls(TURKU, broken('{"amount": "much"}', name="pay")), "do not fit"),
        ],
    )
    def test_what_cannot_be_called_escalates_unchecked(
        self, server: OpenAIServer, draft: Reply, why: str
    ) -> None:
        server.script = answers(draft)
        message = mix(server).bind_tools([weather, pay]).invoke("Do.")
        assert message.tool_calls[0]["args"] == {"city": "Turku, Finland"}
        assert [body["model"] for body in server.requests] == ["small", "large"]
        assert why in record_of(message)["why"]

    def test_the_last_model_is_kept_as_it_is(self, server: OpenAIServer) -> None:
        server.script = answers(broken("{"), broken("{"))
        message = mix(server).bind_tools([weather]).invoke("Do.")
        assert message.invalid_tool_calls[0]["name"] == "weather"
        assert [body["model"] for body in server.requests] == ["small", "large"]

    @pytest.mark.parametrize("retries", [0, 1])
    @pytest.mark.parametrize("check", ["r", "fails"])
    @pytest.mark.parametrize("way", WAYS)
    async def test_what_was_not_kept_does_not_come_back(
        self, server: OpenAIServer, way: str, check: str, retries: int
    ) -> None:
        """The yardstick is what the large model alone would give."""
        script = answers(calls(call("weather", city=DRAFT)), broken("Turku"), verdicts="r")
        server.script = lambda body: 500 if is_check(body) and check == "fails" else script(body)
        made = mix(server, retries_if_unusable=retries).bind_tools([weather])
        message = await ask(way, made)
        alone = await ask(way, server.model("large").bind_tools([weather]))
        assert DRAFT not in str(message)
        assert message.content == alone.content
        assert (message.tool_calls, len(alone.invalid_tool_calls)) == ([], 1)
        asked = [
            {**each.invalid_tool_calls[0], "error": None} for each in (message, alone)
        ]  # whether a client says why differs between streams and whole answers
        assert asked[0] == asked[1]
        record = record_of(message)
        assert (record["model"], record["failed"] == []) == ("large", check == "r")
        assert "not JSON" in record["degraded"] or "given as it is" in record["degraded"]

    @pytest.mark.parametrize("retries", [0, 1])
    async def test_unless_it_is_asked_for(self, server: OpenAIServer, retries: int) -> None:
        server.script = answers(TURKU, broken("{"), verdicts="r")
        fields: dict[str, Any] = {"on_escalation_error": "answer", "retries_if_unusable": retries}
        made = mix(server, **fields).bind_tools([weather])
        for message in (made.invoke("Do."), await made.ainvoke("Do.")):
            assert message.tool_calls[0]["args"] == {"city": "Turku"}
            assert "large cannot be used" in record_of(message)["degraded"]

    def test_or_a_router_of_the_users_own_keeps_it(self, server: OpenAIServer) -> None:
        def route(state: RoutingState) -> Decision:
            if state.current.model_index:
                return Decision(action="answer", model_index=0, why="by a rule")
            return Decision(action="escalate", model_index=1)

        server.script = answers(TURKU, broken("{"), verdicts="r")
        message = mix(server, router=RunnableLambda(route)).bind_tools([weather]).invoke("Do.")
        assert message.tool_calls[0]["args"] == {"city": "Turku"}
        record = record_of(message)
        assert record["degraded"] == (
            "The answer of large cannot be used: the router keeps that of small."
        )
        assert record["why"] == "by a rule"

    @pytest.mark.parametrize("mode", ["raise", "answer"])
    @pytest.mark.parametrize("retries", [0, 1])
    async def test_nor_before_a_call_that_an_agent_can_mend(
        self, server: OpenAIServer, retries: int, mode: str
    ) -> None:
        server.script = answers(TURKU, broken("{}", name="whether"), verdicts="r")
        fields: dict[str, Any] = {"on_escalation_error": mode, "retries_if_unusable": retries}
        made = mix(server, **fields).bind_tools([weather])
        for message in (made.invoke("Do."), await made.ainvoke("Do.")):
            assert message.tool_calls[0]["name"] == "whether"
            assert "given as it is" in record_of(message)["degraded"]

    def test_one_that_was_shown_is_given(self, server: OpenAIServer) -> None:
        server.script = answers(TURKU, broken("{}", name="whether"), verdicts="r")
        chunks = mix(server).bind_tools([weather]).stream("Do.")
        message = sum(chunks, AIMessageChunk(content=""))
        assert [call["name"] for call in message.tool_calls] == ["whether"]
        assert "after a part was shown" in record_of(message)["degraded"]

    def test_always_escalated_tools(self, server: OpenAIServer) -> None:
        server.script = answers(call("pay", amount=3), call("pay", amount=4))
        asked = mix(server, always_escalate_tools=["pay"]).bind_tools([weather, pay])
        message = asked.invoke("Pay.")
        assert message.tool_calls[0]["args"] == {"amount": 4}
        assert not server.checks
        assert "'pay'" in record_of(message)["why"]
        server.script = answers(TURKU)
        assert not record_of(asked.invoke("Weather?"))["escalated"]

    def test_always_escalated_in_a_stream(self, server: OpenAIServer) -> None:
        server.script = answers(call("pay", amount=3), call("pay", amount=4))
        fields = {"always_escalate_tools": ["pay"], "verification": False}
        chunks = list(mix(server, **fields).bind_tools([weather, pay]).stream("Pay."))
        made = [each for chunk in chunks for each in chunk.tool_calls if each["name"]]
        assert len(made) == 1
        assert len(server.requests) == 2

    def test_the_same_model_again(self, server: OpenAIServer) -> None:
        drafts, judge = iter([broken("{"), TURKU]), answering()
        server.script = lambda body: judge(body) if is_check(body) else [next(drafts)]
        message = mix(server, retries_if_unusable=1).bind_tools([weather]).invoke("Do.")
        assert message.tool_calls[0]["args"] == {"city": "Turku"}
        assert not record_of(message)["escalated"]


class TestBinding:
    @pytest.mark.parametrize("choice", ["weather", "any", "required", True])
    def test_a_tool_choice_is_demanded(self, server: OpenAIServer, choice: Any) -> None:
        server.script = answers("It is sunny.")
        tools = [weather]
        message = mix(server).bind_tools(tools, tool_choice=choice).invoke("Do.")
        assert message.tool_calls
        assert [body["model"] for body in server.requests] == ["small", "large"]
        assert all(body["tool_choice"] for body in server.requests)

    @pytest.mark.parametrize(
        "choice",
        ["web_search", "required", {"type": "allowed_tools", "mode": "auto", "tools": []}],
        ids=str,
    )
    def test_a_tool_that_the_provider_runs(self, server: OpenAIServer, choice: Any) -> None:
        """microsoft/agent-framework PR 5322, langchain-litellm#197."""
        search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}

        def script(body: Body) -> Any:
            said = ACCEPT if is_check(body) else "It is sunny."
            return [{"content": said, "output": [] if is_check(body) else [search]}]

        with ResponsesServer() as other:
            other.script = script
            models = other.model("small"), server.model("large")
            asked = AutoMixRunnable.from_models(*models, router=ThresholdRouter())
            tools: list[Any] = [{"type": "web_search"}, weather]
            message = asked.bind_tools(tools, tool_choice=choice).invoke("Do.")
        record = record_of(message)
        assert (record["model"], record["escalated"], record["degraded"]) == ("small", False, None)

    def test_no_call_is_an_answer_too(self, server: OpenAIServer) -> None:
        server.script = answers("It is sunny.")
        message = mix(server).bind_tools([weather], tool_choice="auto").invoke("Do.")
        assert message.content == "It is sunny."
        assert len(server.checks) == 1

    def test_tools_that_the_user_has_bound(self, server: OpenAIServer) -> None:
        server.script = answers(broken("{}", name="whether"))
        models = [server.model(name).bind_tools([weather]) for name in ("small", "large")]
        asked = AutoMixRunnable.from_models(*models, router=ThresholdRouter())
        assert record_of(asked.invoke("Do."))["escalated"]
        assert not server.checks

    def test_on_wrapped_models(self, server: OpenAIServer) -> None:
        server.script = answers(TURKU, verdicts="r")
        small = server.model("small").bind(temperature=0.25).with_retry(stop_after_attempt=2)
        large = server.model("large").with_fallbacks([server.model("third")])
        asked = AutoMixRunnable.from_models(small, large, router=ThresholdRouter())
        assert asked.bind_tools([weather]).invoke("Do.").tool_calls
        [first, _, second] = server.requests
        assert (first["temperature"], len(first["tools"]), len(second["tools"])) == (0.25, 1, 1)

    def test_on_a_configurable_model(self, server: OpenAIServer) -> None:
        server.script = answers(TURKU)
        small = server.model("small").configurable_fields(temperature=ConfigurableField("warmth"))
        asked = AutoMixRunnable.from_models(small, server.model("large"), router=ThresholdRouter())
        bound = asked.bind_tools([weather])
        bound.invoke("Do.", {"configurable": {"warmth": 0.75}})
        assert (server.requests[0]["temperature"], len(server.requests[0]["tools"])) == (0.75, 1)

    def test_after_fallbacks(self, server: OpenAIServer) -> None:
        server.script = lambda body: [LARGE] if body["model"] == "third" else 500
        whole: Any = mix(server).with_fallbacks([server.model("third")])
        message = whole.bind_tools([weather]).invoke("Do.")
        assert message.tool_calls[0]["args"] == {"city": "Turku, Finland"}
        assert len(server.requests[-1]["tools"]) == 1

    def test_as_arguments_of_the_call(self, server: OpenAIServer) -> None:
        server.script = answers(TURKU, verdicts="r")
        message = mix(server).bind(tools=[convert_to_openai_tool(weather)]).invoke("Do.")
        assert message.tool_calls[0]["args"] == {"city": "Turku, Finland"}
        assert ["tools" in body for body in server.requests] == [True, False, True]


@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_a_call_by_a_tool_that_the_mix_does_not_know_of_is_escalated(
    server: OpenAIServer, how: str
) -> None:
    server.script = lambda body: [call("pay", amount=3) if body["model"] == "small" else "No."]
    asked = mix(server, verification=False, always_escalate_tools=["pay"])
    told = getattr(asked.bind(tools=[convert_to_openai_tool(pay)]), how)("Pay.")
    messages = [told] if how == "invoke" else list(told)
    assert not any(message.tool_calls for message in messages)
    assert "".join(message.text for message in messages) == "No."


def test_the_reason_does_not_quote_the_rejected_call(server: OpenAIServer) -> None:
    small, large = call("pay", amount=DRAFT), call("pay", amount=3)
    server.script = lambda body: [small if body["model"] == "small" else large]
    message = mix(server).bind_tools([pay]).invoke("Pay.")
    assert DRAFT not in str(message)
