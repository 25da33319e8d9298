"""What a check finds of the answering call in a provider's prompt cache."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda

from langchain_automix import SelfVerifier, Verification
from langchain_automix.models.tools import tools_in_openai_format
from langchain_automix.verifiers.token_probability import TokenProbabilityVerifier
from tests.benchmarks.caching import (
    SCHEMA,
    SHAPED,
    Query,
    WithoutTools,
    ask,
    at_once,
    mix_of,
    tools,
)
from tests.support.builders.mixes import pay, weather
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.openai_server import OpenAIServer, answering, is_check
from tests.support.servers.prompt_cache import LEAST, STEP, PromptCache, read_by

WORDS = 1_300
IN_PLACE: Any = {"layout": "conversation"}
TOOLS = tools_in_openai_format([weather, pay])


def said(words: list[int], model: str = "small") -> Any:
    text = " ".join(itertools.chain.from_iterable([f"w{word}"] * 150 for word in words))
    return {"model": model, "messages": [{"role": "user", "content": text}]}


class TestTheCacheItself:
    @given(st.lists(st.lists(st.integers(0, 1), max_size=14), max_size=5))
    def test_it_serves_the_longest_prefix_read_before(self, requests: list[list[int]]) -> None:
        cache, before = PromptCache(), list[list[str]]()
        for words in requests:
            tokens = read_by(said(words))
            alike = [len(list(itertools.takewhile(all, _same(tokens, old)))) for old in before]
            most = max(alike, default=0)
            served = most - most % STEP if most >= LEAST else 0
            assert cache.begin(said(words)) == (len(tokens), served)
            cache.finish(said(words))
            before.append(tokens)

    def test_each_model_has_its_own(self) -> None:
        cache = PromptCache()
        cache.finish(said([0] * 10))
        assert cache.begin(said([0] * 10))[1] == 1408
        assert cache.begin(said([0] * 10, "large"))[1] == 0

    def test_what_is_being_read_is_not_served(self) -> None:
        cache = PromptCache()
        cache.begin(said([0] * 10))
        assert cache.begin(said([0] * 10))[1] == 0

    def test_schema_and_tools_stand_before_the_messages_and_choices_do_not(self) -> None:
        cache, body = PromptCache(), said([0] * 10)
        cache.finish(body)
        for more in ({"tools": TOOLS}, {"response_format": {"type": "json_schema"}}):
            assert cache.begin({**body, **more})[1] == 0
        assert cache.begin({**body, "tool_choice": "none", "n": 8, "temperature": 1})[1] == 1408


def _same(one: list[str], other: list[str]) -> list[tuple[bool]]:
    return [(a == b,) for a, b in zip(one, other, strict=False)]


def query(server: OpenAIServer, verifier: Any, checker: str = "small") -> Query:
    return asked_once(server, mix_of(server, verifier), checker)


def asked_once(server: OpenAIServer, mix: Any, checker: str = "small", **settings: Any) -> Query:
    return ask(server, mix, WORDS, checker, **settings)


class TestLayouts:
    @pytest.mark.parametrize(
        "verifier", [SelfVerifier(**IN_PLACE), TokenProbabilityVerifier(**IN_PLACE)]
    )
    def test_after_its_conversation_a_check_pays_for_the_context_once_in_all(
        self, server: OpenAIServer, verifier: Any
    ) -> None:
        found = query(server, verifier)
        assert found.answer.cached == 0
        assert found.check.cached == found.answer.read - found.answer.read % STEP
        assert found.check.read - found.check.cached < STEP + 120

    @pytest.mark.parametrize("layout", ["few_shot", "zero_shot"])
    def test_a_block_of_its_own_is_read_a_second_time(
        self, server: OpenAIServer, layout: Any
    ) -> None:
        found = query(server, SelfVerifier(layout=layout))
        assert found.check.cached == 0
        assert found.check.read > WORDS

    def test_parallel_samples_pay_for_the_rest_each_time(self, server: OpenAIServer) -> None:
        in_one = query(server, SelfVerifier(samples=4, sampling="n", **IN_PLACE)).check
        apart = mix_of(server, SelfVerifier(samples=4, sampling="parallel", **IN_PLACE))
        each = asked_once(server, apart, pause=at_once(4)).check
        assert each.read == 4 * in_one.read
        assert each.cached == 4 * in_one.cached > 0
        assert each.written == in_one.written

    def test_the_large_models_check_pays_for_its_own_answer_later(
        self, server: OpenAIServer
    ) -> None:
        verifier = TokenProbabilityVerifier(model=server.model("large"), **IN_PLACE)
        found = query(server, verifier, "large")
        assert found.check.cached == 0
        assert found.escalation.cached == found.escalation.read - found.escalation.read % STEP
        block = TokenProbabilityVerifier(model=server.model("large"))
        assert query(server, block, "large").escalation.cached == 0

    def test_a_verdict_alone_is_a_sixth_of_the_tokens_written(self, server: OpenAIServer) -> None:
        reasoned = query(server, SelfVerifier(**IN_PLACE)).check
        alone = query(server, SelfVerifier(reasoning=False, **IN_PLACE)).check
        assert (reasoned.written, alone.written) == (8 * 18, 8 * 3)


class TestWhatStandsBeforeTheMessages:
    def test_tools_are_kept_and_none_is_called(self, server: OpenAIServer) -> None:
        mix = mix_of(server, SelfVerifier(**IN_PLACE)).bind_tools(tools())
        found = asked_once(server, mix)
        [check] = server.checks
        assert check["tools"] == server.requests[0]["tools"]
        assert check["tool_choice"] == "none"
        assert found.check.cached == found.answer.read - found.answer.read % STEP
        text = check["messages"][-1]["content"]
        assert "- look_up_0\n- look_up_1\n" in text  # told by name, for the rest is in the request
        assert "the right next step" in text
        left_out = mix_of(server, WithoutTools(**IN_PLACE)).bind_tools(tools())
        assert asked_once(server, left_out).check.cached == 0

    def test_a_forced_tool_is_not_forced_in_the_check(self, server: OpenAIServer) -> None:
        forced: Any = server.model("small").bind_tools([weather], tool_choice="weather")
        verifier = SelfVerifier(model=forced, **IN_PLACE)
        verifier.invoke(_asked())
        assert server.requests[-1]["tool_choice"] == "none"
        assert [tool["function"]["name"] for tool in server.requests[-1]["tools"]] == [
            "weather",
            "pay",
        ]

    def test_the_large_checker_has_the_tools_of_its_own_answer(self, server: OpenAIServer) -> None:
        verifier = SelfVerifier(model=server.model("large"), **IN_PLACE)
        found = asked_once(server, mix_of(server, verifier).bind_tools(tools()), "large")
        assert found.escalation.cached == found.escalation.read - found.escalation.read % STEP

    def test_other_layouts_write_the_tools_out_and_send_none(self, server: OpenAIServer) -> None:
        SelfVerifier(model=server.model("small")).invoke(_asked())
        assert "tools" not in server.requests[-1]
        assert "amount" in server.requests[-1]["messages"][-1]["content"]

    def test_what_is_shortened_has_no_conversation_and_no_tools(self, server: OpenAIServer) -> None:
        verifier = SelfVerifier(model=server.model("small"), max_input_tokens=900, **IN_PLACE)
        verifier.invoke(_asked(context="One word after another. " * 400))
        assert "tools" in server.requests[-1]
        long = [HumanMessage("One word after another. " * 400)]
        verifier.invoke(_asked(request=long))
        assert "tools" not in server.requests[-1]
        assert "amount" in server.requests[-1]["messages"][-1]["content"]

    def test_what_could_be_taken_for_a_check_has_neither(self, server: OpenAIServer) -> None:
        verifier = SelfVerifier(model=server.model("small"), **IN_PLACE)
        verifier.invoke(_asked(request=[HumanMessage("Verification Decision: Correct")]))
        assert "tools" not in server.requests[-1]
        assert "amount" in server.requests[-1]["messages"][-1]["content"]

    @pytest.mark.filterwarnings("ignore:A check draws its samples")
    def test_a_model_that_takes_no_tools_back_reads_them(self, server: OpenAIServer) -> None:
        mixed: Any = server.model("small").with_fallbacks([RunnableLambda(lambda _: AIMessage(""))])
        SelfVerifier(model=mixed, **IN_PLACE).invoke(_asked())
        assert "tools" not in server.requests[-1]
        assert "amount" in server.requests[-1]["messages"][-1]["content"]

    @pytest.mark.parametrize("structured", ["the answer", "the verdict"])
    def test_a_schema_loses_the_prefix(self, server: OpenAIServer, structured: str) -> None:
        verifier = SelfVerifier(structured=structured == "the verdict", **IN_PLACE)
        mix: Any = mix_of(server, verifier)
        if structured == "the answer":
            mix = mix.with_structured_output(SCHEMA, method="json_schema")
            assert asked_once(server, mix, content=SHAPED).check.cached == 0
        else:
            assert asked_once(server, mix).check.cached == 0


def _asked(**changes: Any) -> Any:
    request = [SystemMessage("Be brief."), HumanMessage("Is there sun in Turku?")]
    given = {"question": "Is there sun in Turku?", "answer": "Yes", "request": request}
    return {**given, "tools": TOOLS, **changes}


class TestAnthropic:
    def test_tools_are_kept_and_their_choice_is_not_touched(self) -> None:
        # Another choice of tools would lose the cached messages, and without the tools a
        # conversation that has called some would be refused.
        called = {"name": "weather", "args": {"city": "Turku"}, "id": "1", "type": "tool_call"}
        request = [
            HumanMessage("Is there sun in Turku?"),
            AIMessage("", tool_calls=[called]),
            ToolMessage("Sun in Turku.", tool_call_id="1"),
        ]
        with AnthropicServer() as server:
            server.script = answering("Yes", verdicts="a")
            verifier = SelfVerifier(model=server.model("small"), samples=1, **IN_PLACE)
            found = verifier.invoke(_asked(request=request))
            body = server.requests[-1]
            assert found.verdicts == (True,)
            assert [tool["name"] for tool in body["tools"]] == ["weather", "pay"]
            assert "tool_choice" not in body
            assert is_check(server._asked(body))
            assert json.dumps(body["messages"]).count("tool_use") >= 1

    def test_a_call_in_place_of_a_verdict_is_invalid(self) -> None:
        with AnthropicServer() as server:
            server.script = lambda _: [_calling()]
            verifier = SelfVerifier(model=server.model("small"), samples=1, **IN_PLACE)
            found: Verification = verifier.invoke(_asked())
            assert found.verdicts == (None,)


def _calling() -> dict[str, Any]:
    function = {"name": "weather", "arguments": '{"city": "Turku"}'}
    return {"content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]}
