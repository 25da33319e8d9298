"""Routers as Runnables: what they decide, and what they say about it."""

from __future__ import annotations

import pytest

from langchain_automix import (
    AutoMixError,
    AutoMixRunnable,
    POMDPRouter,
    RoutingState,
    ThresholdRouter,
    UncalibratedWarning,
    Verification,
    Visit,
)
from langchain_automix.routers import pomdp as _pomdp
from langchain_automix.routers.base import Router
from langchain_automix.routers.baselines import AlwaysRouter
from langchain_automix.routers.explanations import findings
from tests.support.builders.synthetic_logs import world
from tests.support.servers.openai_server import OpenAIServer


def state(accepts: int, rejects: int, invalid: int = 0, at: int = 0) -> RoutingState:
    verdicts = (True,) * accepts + (False,) * rejects + (None,) * invalid
    visits = tuple(Visit(model_index=i) for i in range(at))
    last = Visit(model_index=at, verification=Verification(verdicts=verdicts))
    return RoutingState(visits=(*visits, last))


class TestThreshold:
    @pytest.mark.parametrize(("accepts", "action"), [(4, "answer"), (3, "escalate")])
    def test_the_threshold_itself_is_enough(self, accepts: int, action: str) -> None:
        assert ThresholdRouter(threshold=0.5).invoke(state(accepts, 8 - accepts)).action == action

    def test_unknown_has_its_own_policy(self) -> None:
        unknown = state(0, 0, invalid=8)
        assert ThresholdRouter(threshold=0).invoke(unknown).action == "escalate"
        kept = ThresholdRouter(threshold=1, on_unknown="answer").invoke(unknown)
        assert kept.action == "answer"
        assert "None of the 8 verdicts is valid: unknown" in kept.why

    def test_the_last_model_is_kept(self) -> None:
        decision = ThresholdRouter().invoke(state(0, 8, at=1))
        assert (decision.action, decision.model_index) == ("answer", 1)
        assert "no larger model" in decision.why

    @pytest.mark.parametrize("threshold", [-0.1, 1.1])
    def test_a_threshold_out_of_range(self, threshold: float) -> None:
        with pytest.raises(ValueError, match="threshold"):
            ThresholdRouter(threshold=threshold)


class TestPOMDP:
    async def test_all_ways_to_call_agree(self) -> None:
        router = POMDPRouter.fit(world(200))
        found = [
            router.invoke(state(2, 6)),
            await router.ainvoke(state(2, 6)),
            router.batch([state(2, 6)])[0],
            (await router.abatch([state(2, 6)]))[0],
        ]
        assert all(decision == found[0] for decision in found)

    def test_belief_values_and_reason(self) -> None:
        router = POMDPRouter.fit(world(400))
        low, high = router.invoke(state(1, 7)), router.invoke(state(8, 0))
        assert (low.action, low.model_index, low.samples) == ("escalate", 1, 0)
        assert (high.action, high.model_index) == ("answer", 0)
        for decision in (low, high):
            best = max(decision.values, key=lambda option: decision.values[option])
            assert best.startswith(decision.action)
            assert set(decision.belief) == {"small", "large"}
        assert low.why.startswith(
            "1 of 8 verdicts accept the answer: large is expected to gain +0."
        )
        assert "of quality that its cost is worth" in low.why
        assert "not calibrated" not in low.why

    def test_invalid_verdicts_are_mentioned(self) -> None:
        assert "(2 more were invalid)" in POMDPRouter.fit(world(50)).invoke(state(3, 3, 2)).why

    def test_unknown_is_escalated_or_decided_by_the_means(self) -> None:
        log = world(200)
        unknown = state(0, 0, invalid=8)
        assert POMDPRouter.fit(log).invoke(unknown).action == "escalate"
        by_prior = POMDPRouter.fit(log, cost_weight=0.06).model_copy(update={"on_unknown": "prior"})
        decision = by_prior.invoke(unknown)
        assert decision.action == "answer"
        assert decision.belief["small"] == pytest.approx(by_prior.policy.fit.quality[0])

    def test_the_prior_says_once_that_it_is_one(self) -> None:
        _pomdp._warn_uncalibrated.cache_clear()  # another test of this process may have heard it
        router = POMDPRouter()
        with pytest.warns(UncalibratedWarning) as caught:
            decisions = [router.invoke(state(a, 8 - a)) for a in range(9)]
        assert len(caught) == 1
        assert [decision.action for decision in decisions] == ["escalate"] * 5 + ["answer"] * 4

    def test_a_fit_says_nothing(self, recwarn: pytest.WarningsRecorder) -> None:
        POMDPRouter.fit(world(50)).invoke(state(4, 4))
        assert not recwarn.list

    def test_a_policy_is_for_the_models_of_its_log(self, server: OpenAIServer) -> None:
        models = [server.model(name) for name in ("small", "large", "third")]
        with pytest.raises(ValueError, match="fitted to 2 models .* but 3 are mixed"):
            AutoMixRunnable(models=models, router=POMDPRouter.fit(world(20)))
        with pytest.raises(AutoMixError, match="fitted to 2 models"):
            POMDPRouter.fit(world(20)).opening(3)


def unusable(*others: Verification | None, models: int = 2) -> RoutingState:
    """The state after these checks and an answer that cannot be used."""
    bad = Verification(problem="the answer calls no known tool: 'foo'", usable=False)
    visits = tuple(Visit(model_index=i, verification=v) for i, v in enumerate([*others, bad]))
    return RoutingState(models=("small", "large", "third")[:models], visits=visits)


class TestUnusable:
    """An answer that cannot be used is decided the same way by every router."""

    @pytest.mark.parametrize(
        "router", [ThresholdRouter(threshold=0, on_unknown="answer"), POMDPRouter()]
    )
    async def test_the_next_model_is_asked(self, router: Router) -> None:
        for decision in (
            router.invoke(unusable()),
            await router.ainvoke(unusable()),
            router.decide(unusable()),
        ):
            assert (decision.action, decision.model_index, decision.samples) == ("escalate", 1, 0)
            assert decision.why == "The answer calls no known tool: 'foo': large is asked."
        assert router.invoke(unusable(models=3)).samples is None, "the next answer is checked"

    def test_evidence_for_it_changes_nothing(self) -> None:
        found = Verification(verdicts=(True,) * 8, problem="it does not parse", usable=False)
        for router in (ThresholdRouter(), POMDPRouter.fit(world(200))):
            assert router.invoke(RoutingState.after(found)).action == "escalate"

    @pytest.mark.parametrize("router", [ThresholdRouter(), POMDPRouter()])
    def test_after_the_last_model_no_earlier_answer_comes_back(self, router: Router) -> None:
        doubted = Verification(verdicts=(False,) * 8)
        decision = router.invoke(unusable(doubted))
        assert (decision.action, decision.model_index) == ("answer", 1)
        assert decision.why.endswith(", and there is no larger model to ask.")

    def test_the_last_answer_is_kept_where_none_is_usable(self) -> None:
        decision = ThresholdRouter().invoke(unusable(Verification(problem="x", usable=False)))
        assert (decision.action, decision.model_index) == ("answer", 1)
        assert "no larger model" in decision.why

    def test_a_fitted_plan_goes_on_to_its_next_model_without_a_check(self) -> None:
        router = POMDPRouter.fit(world(200))
        decision = router.invoke(unusable())
        assert (decision.action, decision.model_index, decision.samples) == ("escalate", 1, 0)
        always = AlwaysRouter.fit(world(200), cost_weight=10.0)
        assert always.policy.plans[0].plays == (0,)
        assert always.invoke(unusable()).model_index == 1, "also a model that is not in the plan"

    def test_a_plan_takes_an_earlier_unusable_answer(self) -> None:
        broken = Visit(model_index=0, verification=Verification(problem="x", usable=False))
        for check in (None, Verification(verdicts=(True,) * 8)):
            visits = (broken, Visit(model_index=1, verification=check))
            decision = POMDPRouter.fit(world(200)).invoke(RoutingState(visits=visits))
            assert (decision.action, decision.model_index) == ("answer", 1)

    def test_once_unusable_always_unusable(self) -> None:
        broken = Verification(problem="it does not parse", usable=False)
        good = Verification(verdicts=(True,))
        for both in (broken.and_then(good), good.and_then(broken)):
            assert not both.usable
            assert both.problem == "it does not parse"
        assert good.and_then(good).usable
        assert findings(Verification(usable=False)) == "The answer cannot be used"
