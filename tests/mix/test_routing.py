"""What a fitted policy does inside the mix: abstain, and treat a query alike each time."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda

from langchain_automix import AutoMixRunnable, Decision, POMDPRouter, RoutingState, Verification
from langchain_automix.routers.baselines import AlwaysRouter
from tests.support.builders.mixes import mix as mixed
from tests.support.builders.mixes import pay
from tests.support.builders.scripted_replies import call
from tests.support.builders.synthetic_logs import world
from tests.support.servers.openai_server import OpenAIServer, answering


def mix(router: Any) -> AutoMixRunnable:
    small, large = (FakeListChatModel(responses=[f"{name} answer"]) for name in ("small", "large"))
    check: RunnableLambda[Any, Any] = RunnableLambda(lambda _: Verification(verdicts=(False,) * 8))
    return AutoMixRunnable(models=[small, large], verifier=check, router=router)


def test_an_abstention_shows_no_draft() -> None:
    decision = Decision(action="abstain", model_index=0, why="hopeless")
    abstain: RunnableLambda[Any, Any] = RunnableLambda(lambda _: decision)
    message = mix(abstain).invoke("What?")
    assert message.content == "No answer: none is likely enough to be right."
    assert message.response_metadata["automix"]["action"] == "abstain"


def test_a_mixed_policy_treats_a_question_alike_each_time() -> None:
    automix = mix(POMDPRouter.fit(world(300), max_cost=3.0))
    questions = [f"What is {i}?" for i in range(12)]
    models = [
        [automix.invoke(q).response_metadata["automix"]["model_index"] for q in questions]
        for _ in range(2)
    ]
    assert models[0] == models[1]


@pytest.mark.parametrize("name", ["pay", "no_tool"])
def test_an_answer_that_cannot_be_used_is_not_kept_for_another_one(
    server: OpenAIServer, name: str
) -> None:
    def back(state: RoutingState) -> Decision:
        asked = state.current.model_index
        action: Any = "answer" if asked else "escalate"
        return Decision(action=action, model_index=0 if asked else 1, why="by a rule")

    server.script = answering(call(name, amount=3), "Nothing is to be paid.")  # type: ignore[arg-type]
    asked = mixed(server, router=RunnableLambda(back), always_escalate_tools=["pay"])
    message = asked.bind_tools([pay]).invoke("Pay?")
    assert message.content == "Nothing is to be paid."
    degraded = message.response_metadata["automix"]["degraded"]
    assert "keeps model 0's answer, which cannot be used" in degraded


def test_one_model_alone_is_no_escalation() -> None:
    alone = mix(AlwaysRouter.fit(world(100), cost_weight=10.0)).invoke("What?")
    record = alone.response_metadata["automix"]
    assert (record["model_index"], record["action"], record["escalated"]) == (0, "answer", False)
    assert record["verdicts"] == []


def test_checks_that_say_nothing_more_come_to_an_end() -> None:
    """A policy that would draw on must not pay for ever when nothing valid comes."""
    router = POMDPRouter.fit(world(400, sample_cost=0.05), cost_weight=0.05)
    assert any(row.step.action == "verify" for row in router.policy.plans[0].tables[0].rows)
    drawn = 0

    def check(asked: Any) -> Verification:
        nonlocal drawn
        verdicts = (True,) + (None,) * ((asked.get("samples") or 8) - 1)
        found = verdicts if not asked.get("drawn") else (None,) * len(verdicts)
        drawn += len(found)
        return Verification(verdicts=found)

    small, large = (FakeListChatModel(responses=[f"{name} answer"]) for name in ("small", "large"))
    verifier: RunnableLambda[Any, Any] = RunnableLambda(check)
    automix = AutoMixRunnable(models=[small, large], verifier=verifier, router=router)
    assert automix.invoke("What?").content in ("small answer", "large answer")
    assert drawn <= 24
