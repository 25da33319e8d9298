"""`AutoMixMiddleware` in real agents over real HTTP: what acts, and what is paid for it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ExtendedModelResponse,
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
    ModelRequest,
    ModelResponse,
)
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from langchain_automix import (
    AutoMixError,
    AutoMixMiddleware,
    SelfVerifier,
    ThresholdRouter,
)
from tests.support.builders.agents import (
    ASKED,
    Tools,
    agent,
    asked,
    by,
    middleware,
    records,
    steps,
)
from tests.support.builders.scripted_replies import (
    ACCEPT,
    REJECT,
    Body,
    Reply,
    call,
    calls,
    is_check,
    judging,
)
from tests.support.servers.openai_server import OpenAIServer


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
class TestSteps:
    async def test_accepted_steps_act(self, server: OpenAIServer, tools: Tools, how: str) -> None:
        server.script = steps([call("weather", city="Turku"), "Rain in Turku."])
        state = await by(how, agent(server, tools))
        assert state["messages"][-1].content == "Rain in Turku."
        assert tools.did == [("weather", "Turku")]
        assert asked(server) == ["small", "check", "small", "check"]
        assert [record["model"] for record in records(state)] == ["small", "small"]
        assert {len(record["verdicts"]) for record in records(state)} == {8}

    async def test_a_rejected_tool_call_never_acts(
        self, server: OpenAIServer, tools: Tools, how: str
    ) -> None:
        server.script = steps(
            [call("send_email", to="everyone")],
            [call("weather", city="Turku"), "Rain in Turku."],
            verdicts="r",
        )
        state = await by(how, agent(server, tools))
        assert tools.did == [("weather", "Turku")]
        assert [record["escalated"] for record in records(state)] == [True, True]
        assert "everyone" not in str(state)
        assert {body["model"] for body in server.requests} == {"small", "large"}

    @pytest.mark.parametrize(
        ("draft", "why"),
        [
            (call("forecast", city="Turku"), "no known tool (known: 'weather', 'send_email')"),
            (call("weather", town="Turku"), "do not fit its schema"),
            (
                calls(call("weather", city="Turku"), call("weather", city=1)),
                "do not fit its schema",
            ),
        ],
    )
    async def test_a_call_that_cannot_act_is_not_even_checked(
        self, server: OpenAIServer, tools: Tools, how: str, draft: Reply, why: str
    ) -> None:
        server.script = steps([draft, "Rain."], [call("weather", city="Turku")])
        state = await by(how, agent(server, tools))
        assert asked(server) == ["small", "large", "small", "check"]
        assert tools.did == [("weather", "Turku")]
        assert why in records(state)[0]["why"]

    async def test_tools_that_only_a_larger_model_may_call(
        self, server: OpenAIServer, tools: Tools, how: str
    ) -> None:
        server.script = steps(
            [call("send_email", to="small"), "Sent."], [call("send_email", to="large")]
        )
        state = await by(how, agent(server, tools, always_escalate_tools=["send_email"]))
        assert tools.did == [("send_email", "large")]
        assert asked(server) == ["small", "large", "small", "check"]
        assert [record["model"] for record in records(state)] == ["large", "small"]

    async def test_parallel_calls(self, server: OpenAIServer, tools: Tools, how: str) -> None:
        both = calls(call("weather", city="Turku"), call("weather", city="Oulu"))
        server.script = steps([both, "Unused.", "Rain in both."])
        state = await by(how, agent(server, tools))
        assert sorted(tools.did) == [("weather", "Oulu"), ("weather", "Turku")]
        assert state["messages"][-1].content == "Rain in both."

    async def test_what_the_check_sees(self, server: OpenAIServer, tools: Tools, how: str) -> None:
        server.script = steps([call("weather", city="Turku"), "Rain in Turku."])
        await by(how, agent(server, tools))
        first, second = (str(body["messages"]) for body in server.checks)
        for seen in ("You know the weather.", "Look up the weather.", "calls weather with"):
            assert seen in first
        assert "Tool weather: Rain in Turku" in second

    async def test_retries(self, server: OpenAIServer, tools: Tools, how: str) -> None:
        server.script = steps([call("forecast")], ["Rain."])
        await by(how, agent(server, tools, retries_if_unusable=2))
        assert asked(server) == ["small", "small", "small", "large"]


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
class TestRuns:
    async def test_sticky(self, server: OpenAIServer, tools: Tools, how: str) -> None:
        city = call("weather", city="Turku")
        server.script = steps([city], [city, call("weather", city="Oulu"), "Done."], verdicts="r")
        mixed = agent(server, tools, sticky=True)
        state = await by(how, mixed)
        assert asked(server) == ["small", "check", "large", "large", "large"]
        assert [record["escalated"] for record in records(state)] == [True, False, False]
        assert "rest of it" in records(state)[-1]["why"]
        # A new question is a new run.
        server.requests.clear()
        server.script = steps(["A small answer."], verdicts="a")
        await by(how, mixed, {"messages": [*state["messages"], HumanMessage("And now?")]})
        assert asked(server) == ["small", "check"]

    async def test_a_run_that_stays_with_a_middle_model_can_still_go_on(
        self, server: OpenAIServer, tools: Tools, how: str
    ) -> None:
        judge = judging("ra")

        def script(body: Body) -> list[Reply]:
            if is_check(body):
                return [judge({"n": 1})[0]] * body["n"]
            step = sum(message["role"] == "tool" for message in body["messages"])
            known = [call("weather", city="Turku"), call("weather", city="Oulu"), "Done."][step]
            return [call("forecast") if (body["model"], step) == ("middle", 1) else known]

        server.script = script
        names = ["small", "middle", "large"]
        mix = AutoMixMiddleware(
            [server.model(name) for name in names],
            router=ThresholdRouter(threshold=0.5),
            sticky=True,
        )
        state = await by(how, create_agent(server.model("x"), tools.all, middleware=[mix]))
        assert asked(server) == ["small", "check", "middle", "check", "middle", "large", "large"]
        assert [record["model"] for record in records(state)] == ["middle", "large", "large"]

    async def test_a_limit_of_escalations(
        self, server: OpenAIServer, tools: Tools, how: str
    ) -> None:
        small: list[Reply] = ["?", call("weather", city="small"), call("forecast"), "Done."]
        server.script = steps(small, [call("weather", city="large")], verdicts="r")
        state = await by(how, agent(server, tools, max_escalations=1))
        # Past the limit nothing is checked, but what cannot be used leads on.
        assert asked(server) == ["small", "check", "large", "small", "small", "large", "small"]
        assert [record["model"] for record in records(state)] == [
            "large",
            "small",
            "large",
            "small",
        ]
        assert "may 1 times" in records(state)[1]["why"]

    async def test_no_escalation_at_all(self, server: OpenAIServer, tools: Tools, how: str) -> None:
        server.script = steps(["A small answer."])
        await by(how, agent(server, tools, max_escalations=0))
        assert asked(server) == ["small"]


class TestOthers:
    def test_fallbacks_of_each_model(self, server: OpenAIServer, tools: Tools) -> None:
        def script(body: Body) -> Any:
            return 500 if body["model"] == "small" else ["A spare answer."]

        server.script = script
        mix = middleware(server, verification=False)
        spare = ModelFallbackMiddleware(server.model("spare"))
        state: Any = create_agent(server.model("x"), tools.all, middleware=[mix, spare]).invoke(
            ASKED
        )
        assert state["messages"][-1].content == "A spare answer."
        assert asked(server) == ["small", "spare"]

    def test_a_fallback_outside_asks_the_mix_again(
        self, server: OpenAIServer, tools: Tools
    ) -> None:
        faults = iter([500, 500])

        def script(body: Body) -> Any:
            return next(faults, None) or ["An answer."]

        server.script = script
        mixed = agent(server, tools, ModelFallbackMiddleware(server.model("x")), verification=False)
        assert mixed.invoke(ASKED)["messages"][-1].content == "An answer."
        assert asked(server) == ["small", "large", "small"]

    def test_a_human_in_the_loop(self, server: OpenAIServer, tools: Tools) -> None:
        server.script = steps(
            [call("weather", city="small"), "Done."], [call("send_email", to="you")], "r"
        )
        asks = HumanInTheLoopMiddleware(interrupt_on={"send_email": True})
        mixed = agent(server, tools, asks, checkpointer=InMemorySaver(), max_escalations=1)
        config = {"configurable": {"thread_id": "1"}}
        state = mixed.invoke(ASKED, config)
        assert state["__interrupt__"][0].value["action_requests"][0]["name"] == "send_email"
        assert tools.did == []
        resume: Any = Command(resume={"decisions": [{"type": "approve"}]})
        state = mixed.invoke(resume, config)
        assert tools.did == [("send_email", "you")]
        assert [record["model"] for record in records(state)] == ["large", "small"]

    def test_an_interrupt_within(self, server: OpenAIServer, tools: Tools) -> None:
        class Asks(AgentMiddleware):
            def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
                assert interrupt("May I?") == "yes"
                return handler(request)

        server.script = steps(["An answer."])
        mixed: Any = create_agent(
            server.model("x"),
            tools.all,
            middleware=[middleware(server), Asks()],
            checkpointer=InMemorySaver(),
        )
        config: Any = {"configurable": {"thread_id": "1"}}
        assert mixed.invoke(ASKED, config)["__interrupt__"][0].value == "May I?"
        state = mixed.invoke(Command(resume="yes"), config)
        assert state["messages"][-1].content == "An answer."

    def test_commands_and_requests_are_left_alone(self, server: OpenAIServer, tools: Tools) -> None:
        seen: list[Any] = []

        class Notes(AgentMiddleware):
            def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
                seen.append(request)
                return ExtendedModelResponse(handler(request), Command(update={}))

        server.script = steps(["A draft."], ["An answer."], verdicts="r")
        mixed: Any = create_agent(
            server.model("x"), tools.all, middleware=[middleware(server), Notes()]
        )
        state = mixed.invoke(ASKED, context={"user": "u"})
        assert state["messages"][-1].content == "An answer."
        assert [request.runtime.context for request in seen] == [{"user": "u"}] * 2
        assert seen[0].state is seen[1].state
        assert [request.model.model_name for request in seen] == ["small", "large"]

    @pytest.mark.parametrize("extended", [True, False])
    def test_what_a_handler_may_return(self, server: OpenAIServer, *, extended: bool) -> None:
        message = AIMessage("By hand.")

        def handler(request: ModelRequest[Any]) -> Any:
            response: ModelResponse[Any] = ModelResponse(result=[message], structured_response=None)
            return (
                ExtendedModelResponse(response, Command(update={"a": 1})) if extended else message
            )

        request: ModelRequest[Any] = ModelRequest(
            model=server.model("x"), messages=[HumanMessage("Hi")]
        )
        given: Any = middleware(server, verification=False).wrap_model_call(request, handler)
        if extended:
            assert given.command == Command(update={"a": 1})
            given = given.model_response
        assert given.result[0].response_metadata["automix"]["model"] == "small"
        assert "automix" not in message.response_metadata


class TestSettings:
    def test_names(self) -> None:
        with pytest.raises(AutoMixError, match="no field 'prompt'.* It has: .*verifier"):
            AutoMixMiddleware(["openai:a", "openai:b"], prompt=None)  # type: ignore[call-arg]
        with pytest.raises(AutoMixError, match="counts from 0"):
            AutoMixMiddleware(["openai:a", "openai:b"], max_escalations=-1)

    def test_models_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        mix = AutoMixMiddleware(["openai:gpt-4o-mini", "openai:gpt-4o"], verifier=SelfVerifier())
        assert mix.model_names == ("gpt-4o-mini", "gpt-4o")

    def test_an_agent_needs_chat_models(self, server: OpenAIServer) -> None:
        models: Any = [server.model("small").with_retry(), server.model("large")]
        with pytest.raises(AutoMixError, match="small is a RunnableRetry.*ModelRetryMiddleware"):
            AutoMixMiddleware(models, router=ThresholdRouter(threshold=0.5))

    def test_without_langchain(self) -> None:
        code = (
            "import sys; sys.modules['langchain'] = None; import langchain_automix\n"
            "try: langchain_automix.AutoMixMiddleware\n"
            "except ImportError as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert "pip install 'langchain" in done.stdout


class TestBillAndTrace:
    def test_every_call_is_counted(self, server: OpenAIServer, tools: Tools) -> None:
        server.script = steps(
            [call("weather", city="Turku"), "Rain."], [call("weather", city="Oulu"), "Sun."], "r"
        )
        # In a request for several samples LangChain's handler finds no name to count under.
        each = SelfVerifier(sampling="parallel", samples=3)
        usage = UsageMetadataCallbackHandler()
        agent(server, tools, verifier=each).invoke(ASKED, {"callbacks": [usage]})
        assert asked(server).count("check") == 6
        assert {*usage.usage_metadata} == {"small", "large"}
        for model, counted in usage.usage_metadata.items():
            billed = [bill for bill in server.billed if bill["model"] == model]
            assert counted["input_tokens"] == sum(bill["prompt_tokens"] for bill in billed)
            assert counted["output_tokens"] == sum(bill["completion_tokens"] for bill in billed)

    @pytest.mark.parametrize("how", ["invoke", "ainvoke"])
    async def test_one_tree(self, server: OpenAIServer, tools: Tools, how: str) -> None:
        server.script = steps(["A draft."], ["An answer."], verdicts="r")
        collected = RunCollectorCallbackHandler()
        await by(how, agent(server, tools), config={"callbacks": [collected]})
        [root] = collected.traced_runs
        [node] = root.child_runs
        [mix] = node.child_runs
        assert (node.name, mix.name) == ("model", "AutoMixMiddleware")
        runs = [(run.name, run.run_type) for run in mix.child_runs]
        assert runs == [
            ("draft", "llm"),
            ("SelfVerifier", "chain"),
            ("ThresholdRouter", "chain"),
            ("escalate", "llm"),
        ]

    async def test_many_runs_on_one_instance(self, server: OpenAIServer, tools: Tools) -> None:
        def script(body: Body) -> list[Reply]:
            """Of what was asked, the even numbers need the large model."""
            if is_check(body):
                found = re.findall(r"Question: (\d+)", str(body["messages"][-1]))
                return [ACCEPT if int(found[-1]) % 2 else REJECT] * body["n"]
            return [f"{body['model']} {body['messages'][-1]['content']}"]

        server.script = script
        mixed = agent(server, tools, sticky=True, max_escalations=3)
        given: list[Any] = [{"messages": [HumanMessage(str(i))]} for i in range(20)]
        states = [*await mixed.abatch(given), *mixed.batch(given)]
        for i, state in enumerate([*states]):
            number = i % 20
            model = "small" if number % 2 else "large"
            assert state["messages"][-1].content == f"{model} {number}"
            assert records(state)[0]["model"] == model
