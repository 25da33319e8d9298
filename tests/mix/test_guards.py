"""The guards around the router: who is asked first, and who has the last word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tracers.context import collect_runs

from langchain_automix import AutoMixRunnable, Decision, ThresholdRouter, Verification, Visit
from langchain_automix.flow.clock import Deadline
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.deadline_guard import DeadlineGuard
from langchain_automix.mix.guards import (
    FailedCheckGuard,
    Guard,
    InvalidDecisionGuard,
    SpendGuard,
    VerificationOffGuard,
    ask_unchecked,
)
from langchain_automix.mix.limits.allowance import SpendAllowance
from langchain_automix.mix.loop import QueryLoop
from langchain_automix.mix.query import QueryState
from tests.support.builders.agents import ASKED, Tools, agent, steps
from tests.support.builders.mixes import mix
from tests.support.builders.scripted_replies import call
from tests.support.servers.openai_server import OpenAIServer, answering, is_check

KEEP = Decision(action="answer", model_index=0)
NEXT = Decision(action="escalate", model_index=1)


def query(check: Verification | None = None, **fields: Any) -> QueryState:
    """A query whose first model has answered."""
    made = QueryState("?", {"answer": ""}, last=ask_unchecked(0, ""), **fields)
    made.answers[0] = ModelAnswer(AIMessage("Turku."))
    made.ledger.visits[0] = Visit(model_index=0, verification=check)
    return made


class Noting(Guard):
    """Notes when it is asked."""

    def __init__(self, config: Any, name: str, heard: list[str]) -> None:
        super().__init__(config)
        self.name, self.heard = name, heard

    def preempt(self, query: QueryState) -> Decision | None:
        del query
        self.heard.append(f"before {self.name}")
        return None

    def review(self, decision: Decision, query: QueryState) -> Decision:
        if query.ledger.visits:
            self.heard.append(f"after {self.name}")
        return decision


def test_they_stand_in_layers(server: OpenAIServer) -> None:
    heard: list[str] = []
    server.script = answering("By the small.", verdicts="a")
    mixed = mix(server)
    guards = [Noting(mixed.mix_config, name, heard) for name in ("outer", "inner")]
    mixed.with_format(mixed.answer_format, guards).invoke("Where?")
    assert heard == ["before outer", "before inner", "after inner", "after outer"]


class TestOpenings:
    def test_a_spent_limit_goes_before_a_forced_model(self, server: OpenAIServer) -> None:
        loop = QueryLoop(mix(server, force_model="large").mix_config)
        assert loop.opening().model_index == 1
        spent = QueryState("?", {"answer": ""}, allowance=SpendAllowance(cheapest="Spent."))
        opening = loop.opening(spent)
        assert (opening.model_index, opening.samples, opening.why) == (0, 0, "Spent.")

    def test_a_forced_model_needs_no_reason_for_not_being_checked(
        self, server: OpenAIServer
    ) -> None:
        config = mix(server, force_model=1, verification=False).mix_config
        assert "force_model" in QueryLoop(config).opening().why

    def test_a_guard_of_a_run_goes_before_the_router(self, server: OpenAIServer) -> None:
        class Second(Guard):
            def opening(self, query: QueryState) -> Decision | None:
                del query
                return ask_unchecked(1, "As before.")

        config = mix(server).mix_config
        assert QueryLoop(config, [Second(config)]).opening().why == "As before."


class TestReviews:
    def test_verification_off(self, server: OpenAIServer) -> None:
        guard = VerificationOffGuard(mix(server, verification=False).mix_config)
        assert guard.review(NEXT, query()).samples == 0
        assert guard.review(KEEP, query()) is KEEP
        assert VerificationOffGuard(mix(server).mix_config).review(NEXT, query()) is NEXT

    def test_what_a_raised_cost_weight_decided_says_so(self, server: OpenAIServer) -> None:
        guard = SpendGuard(mix(server).mix_config)
        near = query(allowance=SpendAllowance(2.0, note="(Near.)"))
        assert guard.review(KEEP.model_copy(update={"why": "Good."}), near).why == "Good. (Near.)"

    @pytest.mark.parametrize(
        ("decision", "said"),
        [
            (Decision(action="escalate", model_index=0), "has been asked already"),
            (Decision(action="escalate", model_index=2), "is not in the mix"),
            (Decision(action="verify", model_index=1), "gave no answer that can be checked"),
            (Decision(action="answer", model_index=1), "but it gave none"),
        ],
    )
    def test_what_cannot_be_carried_out(
        self, server: OpenAIServer, decision: Decision, said: str
    ) -> None:
        guard, asked = InvalidDecisionGuard(mix(server).mix_config), query()
        asked.routed = decision
        instead = guard.review(decision, asked)
        assert (instead.action, instead.model_index, instead.samples) == ("escalate", 1, 0)
        assert said in instead.why
        assert guard.preempt(asked) == instead, "the router is not asked again"

    def test_a_check_that_failed_is_not_made_again(self, server: OpenAIServer) -> None:
        guard = FailedCheckGuard(mix(server, on_verification_error="keep").mix_config)
        asked = query(Verification(score=0.4, checks={"other": Verification(problem="It failed")}))
        asked.unchecked[0, "other"] = "It failed"
        again = Decision(action="verify", model_index=0, check="other")
        assert guard.review(again, asked).action == "answer"
        assert asked.degraded
        first = Decision(action="verify", model_index=0)
        assert guard.review(first, asked) is first


def test_a_deadline_keeps_what_there_is_whatever_was_decided(server: OpenAIServer) -> None:
    guard = DeadlineGuard(mix(server).mix_config)
    late = query(Verification(score=0.1), clock=Deadline(0.0))
    kept = guard.review(NEXT, late)
    assert (kept.action, kept.model_index, kept.why) == ("answer", 0, late.degraded)
    in_time = query(Verification(score=0.1), clock=Deadline(60.0))
    assert guard.review(NEXT, in_time) is NEXT


def test_the_trace_of_a_sticky_run_names_the_router_of_the_mix(
    server: OpenAIServer, tools: Tools
) -> None:
    server.script = steps(
        [call("weather", city="Turku"), "Rain."], [call("weather", city="Oulu"), "Sun."], "r"
    )
    with collect_runs() as collected:
        agent(server, tools, sticky=True).invoke(ASKED)
    assert {run.metadata["automix_policy"] for run in mixes_in(collected.traced_runs)} == {
        "threshold:0.5"
    }
    assert [(body["model"], is_check(body)) for body in server.requests] == [
        ("small", False),
        ("small", True),
        ("large", False),
        ("large", False),
    ]


def mixes_in(runs: list[Any]) -> Iterator[Any]:
    for run in runs:
        if run.name == "AutoMixMiddleware":
            yield run
        yield from mixes_in(run.child_runs)


def test_the_same_class_with_another_format(server: OpenAIServer) -> None:
    mixed = AutoMixRunnable.from_models(
        server.model("small"), server.model("large"), router=ThresholdRouter()
    )
    structured: Any = mixed.with_structured_output({"title": "Ship", "properties": {}})
    assert type(structured) is type(mixed)
    assert structured.mix_config.router is mixed.router
    assert structured.answer_format is not mixed.answer_format
