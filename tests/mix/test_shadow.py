"""Shadows ask what a query did not ask, check as the mix does, and disturb nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pydantic import BaseModel

from langchain_automix import (
    AgreementVerifier,
    AutoMixMiddleware,
    AutoMixRunnable,
    CombinedVerifier,
    EarlierAgreementVerifier,
    FunctionVerifier,
    SelfVerifier,
    SpendLimit,
    ThresholdRouter,
    Verification,
)
from langchain_automix.mix.learner import EndedQuery
from langchain_automix.mix.shadow import (
    Shadow,
    ShadowResult,
    config_for_shadows,
    run_config_for_shadow,
    with_names_of,
)
from langchain_automix.utils.default_checks import AGREEMENT, TOKENS, ZERO_SHOT
from langchain_automix.verifiers.default import DefaultVerifier
from tests.support.builders.learners import FakeLearner
from tests.support.builders.mixes import RAG_PROMPT, Witness, mix, weather
from tests.support.builders.scripted_replies import call
from tests.support.servers.openai_server import OpenAIServer, answering, is_check

PRICES = {"small": {"input": 1, "output": 2}, "large": {"input": 10, "output": 20}}


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def warming(server: OpenAIServer, **fields: Any) -> tuple[AutoMixRunnable, FakeLearner]:
    learner = FakeLearner()
    learner.asks_largest = True
    models = [server.model("small"), server.model("large")]
    return AutoMixRunnable.from_models(*models, learning=learner, **fields), learner


def shadow_of(ended: EndedQuery, config: RunnableConfig | None = None) -> ShadowResult:
    shadow = Shadow(config_for_shadows(ended.config), ended.query)
    return shadow.invoke(ended.query.input, config or run_config_for_shadow(ended.run_config))


def shadow(automix: Any, learner: FakeLearner, asked: Any = "Where?") -> ShadowResult:
    automix.invoke(asked)
    return shadow_of(learner.ended[-1][1])


def of_small(result: ShadowResult) -> Verification:
    found = result.visits[0].verification
    assert found is not None
    return found


class TestDefaultCheck:
    def test_it_reads_log_probabilities_where_there_are_any(self, server: OpenAIServer) -> None:
        result = shadow(*warming(server))
        assert [body["model"] for body in server.requests] == ["large", "small"]
        assert set(of_small(result).checks) == {TOKENS}
        assert of_small(result).checks[TOKENS].score == pytest.approx(0.9, abs=0.2)
        assert result.answers[0].message.content == "a small answer"
        assert result.visits[1].verification is None

    def test_without_any_it_asks_four_times_again(self, server: OpenAIServer) -> None:
        server.script = refusing_logprobs(answering("a small answer", "a large answer"))
        result = shadow(*warming(server))
        checks = of_small(result).checks
        assert checks[AGREEMENT].verdicts == (True,) * 4
        assert ZERO_SHOT not in checks

    def test_of_a_long_answer_it_draws_four_verdicts(self, server: OpenAIServer) -> None:
        server.script = refusing_logprobs(answering("long words " * 40, "a large answer"))
        result = shadow(*warming(server))
        checks = of_small(result).checks
        assert checks[ZERO_SHOT].verdicts == (True,) * 4
        assert AGREEMENT not in checks


def refusing_logprobs(script: Any) -> Any:
    return lambda body: 400 if body.get("logprobs") else script(body)


class TestOwnCheck:
    def test_a_sampled_check_draws_its_full_number(self, server: OpenAIServer) -> None:
        result = shadow(*warming(server, verifier=SelfVerifier(samples=5)))
        assert of_small(result).verdicts == (True,) * 5

    def test_what_the_query_drew_is_filled_up(self, server: OpenAIServer) -> None:
        learner = FakeLearner()
        automix = mix(server, learning=learner, verifier=SelfVerifier(samples=5))
        automix.invoke("Where?")
        [(_, ended)] = learner.ended
        visit = ended.query.ledger.visits[0]
        assert visit.verification is not None
        few = Verification(verdicts=visit.verification.verdicts[:2])
        ended.query.ledger.visits[0] = visit.model_copy(update={"verification": few})
        drawn = sum(body.get("n") or 1 for body in server.checks)
        result = shadow_of(ended)
        assert len(of_small(result).verdicts) == 5
        assert sum(body.get("n") or 1 for body in server.checks) == drawn + 3
        assert result.answers[1].message.content == "a large answer"

    def test_a_kept_answer_without_a_check_is_checked(self, server: OpenAIServer) -> None:
        learner = FakeLearner()
        automix = mix(server, learning=learner, verification=True, verifier=SelfVerifier(samples=3))
        automix.invoke("Where?")
        [(_, ended)] = learner.ended
        visit = ended.query.ledger.visits[0]
        ended.query.ledger.visits[0] = visit.model_copy(update={"verification": None})
        assert of_small(shadow_of(ended)).verdicts == (True,) * 3

    def test_every_combined_check_is_made(self, server: OpenAIServer) -> None:
        score: Runnable[Any, Any] = RunnableLambda(lambda _: Verification(score=0.25))
        verifier = CombinedVerifier(checks={"self": SelfVerifier(samples=2), "score": score})
        found = of_small(shadow(*warming(server, verifier=verifier)))
        assert found.verdicts == (True, True)
        assert found.checks["score"].score == 0.25

    def test_a_check_sees_the_answers_before_it_only(self, server: OpenAIServer) -> None:
        result = shadow(*warming(server, verifier=EarlierAgreementVerifier()))
        assert of_small(result).problem == "there is no earlier answer"

    def test_three_models(self, server: OpenAIServer) -> None:
        learner = FakeLearner()
        learner.asks_largest = True
        server.script = answering("s", "l", "t")
        models = [server.model(name) for name in ("small", "large", "third")]
        automix = AutoMixRunnable.from_models(
            *models, learning=learner, verifier=SelfVerifier(samples=2)
        )
        result = shadow(automix, learner)
        assert [result.answers[i].message.content for i in range(3)] == ["s", "l", "t"]
        found = [result.visits[i].verification for i in range(3)]
        assert [each and each.verdicts for each in found] == [(True,) * 2, (True,) * 2, None]


class TestNames:
    def test_a_policys_own_check_has_its_name_among_the_defaults(self) -> None:
        default = DefaultVerifier()
        found = Verification(verdicts=(True, False))
        named = with_names_of(default, AgreementVerifier(max_tokens=96), found)
        assert named is not None
        assert named.checks[AGREEMENT].verdicts == (True, False)
        assert not named.verdicts
        assert with_names_of(default, SelfVerifier(), found) is found
        assert with_names_of(SelfVerifier(), SelfVerifier(), found) is found

    def test_of_several_the_leading_one_is_named_too(self) -> None:
        checks = {"tokens": DefaultVerifier().checks[TOKENS], "self": SelfVerifier()}
        found = Verification(score=0.5, checks={"self": Verification(verdicts=(True,))})
        named = with_names_of(DefaultVerifier(), CombinedVerifier(checks=checks), found)
        assert named is not None
        assert named.checks[TOKENS].score == 0.5
        assert named.checks["self"].verdicts == (True,)


class TestFailures:
    def test_a_model_that_fails_leaves_the_rest(self, server: OpenAIServer) -> None:
        plain = answering("s", "l", "t")
        server.script = lambda body: 500 if body["model"] == "small" else plain(body)
        learner = FakeLearner()
        learner.asks_largest = True
        models = [server.model(name) for name in ("small", "large", "third")]
        automix = AutoMixRunnable.from_models(
            *models, learning=learner, verifier=SelfVerifier(samples=2)
        )
        result = shadow(automix, learner)
        assert set(result.answers) == {1, 2}
        assert result.ledger.failed[0]["model"] == "small"

    def test_a_check_that_fails_leaves_the_answer(self, server: OpenAIServer) -> None:
        def fail(_: Any) -> Verification:
            raise KeyError("a bug")

        result = shadow(*warming(server, verifier=RunnableLambda(fail)))
        assert result.answers[0].message.content == "a small answer"
        assert "KeyError" in (result.failed.get(0), *(f["error"] for f in result.ledger.failed))

    def test_what_was_paid_is_known(self, server: OpenAIServer) -> None:
        result = shadow(*warming(server, prices=PRICES, verifier=SelfVerifier(samples=2)))
        billed = [bill for bill in server.billed if bill["model"] == "small"]
        usages: list[Any] = [call.usage for call in result.ledger.calls]
        assert sum(u["input_tokens"] for u in usages) == sum(b["prompt_tokens"] for b in billed)
        assert sum(u["output_tokens"] for u in usages) == sum(
            b["completion_tokens"] for b in billed
        )


class AsyncOnly(BaseChatModel):
    """A chat model without a synchronous form."""

    text: str

    @property
    def _llm_type(self) -> str:
        return "async"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError("ask it asynchronously")

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        await asyncio.sleep(0)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.text))])


class TestAsync:
    def test_it_says_that_something_has_no_synchronous_form(self) -> None:
        learner = FakeLearner()
        learner.asks_largest = True
        models = [AsyncOnly(text="small"), AsyncOnly(text="large")]
        check: Runnable[Any, Any] = RunnableLambda(lambda _: Verification(score=0.5))
        automix = AutoMixRunnable.from_models(*models, learning=learner, verifier=check)
        asyncio.run(automix.ainvoke("Where?"))
        ended = learner.ended[0][1]
        assert shadow_of(ended).needs_async
        again = Shadow(config_for_shadows(ended.config), ended.query)
        result = asyncio.run(again.ainvoke(ended.query.input))
        assert result.answers[0].message.content == "small"
        assert not result.needs_async

    def test_an_async_check_too(self, server: OpenAIServer) -> None:
        async def check(_: Any) -> Verification:
            return Verification(score=0.5)

        automix, learner = warming(server, verifier=RunnableLambda(check))
        assert shadow(automix, learner).needs_async

    def test_a_function_that_is_async(self, server: OpenAIServer) -> None:
        async def check(answer: str) -> float:
            return 0.5

        automix, learner = warming(server, verifier=FunctionVerifier(function=check))

        async def both() -> ShadowResult:  # in one event loop, as clients keep to theirs
            await automix.ainvoke("Where?")
            ended = learner.ended[0][1]
            shadow = Shadow(config_for_shadows(ended.config), ended.query)
            return await shadow.ainvoke(ended.query.input)

        assert of_small(asyncio.run(both())).score == 0.5


class Place(BaseModel):
    """A place."""

    name: str


class TestForms:
    def test_a_prompt_is_filled_in_once(self, server: OpenAIServer) -> None:
        asked: list[Any] = []

        def fill(given: Any) -> Any:
            asked.append(given)
            return RAG_PROMPT.invoke(given)

        prompt: Runnable[Any, Any] = RunnableLambda(fill)
        automix, learner = warming(server, prompt=prompt, verifier=SelfVerifier(samples=1))
        result = shadow(automix, learner, {"question": "Where?", "context": "In Turku."})
        assert len(asked) == 1
        prompts = [body["messages"] for body in server.requests if not is_check(body)]
        assert prompts[0] == prompts[1]
        assert "In Turku." in server.checks[0]["messages"][-1]["content"]
        assert 0 in result.answers

    def test_tools_are_given_again(self, server: OpenAIServer) -> None:
        server.script = lambda body: (
            answering("")(body) if is_check(body) else [call("weather", city="Turku")]
        )
        automix, learner = warming(server, verifier=SelfVerifier(samples=1))
        result = shadow(automix.bind_tools([weather]), learner)
        assert result.answers[0].message.tool_calls[0]["args"] == {"city": "Turku"}
        assert all(body.get("tools") for body in server.requests if not is_check(body))

    def test_a_schema_is_asked_for_again(self, server: OpenAIServer) -> None:
        server.script = lambda body: (
            answering("")(body) if is_check(body) else ['{"name": "Turku"}']
        )
        automix, learner = warming(server, verifier=SelfVerifier(samples=1))
        structured = automix.with_structured_output(Place, method="json_schema")
        result = shadow(structured, learner)
        assert result.answers[0].payload["parsed"] == Place(name="Turku")

    @pytest.mark.parametrize("shape", [None, ToolStrategy(Place)])
    def test_an_agent_is_not_disturbed(self, server: OpenAIServer, shape: Any) -> None:
        handled: list[Any] = []

        @wrap_model_call
        def inner(request: Any, handler: Any) -> Any:
            handled.append(request)
            return handler(request)

        def script(body: Any) -> Any:
            if is_check(body):
                return answering("")(body)
            return [call("Place", name="Turku")] if shape else ["In Turku."]

        server.script = script
        learner = FakeLearner()
        learner.asks_largest = True
        models = [server.model("small"), server.model("large")]
        middleware = AutoMixMiddleware(
            models, learning=learner, verifier=SelfVerifier(samples=1), router=0.5
        )
        agent: Any = create_agent(
            models[0], tools=[weather], middleware=[middleware, inner], response_format=shape
        )
        agent.invoke({"messages": [("human", "Where?")]})
        ended, seen = learner.ended[0][1], len(handled)
        assert ended.config.answer_format.may_shadow
        result = shadow_of(ended)
        assert len(handled) == seen
        asked = [body for body in server.requests if not is_check(body)]
        own, theirs = asked[-1], asked[0]
        assert own["model"] == "small"
        assert own["messages"] == theirs["messages"]
        assert [t["function"]["name"] for t in own["tools"]] == [
            t["function"]["name"] for t in theirs["tools"]
        ]
        assert own.get("tool_choice") == theirs.get("tool_choice")
        assert 0 in result.answers

    def test_a_providers_own_schema_has_no_shadow(self, server: OpenAIServer) -> None:
        server.script = lambda _: ['{"name": "Turku"}']
        learner = FakeLearner()
        learner.asks_largest = True
        models = [server.model("small"), server.model("large")]
        middleware = AutoMixMiddleware(models, learning=learner, router=0.5)
        agent = create_agent(
            models[0], middleware=[middleware], response_format=ProviderStrategy(Place)
        )
        agent.invoke({"messages": [("human", "Where?")]})  # type: ignore[call-overload]
        assert not learner.ended[0][1].config.answer_format.may_shadow


class TestLimits:
    def test_it_counts_in_the_tenants_limit(self, server: OpenAIServer) -> None:
        limit = SpendLimit(100, by="tenant")
        automix, learner = warming(
            server, spend_limit=limit, prices=PRICES, verifier=SelfVerifier(samples=2)
        )
        automix.invoke("Where?", {"configurable": {"tenant": "acme"}})
        before = limit.used("acme")
        shadow_of(learner.ended[0][1])
        after = limit.used("acme")
        assert float(after.split()[0]) > float(before.split()[0])
        assert limit.used() == "0 USD"
        paid = sum(
            bill["prompt_tokens"] * PRICES[bill["model"]]["input"]
            + bill["completion_tokens"] * PRICES[bill["model"]]["output"]
            for bill in server.billed
        )
        assert float(after.split()[0]) == pytest.approx(paid / 1e6)

    def test_near_a_limit_there_is_none(self, server: OpenAIServer) -> None:
        limit = SpendLimit("0.00004 USD")
        automix, learner = warming(
            server, spend_limit=limit, prices=PRICES, verifier=SelfVerifier(samples=2)
        )
        automix.invoke("Where?")
        used, asked = limit.used(), len(server.requests)
        result = shadow_of(learner.ended[0][1])
        assert result.is_refused
        assert (limit.used(), len(server.requests)) == (used, asked)

    def test_nobody_who_listens_to_the_query_is_told(self, server: OpenAIServer) -> None:
        witness = Witness()
        automix, learner = warming(server, verifier=SelfVerifier(samples=1))
        automix.invoke("Where?", {"callbacks": [witness], "tags": ["mine"], "metadata": {"a": 1}})
        ended, heard = learner.ended[0][1], len(witness.names)
        config = run_config_for_shadow(ended.run_config)
        assert set(config["tags"]) == {"mine", "automix:shadow"}
        assert config["metadata"]["a"] == 1
        shadow_of(ended, config)
        assert len(witness.names) == heard

    def test_what_belongs_to_a_graph_stays_there(self) -> None:
        config = run_config_for_shadow({"configurable": {"__pregel_send": print, "tenant": "a"}})
        assert config["configurable"] == {"tenant": "a"}

    def test_times_and_failures_are_not_the_queries_own(self, server: OpenAIServer) -> None:
        automix, _ = warming(server, max_latency=9.0, hedge=0.5)
        config = config_for_shadows(automix.mix_config)
        assert (config.max_latency, config.hedge) == (None, None)
        assert config.pace is not automix.mix_config.pace
        assert config.account is not automix.mix_config.account


def test_a_router_is_never_asked(server: OpenAIServer) -> None:
    class Refuses(ThresholdRouter):
        def invoke(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError

    result = shadow(*warming(server, router=Refuses(threshold=0.5)))
    assert 0 in result.answers
