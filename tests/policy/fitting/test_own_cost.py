"""A query's own answer scales the price of a larger model, where a policy says so."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from langchain_automix import AutoMixError, POMDPRouter, RoutingLog, RoutingState, Verification
from langchain_automix.evaluation.router_replay import replay_router
from langchain_automix.mix.record import QueryLedger
from langchain_automix.policy.data.arrays import LogArrays, to_arrays
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.replay import replay_plan, replay_policy
from langchain_automix.types import ModelCall
from tests.support.builders.synthetic_logs import query, scored

WEIGHT = 0.03


def long_and_short(n: int, seed: int) -> LogArrays:
    """A world in which long queries cost more from both models, by the same factor."""
    data, rng = scored("monotone", n, seed), np.random.default_rng(seed + 10**4)
    return replace(data, cost=data.cost * rng.lognormal(0, 0.7, (n, 1)))


def as_log(data: LogArrays) -> RoutingLog:
    queries = []
    for i in range(len(data)):
        small, large = data.quality[i].tolist()
        found = query(i, small, large, float(data.score[i, 0]))
        for answer, cost in zip(found["answers"], data.cost[i].tolist(), strict=True):
            answer["cost"] = cost
        queries.append(found)
    return RoutingLog(queries)


@pytest.fixture(scope="module")
def data() -> LogArrays:
    return long_and_short(150, 0)


@pytest.fixture(scope="module")
def policy(data: LogArrays) -> Policy:
    return fit_policy(data, Goal(cost_weight=WEIGHT), own_cost=True)


@pytest.mark.parametrize("relative", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("cost_weight", [None, 0.01])
def test_it_decides_as_at_a_cost_weight_scaled_by_the_answers_own_cost(
    policy: Policy, relative: float, cost_weight: float | None
) -> None:
    router = POMDPRouter(policy=policy)
    plain = POMDPRouter(policy=policy.model_copy(update={"own_cost": False}))
    own = {"": relative * policy.fit.cost[0]}
    for score in np.linspace(0, 1, 21).tolist():
        state = RoutingState.after(Verification(score=score), policy.models)
        found = router.decide(
            state.model_copy(update={"answer_cost": own, "cost_weight": cost_weight})
        )
        scaled = (WEIGHT if cost_weight is None else cost_weight) * relative
        expected = plain.decide(state.model_copy(update={"cost_weight": scaled}))
        assert (found.action, found.model_index) == (expected.action, expected.model_index)
        assert found.values == pytest.approx(expected.values)
        # A cost in another unit, or none, says nothing.
        for unknown in ({}, {"USD": 5.0}):
            silent = router.decide(state.model_copy(update={"answer_cost": unknown}))
            usual = plain.decide(state)
            assert silent.why == (
                f"{usual.why} What this answer cost is not known, so the price is that of a usual "
                "query."
            )
            assert silent.model_copy(update={"why": usual.why}) == usual


def test_the_router_and_the_replay_agree(data: LogArrays, policy: Policy) -> None:
    log = as_log(data)
    slow = replay_router(POMDPRouter(policy=policy), log)
    fast = replay_policy(policy, to_arrays(log), log.store.ids)
    plain = replay_plan(policy.plans[0], to_arrays(log))
    assert [outcome.model_index for outcome in slow] == fast.model.tolist()
    assert [outcome.cost for outcome in slow] == pytest.approx(fast.cost.tolist())
    assert (fast.model != plain.model).any()


def test_long_queries_are_escalated_less(policy: Policy) -> None:
    test = long_and_short(4_000, 5)
    relative = test.cost[:, 0] / test.cost[:, 0].mean()
    own = replay_plan(policy.plans[0], test, policy.own_costs)
    plain = replay_plan(policy.plans[0], test)
    assert relative[own.model == 1].mean() < relative[plain.model == 1].mean() - 0.2
    assert own.utility(WEIGHT).mean() > plain.utility(WEIGHT).mean() + 0.005


def test_where_costs_are_alike_nothing_changes() -> None:
    data = scored("monotone", 100, 0)
    own, plain = (fit_policy(data, Goal(max_loss=0.05), own_cost=own) for own in (True, False))
    assert own.plans == plain.plans
    assert own.first_share == pytest.approx(plain.first_share)
    one, other = (replay_policy(p, data, [str(i) for i in range(100)]) for p in (own, plain))
    assert one.cost.tolist() == other.cost.tolist()


def test_a_budget_counts_what_it_saves(data: LogArrays) -> None:
    policy = fit_policy(data, Goal(max_cost=5.0), own_cost=True)
    shares = (policy.first_share, 1 - policy.first_share)
    costs = [replay_plan(plan, data, policy.own_costs).cost.mean() for plan in policy.plans]
    assert sum(s * c for s, c in zip(shares, costs, strict=False)) == pytest.approx(5.0)


def test_the_file_says_so_and_only_then(policy: Policy) -> None:
    assert policy.model_dump()["own_cost"] is True
    plain = policy.model_copy(update={"own_cost": False})
    assert "own_cost" not in plain.model_dump()
    assert plain.own_costs is None


def test_not_with_a_guarantee_on_risk(data: LogArrays) -> None:
    with pytest.raises(AutoMixError, match="own_cost and max_risk cannot be had together"):
        fit_policy(data, Goal(max_risk=0.3), own_cost=True)


def test_the_mix_tells_what_the_answer_cost() -> None:
    prices = {"m": {"input": 1.0, "output": 4.0}}
    usage = {"input_tokens": 100, "output_tokens": 25, "total_tokens": 125}
    ledger = QueryLedger(prices=prices, names=("m",), identities=(("m", None),))
    assert ledger.answer_cost(0) == {}
    ledger.add_request(0, ModelCall(model="m", usage=usage))
    assert ledger.answer_cost(0) == {"USD": float(Decimal(200) / 10**6)}
    ledger.add_unheard_request(0)
    assert ledger.answer_cost(0) == {}
