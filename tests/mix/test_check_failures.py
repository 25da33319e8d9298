"""What happens when a check fails, in part or as a whole, or the router does: over real HTTP."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from langchain_core.runnables import Runnable, RunnableLambda
from typing_extensions import override

from langchain_automix import (
    AutoMixTotals,
    Decision,
    POMDPRouter,
    RoutingState,
    SelfVerifier,
    ThresholdRouter,
    Verification,
)
from langchain_automix.routers.base import Router
from tests.support.builders.faults import ACCEPT, FAULTS, REJECT, WAYS, Desk, Fault, ask, mixed
from tests.support.builders.mixes import record_of
from tests.support.builders.scripted_replies import Body, is_check
from tests.support.builders.synthetic_logs import world
from tests.support.servers.openai_server import OpenAIServer

every_way = pytest.mark.parametrize("way", WAYS)
every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


def some_checks_fail(desk: Desk, server: OpenAIServer, outcomes: list[Any]) -> None:
    """The checks come to these, in the order that they arrive."""
    left = iter(outcomes)

    def script(body: Body) -> Any:
        if not is_check(body):
            return [desk.answers[body["model"]]]
        outcome = next(left)
        return [outcome] if isinstance(outcome, str) else outcome

    server.script = script


class TestSomeVerdictsFail:
    """The others count, and no number is made up for those that could not be drawn."""

    @every_way
    async def test_the_others_count(self, server: OpenAIServer, way: str) -> None:
        desk = Desk(server, small="By the small.", large="By the large.")
        some_checks_fail(desk, server, [ACCEPT, 500, ACCEPT, 429, ACCEPT])
        verifier = SelfVerifier(samples=5, sampling="parallel")
        message = await ask(way, mixed(server, verifier=verifier))
        record = record_of(message)
        assert message.content == "By the small."
        assert (record["verdicts"], record["confidence"]) == ([True] * 3, 1.0)
        assert "3 of 3 verdicts accept the answer (2 more could not be drawn" in record["why"]
        assert {it["error"] for it in record["failed"]} == {
            "OpenAIAPIError",
            "OpenAIRateLimitError",
        }
        assert {(it["model"], it["stage"]) for it in record["failed"]} == {("small", "verify")}
        assert record["degraded"] is None
        assert record["tokens"]["total_tokens"] == sum(b["total_tokens"] for b in server.billed)
        assert record["cost"] is not None

    def test_one_that_may_have_been_billed(self, server: OpenAIServer) -> None:
        desk = Desk(server, small="s", large="l")
        some_checks_fail(desk, server, [ACCEPT, FAULTS["malformed"].outcome, ACCEPT])
        verifier = SelfVerifier(samples=3, sampling="parallel")
        record = record_of(mixed(server, verifier=verifier).invoke("Where?"))
        assert record["verdicts"] == [True, True]
        assert (record["cost"], record["unpriced"]) == (None, ["small"])

    async def test_none_is_cancelled_or_left_running(self, server: OpenAIServer) -> None:
        desk = Desk(server, small="s", large="l")
        some_checks_fail(desk, server, [500, *[ACCEPT] * 5])
        verifier = SelfVerifier(samples=6, sampling="parallel")
        message = await mixed(server, verifier=verifier).ainvoke("Where?", {"max_concurrency": 2})
        assert record_of(message)["drawn"] == 5
        assert len(server.checks) == 6

    def test_the_calibrated_router_reads_the_others(self, server: OpenAIServer) -> None:
        desk = Desk(server, small="s", large="l")
        some_checks_fail(desk, server, [ACCEPT, 500, *[ACCEPT] * 20])
        verifier = SelfVerifier(samples=4, sampling="parallel")
        # A call that has a price of its own is worth more than one verdict.
        router = POMDPRouter.fit(world(200, fixed_cost=0.02))
        assert router.policy.plans[0].opening.samples != 1
        mix = mixed(server, verifier=verifier, router=router)
        assert "more could not be drawn" in record_of(mix.invoke("Where?"))["why"]


class TestAllVerdictsFail:
    @every_way
    @every_fault
    async def test_escalate(self, server: OpenAIServer, fault: Fault, way: str) -> None:
        desk = Desk(server, check=fault, small="By the small.", large="By the large.")
        message = await ask(way, mixed(server))
        assert message.content == "By the large."
        record = record_of(message)
        assert record["failed"] == [{"model": "small", "stage": "verify", "error": fault.error}]
        assert record["why"] == f"The check failed ({fault.error}): large is asked."
        assert (record["cost"] is None) is fault.billed_unseen
        assert record["degraded"] is None
        assert desk.asked().count("check") == 1, "a check that failed is not made again"

    @every_way
    async def test_keep(self, server: OpenAIServer, way: str) -> None:
        desk = Desk(server, check=500, small="By the small.", large="By the large.")
        message = await ask(way, mixed(server, on_verification_error="keep"))
        assert message.content == "By the small."
        assert record_of(message)["degraded"] == (
            "The check failed (OpenAIAPIError), so that the answer is given without having been "
            "checked."
        )
        assert "large" not in desk.asked()

    @every_way
    async def test_raise(self, server: OpenAIServer, way: str) -> None:
        Desk(server, check=500, small="By the small.", large="By the large.")
        totals, mix = AutoMixTotals(), mixed(server, on_verification_error="raise")
        with pytest.raises(openai.InternalServerError):
            await ask(way, mix, config={"callbacks": [totals]})
        assert totals.tokens["total_tokens"] == sum(b["total_tokens"] for b in server.billed) > 0

    @pytest.mark.parametrize("weight", [0.0, 1e6])
    def test_prior(self, server: OpenAIServer, weight: float) -> None:
        Desk(server, check=500, small="By the small.", large="By the large.")
        router = POMDPRouter.fit(world(300))
        fields: Any = {"router": router, "cost_weight": weight, "on_verification_error": "prior"}
        record = record_of(mixed(server, **fields).invoke("Where?"))
        dear = weight > 0
        assert record["model"] == ("small" if dear else "large")
        assert "on average large gains" in record["why"]
        assert (record["degraded"] is not None) is dear

    def test_prior_of_a_router_that_has_none(self, server: OpenAIServer) -> None:
        Desk(server, check=500, small="s", large="By the large.")
        message = mixed(server, on_verification_error="prior").invoke("Where?")
        assert message.content == "By the large."

    def test_of_the_last_model(self, server: OpenAIServer) -> None:
        """A router of one's own may have it checked; there is no later one to ask."""

        def route(state: RoutingState) -> Decision:
            if state.current.model_index == 0:
                return Decision(action="escalate", model_index=1)
            return Decision(action="answer", model_index=1)

        Desk(server, check={"small": ACCEPT, "large": 500}, small="s", large="By the large.")
        message = mixed(server, router=RunnableLambda(route)).invoke("Where?")
        assert message.content == "By the large."
        assert "without having been checked" in record_of(message)["degraded"]

    def test_after_verdicts_that_were_drawn(self, server: OpenAIServer) -> None:
        """What was found before counts, and the check that failed is not made again."""
        desk = Desk(server, small="s", large="l")
        some_checks_fail(desk, server, [ACCEPT, 500, *[ACCEPT] * 9])

        def route(state: RoutingState) -> Decision:
            return Decision(action="verify", model_index=0, samples=1)

        verifier = SelfVerifier(samples=1)
        record = record_of(
            mixed(server, verifier=verifier, router=RunnableLambda(route)).invoke("Q")
        )
        assert record["model"] == "large"
        assert len(server.checks) == 2

    @pytest.mark.parametrize("wrapped", ["with_retry", "with_fallbacks"])
    def test_its_retries_and_fallbacks_come_first(self, server: OpenAIServer, wrapped: str) -> None:
        desk = Desk(server, small="By the small.", large="l")
        some_checks_fail(desk, server, [500, ACCEPT])
        verifier: Runnable[Any, Any] = SelfVerifier(samples=1)
        if wrapped == "with_retry":
            verifier = verifier.with_retry(wait_exponential_jitter=False)
        else:
            verifier = verifier.with_fallbacks(
                [SelfVerifier(model=server.model("third"), samples=1)]
            )
        record = record_of(mixed(server, verifier=verifier).invoke("Where?"))
        assert (record["model"], record["failed"]) == ("small", [])


class TestAVerifierOfOnesOwn:
    @pytest.mark.parametrize(
        ("found", "error"),
        [
            (lambda _: Verification(score=float("nan")), "ValidationError"),
            (lambda _: Verification(score=float("inf")), "ValidationError"),
            (lambda _: {"score": 1.0}, "TypeError"),
            (lambda _: None, "TypeError"),
            (lambda _: 1 / 0, "ZeroDivisionError"),
        ],
    )
    def test_that_fails(self, server: OpenAIServer, found: Any, error: str) -> None:
        Desk(server, small="s", large="By the large.")
        message = mixed(server, verifier=RunnableLambda(found)).invoke("Where?")
        assert message.content == "By the large."
        assert record_of(message)["failed"] == [
            {"model": "small", "stage": "verify", "error": error}
        ]

    def test_nothing_that_can_be_parsed_is_unknown(self, server: OpenAIServer) -> None:
        Desk(server, check="I would rather not say.", small="s", large="By the large.")
        record = record_of(mixed(server).invoke("Where?"))
        assert set(record["verdicts"]) == {None}
        assert (record["confidence"], record["model"], record["failed"]) == (None, "large", [])


class TestTheRouterFails:
    def broken(self, state: RoutingState) -> Decision:
        raise RuntimeError(f"of {state.query_id}")

    @every_way
    async def test_the_next_model_is_asked(self, server: OpenAIServer, way: str) -> None:
        Desk(server, small="A small answer.", large="By the large.")
        message = await ask(way, mixed(server, router=RunnableLambda(self.broken)))
        record = record_of(message)
        assert message.content == "By the large."
        assert record["failed"] == [{"model": None, "stage": "route", "error": "RuntimeError"}]
        assert record["degraded"] == (
            "The router failed (RuntimeError), so that large was asked to be safe."
        )

    def test_at_the_last_its_answer_is_kept(self, server: OpenAIServer) -> None:
        def route(state: RoutingState) -> Decision:
            if state.current.model_index == 1:
                raise RuntimeError
            return Decision(action="escalate", model_index=1)

        Desk(server, check=REJECT, small="s", large="By the large.")
        message = mixed(server, router=RunnableLambda(route)).invoke("Where?")
        assert message.content == "By the large."
        assert "the last answer, of large, is given" in record_of(message)["degraded"]

    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_numbers_that_are_none(self, server: OpenAIServer, number: float) -> None:
        class Odd(Router):
            @override
            def _decide(self, state: RoutingState) -> Decision:
                return Decision(action="answer", model_index=0, values={"answer": number})

        Desk(server, small="s", large="By the large.")
        message = mixed(server, router=Odd()).invoke("Where?")
        assert message.content == "By the large."
        assert record_of(message)["failed"][0]["error"] == "ValidationError"

    def test_and_then_the_last_model(self, server: OpenAIServer) -> None:
        Desk(server, small="A small answer.", large=500)
        mix = mixed(server, router=RunnableLambda(self.broken))
        with pytest.raises(openai.InternalServerError):
            mix.invoke("Where?")
        kept = mix.model_copy(update={"on_escalation_error": "answer"}).invoke("Where?")
        assert kept.content == "A small answer."
        assert "call of large failed" in record_of(kept)["degraded"]

    def test_a_router_that_keeps_what_failed(self, server: OpenAIServer) -> None:
        def route(state: RoutingState) -> Decision:
            return Decision(action="answer", model_index=0)

        Desk(server, small=500, large="By the large.")
        message = mixed(server, router=RunnableLambda(route)).invoke("Where?")
        assert message.content == "By the large."
        assert "keeps model 0's answer, but it gave none" in record_of(message)["degraded"]


def test_the_best_earlier_answer_by_the_belief(server: OpenAIServer) -> None:
    """Not merely the latest: the router expected more of the first."""

    def route(state: RoutingState) -> Decision:
        later = state.current.model_index + 1
        belief = {"small": 0.7, "large": 0.4, "third": 0.9}
        if later == 3:
            return Decision(action="answer", model_index=2)
        return Decision(action="escalate", model_index=later, belief=belief)

    Desk(server, check=REJECT, small="By the small.", large="By the large.", third=500)
    fields: Any = {"router": RunnableLambda(route), "on_escalation_error": "answer"}
    message = mixed(server, "small", "large", "third", **fields).invoke("Where?")
    assert message.content == "By the small."


def test_a_threshold_router_is_not_asked_about_a_check_that_failed(server: OpenAIServer) -> None:
    """Its own `on_unknown` is of checks that found nothing, not of those that failed."""
    Desk(server, check=500, small="s", large="By the large.")
    message = mixed(server, router=ThresholdRouter(on_unknown="answer")).invoke("Where?")
    assert message.content == "By the large."
