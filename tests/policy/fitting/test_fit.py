"""Goals, guarantees and bad logs; the released rule against the released code."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np
import pytest

from langchain_automix import AutoMixError, POMDPRouter, RoutingLog, RoutingState, Verification
from langchain_automix.evaluation.evaluate import evaluate
from langchain_automix.evaluation.router_replay import replay_router
from langchain_automix.policy.data.arrays import to_arrays
from langchain_automix.policy.fitting.baselines import fit_rule
from langchain_automix.policy.fitting.candidates import CandidateFitter
from langchain_automix.policy.fitting.fit import fit_policy, indifferent_weight
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.fitting.risk_control import upper_limit
from langchain_automix.policy.replay import replay_plan
from tests.benchmarks import released
from tests.support.builders.synthetic_logs import query, world


class TestGoals:
    def test_without_a_goal_random_mixing_is_indifferent_and_it_says_so(self) -> None:
        log = world(300)
        policy = fit_policy(log)
        small, large = CandidateFitter(to_arrays(log)).level
        assert policy.cost_weight == pytest.approx((large - small) / 9.0)
        assert policy.cost_weight == pytest.approx(np.diff(policy.fit.quality)[0] / 9.0, rel=0.02)
        assert "mixing small and large at random neither gains nor loses" in policy.fit.notes[0]

    def test_an_extreme_weight_asks_one_model_alone(self) -> None:
        never, always = (fit_policy(world(300), Goal(cost_weight=w)) for w in (10.0, 0.0))
        assert never.plans[0].name == "always:small"
        assert always.plans[0].name in ("always:large", "monotone:small->large")

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
    def test_max_cost_is_met_exactly_in_expectation(self, share: float) -> None:
        log = world(400)
        budget = 1.0 + share * 9.0
        policy = fit_policy(log, Goal(max_cost=budget), foretell=False)
        costs = [replay_plan(plan, to_arrays(log)).cost.mean() for plan in policy.plans]
        mixed = policy.first_share * costs[0] + (1 - policy.first_share) * costs[-1]
        assert mixed == pytest.approx(budget)
        outcomes = replay_router(POMDPRouter(policy=policy), log)
        assert sum(o.cost for o in outcomes) / len(outcomes) == pytest.approx(budget, rel=0.15)

    def test_mixing_is_by_id_and_seed(self) -> None:
        policy = fit_policy(world(200), Goal(max_cost=3.0), foretell=False)
        got = [policy.plans.index(policy.plan_for(f"q{i}")) for i in range(1000)]
        assert got == [policy.plans.index(policy.plan_for(f"q{i}")) for i in range(1000)]
        first = got.count(0) / 1000
        assert first == pytest.approx(policy.first_share, abs=0.05)
        other = policy.model_copy(update={"seed": 7})
        assert got != [other.plans.index(other.plan_for(f"q{i}")) for i in range(1000)]

    def test_min_quality_is_reached_at_less_than_the_large_model_costs(self) -> None:
        test = to_arrays(world(3000, seed=5))
        policy = fit_policy(world(1000), Goal(min_quality=0.8), foretell=False)
        shares = (policy.first_share, 1 - policy.first_share)
        outcomes = [replay_plan(plan, test) for plan in policy.plans]
        quality = sum(s * o.quality.mean() for s, o in zip(shares, outcomes, strict=False))
        cost = sum(s * o.cost.mean() for s, o in zip(shares, outcomes, strict=False))
        assert quality == pytest.approx(0.8, abs=0.03)
        assert cost < 7

    def test_max_loss_is_min_quality_below_the_best_single_model(self) -> None:
        log = world(400)
        best = float(CandidateFitter(to_arrays(log)).level.max())
        for loss in (0.0, 0.01, 0.1, 1.0):
            lost = fit_policy(log, Goal(max_loss=loss), foretell=False)
            least = fit_policy(log, Goal(min_quality=max(best - loss, 0.0)), foretell=False)
            assert (lost.plans, lost.first_share) == (least.plans, least.first_share)
            assert lost.goal == {"max_loss": loss}

    def test_max_loss_saves_where_the_check_tells_right_from_wrong(self) -> None:
        test = to_arrays(world(3000, seed=5))
        policy = fit_policy(world(1000), Goal(max_loss=0.02), foretell=False)
        shares = (policy.first_share, 1 - policy.first_share)
        outcomes = [replay_plan(plan, test) for plan in policy.plans]
        quality = sum(s * o.quality.mean() for s, o in zip(shares, outcomes, strict=False))
        cost = sum(s * o.cost.mean() for s, o in zip(shares, outcomes, strict=False))
        assert test.quality[:, 1].mean() - quality == pytest.approx(0.02, abs=0.03)
        assert cost < 8.5

    @pytest.mark.parametrize(
        ("goal", "message"),
        [
            ({"max_cost": 0.5}, r"costs from 1 \(always:small\) to [\d.]+ a query"),
            ({"min_quality": 0.999}, "reaches a quality from 0.5"),
            ({"max_risk": 0.001}, "least risk that this log supports is 0.2"),
        ],
    )
    def test_a_goal_out_of_reach_names_the_range(self, goal: Any, message: str) -> None:
        with pytest.raises(AutoMixError, match=message):
            fit_policy(world(300), Goal(**goal))

    @pytest.mark.parametrize(
        ("goal", "message"),
        [
            ({"cost_weight": -1.0}, "cost_weight must be a number of at least 0"),
            ({"cost_weight": float("nan")}, "cost_weight must be"),
            ({"cost_weight": float("inf")}, "cost_weight must be"),
            ({"min_quality": 1.5}, "min_quality must be a quality in"),
            ({"max_loss": -0.01}, "max_loss must be a loss of quality in"),
            ({"max_loss": 0.01, "min_quality": 0.5}, "Give one goal, not both min_quality"),
            ({"max_risk": 0.0}, "max_risk must be a chance"),
            ({"max_cost": 1.0, "min_quality": 0.5}, "Give one goal, not both max_cost"),
        ],
    )
    def test_a_goal_that_is_none(self, goal: Any, message: str) -> None:
        with pytest.raises(AutoMixError, match=message):
            Goal(**goal)

    def test_deterministic(self) -> None:
        assert fit_policy(world(100)) == fit_policy(world(100))

    def test_prior_weights_move_the_policy(self) -> None:
        """Weighed towards queries whose small answers are right, one is believed sooner."""
        log, goal = world(300), Goal(cost_weight=0.03)
        right = [float(q.answers[0].quality == 1) + 0.2 for q in log]
        rows = [
            fit_policy(log, goal, weights=w).plans[0].tables[0].row_for([(4, 4, 0)])
            for w in (None, right)
        ]
        assert rows[0] is not None
        assert rows[1] is not None
        assert rows[1].quality[0] > rows[0].quality[0] + 0.1
        with pytest.raises(AutoMixError, match="300 numbers of at least 0"):
            fit_policy(log, weights=[1.0])


class TestRisk:
    def test_the_limit_covers_the_risk(self) -> None:
        rng = np.random.default_rng(0)
        risk, n = 0.1, 200
        limits = [upper_limit(rng.binomial(n, risk) / n, n, 0.1) for _ in range(400)]
        assert np.mean([limit >= risk for limit in limits]) >= 0.9
        assert upper_limit(0.0, 100, 0.05) == pytest.approx(1 - 0.05 ** (1 / 100), abs=0.01)

    def test_the_guarantee_holds_over_draws(self) -> None:
        test = to_arrays(world(4000, seed=77))
        kept = 0
        for seed in range(12):
            policy = fit_policy(
                world(600, seed=seed), Goal(max_risk=0.2, confidence=0.9, cost_weight=0.05)
            )
            outcomes = replay_plan(policy.plans[0], test)
            kept += float((1 - outcomes.quality).mean()) <= 0.2
        assert kept >= 10

    def test_abstaining_reaches_less_risk(self) -> None:
        goal = Goal(max_risk=0.06, abstain_value=0.2, cost_weight=0.05)
        policy = fit_policy(world(600), goal)
        outcomes = replay_plan(policy.plans[0], to_arrays(world(3000, seed=8)))
        wrong = np.where(outcomes.model < 0, 0.0, 1 - outcomes.quality).mean()
        assert wrong <= 0.07
        assert (outcomes.model < 0).any()
        decided = POMDPRouter(policy=policy).decide(
            RoutingState.after(Verification(verdicts=(False,) * 8))
        )
        assert decided.action in ("abstain", "escalate")


class TestBadLogs:
    @pytest.mark.parametrize(
        ("queries", "message"),
        [
            ([], "The routing log is empty"),
            ([{"id": "a", "answers": [{"model": "m", "quality": 1, "cost": 1}]}], "has 1"),
            ([query(1, 0, 1, [True], cost=0.5)], "costs no more than small"),
            (
                [
                    {
                        "id": "a",
                        "answers": [
                            {"model": "s", "quality": 1, "cost": 1},
                            {"model": "l", "quality": None},
                        ],
                    }
                ],
                "nothing to fit",
            ),
            ([query(i, 0, 1, [True] if i % 2 else 0.5) for i in range(8)], "mixes checks"),
        ],
    )
    def test_one_clear_error(self, queries: Any, message: str) -> None:
        with pytest.raises(AutoMixError, match=message):
            POMDPRouter.fit(RoutingLog(queries))

    def test_three_queries(self) -> None:
        log = RoutingLog([query(i, float(i > 0), 1.0, [i > 0] * 8) for i in range(3)])
        policy = fit_policy(log)
        assert not policy.plans[0].tables
        assert any("3 complete queries" in note for note in policy.fit.notes)

    def test_no_check_anywhere(self) -> None:
        answers = [
            {"model": "s", "quality": 0.5, "cost": 1},
            {"model": "l", "quality": 1, "cost": 9},
        ]
        policy = fit_policy(RoutingLog([{"id": str(i), "answers": answers} for i in range(40)]))
        assert any("No answer in the log was checked" in note for note in policy.fit.notes)
        assert policy.plans[0].name.startswith("always:")

    def test_constant_quality(self) -> None:
        log = RoutingLog([query(i, 1.0, 1.0, [i % 2 > 0] * 4) for i in range(60)])
        policy = fit_policy(log)
        assert policy.plans[0].name == "always:small"
        assert any("same quality" in note for note in policy.fit.notes)

    def test_constant_verdicts(self) -> None:
        log = RoutingLog([query(i, float(i % 2), 1.0, [True] * 4) for i in range(60)])
        assert not fit_policy(log).plans[0].tables

    def test_invalid_verdicts_are_evidence(self) -> None:
        """Here an invalid verdict, and nothing else, says that the answer is wrong."""
        verdicts: list[list[bool | None]] = [[None, None, True, True], [True] * 4]
        log = RoutingLog([query(i, float(i % 2), 1.0, verdicts[i % 2]) for i in range(200)])
        router = POMDPRouter.fit(log, cost_weight=0.02)
        found = [
            router.decide(RoutingState.after(Verification(verdicts=(verdict,))))
            for verdict in (None, True)
        ]
        assert found[0].belief["small"] < found[1].belief["small"] - 0.3

    def test_missing_answers_are_left_out(self) -> None:
        missing = query(999, 0.0, 1.0, [True] * 8)
        missing["answers"][1] = {"model": "large", "quality": None}
        log = RoutingLog([*world(50), missing])
        assert fit_policy(log).fit.queries == 50


class TestRules:
    @pytest.mark.parametrize("family", ["always", "threshold", "double_threshold", "released"])
    def test_a_rule_replays_at_the_utility_that_it_was_chosen_for(self, family: Any) -> None:
        columns = to_arrays(world(200))
        fit = fit_rule(columns, 0.03, family)
        assert replay_plan(fit.plan, columns).utility(0.03).mean() == pytest.approx(fit.expected)

    def test_the_released_rule_is_that_of_the_released_code(self) -> None:
        modules = released.load()
        if modules is None:
            pytest.skip("automix-llm is not at hand (AUTOMIX_LLM=DIR)")
        for seed in range(3):
            columns = to_arrays(world(200, seed=seed))
            weight = indifferent_weight(columns)
            [theirs] = released.chosen(modules, columns, columns, [weight])
            assert fit_rule(columns, weight, "released").expected == pytest.approx(theirs.mean())


def test_a_plan_and_its_router_replay_alike() -> None:
    log = world(150)
    router = POMDPRouter.fit(log, cost_weight=0.03)
    slow = replay_router(router, log)
    fast = replay_plan(router.policy.plans[0], to_arrays(log))
    assert [o.model_index for o in slow] == fast.model.tolist()
    assert [o.cost for o in slow] == pytest.approx(fast.cost.tolist())
    assert [o.samples for o in slow] == fast.samples.tolist()


def _note(calls: list[str], frame: object, event: str, arg: object) -> None:
    calls.append(event)


def test_a_decision_is_a_look_up() -> None:
    """It takes some 30 microseconds; here its calls are counted, on any machine."""
    state = RoutingState.after(Verification(verdicts=(True, False)))
    counts = []
    for queries in (100, 400):
        router, calls = POMDPRouter.fit(world(queries), cost_weight=0.03), list[str]()
        router.decide(state)  # makes what is made once
        sys.setprofile(partial(_note, calls))
        try:
            router.decide(state)
        finally:
            sys.setprofile(None)
        counts.append(len(calls))
    assert max(counts) < 1000
    assert abs(counts[0] - counts[1]) < 100, "it does not grow with the log"


def test_more_verdicts_than_logged_are_read() -> None:
    router = POMDPRouter.fit(world(400, k=4), cost_weight=0.03)
    many = router.decide(RoutingState.after(Verification(verdicts=(True,) * 14 + (False,) * 2)))
    more = router.decide(RoutingState.after(Verification(verdicts=(True,) * 40)))
    few = router.decide(RoutingState.after(Verification(verdicts=(False,) * 12 + (True,) * 2)))
    assert many.belief["small"] > 0.7
    assert few.belief["small"] < 0.3
    assert more.belief["small"] > 0.8


@pytest.mark.parametrize(
    "goals",
    [
        {"max_risk": 0.5, "max_cost": 2.0},
        {"max_risk": 0.5, "min_quality": 0.5},
        {"max_risk": 0.5, "max_loss": 0.01},
        {"abstain_value": 0.5, "min_quality": 0.5},
    ],
)
def test_goals_that_cannot_be_had_together(goals: dict[str, float]) -> None:
    with pytest.raises(AutoMixError, match="cannot be had together"):
        POMDPRouter.fit(world(60), **goals)  # type: ignore[arg-type]


def test_one_short_check_does_not_hold_the_others_down() -> None:
    log = list(world(300, sample_cost=0.001))
    first = log[0].model_dump()
    first["answers"][0]["verification"]["verdicts"] = [True]
    shorter = RoutingLog([first, *log[1:]])
    whole, cut = (
        POMDPRouter.fit(found, cost_weight=0.02).policy.plans[0].opening.samples
        for found in (RoutingLog(log), shorter)
    )
    assert whole == cut


def test_a_log_with_missing_checks_is_judged_too() -> None:
    log = [query.model_dump() for query in world(120)]
    for record in log[::3]:
        del record["answers"][0]["verification"]
    some = RoutingLog(log)
    found = evaluate(POMDPRouter.fit(some, cost_weight=0.02), some)
    assert found.queries == 120
