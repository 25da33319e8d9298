"""The frontier: mixes by brute force, and figures of queries that had no part in the choice."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_automix import RoutingLog
from langchain_automix.evaluation.cost_at_quality import (
    LEVELS,
    cheapest_mix,
    cost_table,
    costs_at_quality,
    cross_fit,
    cross_fitted_frontier,
)
from langchain_automix.evaluation.headline import build_headline
from langchain_automix.policy.data.arrays import to_arrays
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.replay import replay_policy
from tests.support.builders.synthetic_logs import query, world

_OPTIONS = st.lists(
    st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=6, unique_by=lambda o: o[1]
)


@given(_OPTIONS, st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_the_cheapest_mix_by_brute_force(options: list[tuple[float, float]], least: float) -> None:
    costs, qualities = np.array(options).T
    found = cheapest_mix(costs, qualities, least)
    if found is None:
        assert (qualities < least).all()
        return
    first, second, share = found
    assert 0 <= share <= 1
    quality = share * qualities[first] + (1 - share) * qualities[second]
    cost = share * costs[first] + (1 - share) * costs[second]
    assert quality >= least - 1e-6
    for i in range(len(costs)):
        for j in range(len(costs)):
            for part in np.linspace(0, 1, 21):
                if part * qualities[i] + (1 - part) * qualities[j] >= least:
                    assert cost <= part * costs[i] + (1 - part) * costs[j] + 1e-6


def frontier_of(log: RoutingLog) -> dict[str, Any]:
    data = to_arrays(log)
    folds = cross_fit(data, log.store.ids, 0.03, 0)
    return dict(costs_at_quality(folds, cross_fitted_frontier(folds)))


def test_checks_that_tell_beat_random_mixing_and_what_is_out_of_reach_has_no_number() -> None:
    found = frontier_of(world(400, sample_cost=0.05))
    assert set(found) == {"policy", "random_mix", "threshold", "released"}
    policy, mixed, threshold = (found[name] for name in ("policy", "random_mix", "threshold"))
    assert [point.level for point in policy] == list(LEVELS)
    assert policy[2].cost_interval[1] < mixed[2].cost
    assert policy[2].quality == pytest.approx(0.97, abs=0.03)
    # Random mixing of two models: its cost follows from the level.
    low, high = 0.5, 0.9
    share = (0.95 * high - low) / (high - low)
    assert mixed[3].cost == pytest.approx((1 + share * 9) / 10, abs=0.05)
    # A threshold pays for the check of every query, so it never is always the large model.
    assert (threshold[0].cost, threshold[0].quality) == (None, None)
    heads, rows = cost_table(found)
    assert heads == ("asked", "got", "policy", "random mixing", "one threshold", "released rule")
    assert rows[0][4] == "not reached"


def test_a_check_that_is_a_coin_buys_nothing() -> None:
    draw = random.Random(7)
    queries = []
    for i in range(300):
        right = draw.random() < 0.5
        coin: list[bool | None] = [draw.random() < 0.5 for _ in range(4)]
        queries.append(query(i, float(right), float(draw.random() < 0.9), coin))
    found = frontier_of(RoutingLog(queries))
    for policy, mixed in zip(found["policy"], found["random_mix"], strict=True):
        assert policy.cost / policy.quality >= 0.95 * mixed.cost / mixed.quality


def test_without_checks_there_are_no_thresholds() -> None:
    queries = []
    for i in range(60):
        plain = query(i, float(i % 2), 1.0, [True])
        del plain["answers"][0]["verification"]
        queries.append(plain)
    assert set(frontier_of(RoutingLog(queries))) == {"policy", "random_mix"}


def test_nothing_is_a_share_of_nothing() -> None:
    assert frontier_of(RoutingLog([query(i, 0.0, 0.0, [True] * 2) for i in range(30)])) == {}


def test_a_headline_against_its_definition() -> None:
    log, other = world(150, k=3), world(100, seed=5, k=3)
    policy = fit_policy(log, Goal(min_quality=0.85))
    data = to_arrays(other)
    outcomes = replay_policy(policy, data, other.store.ids)
    found = build_headline(outcomes, data, policy)
    assert found is not None
    assert found.against == "large"
    assert found.asked == pytest.approx(0.85 / to_arrays(log).quality[:, 1].mean())
    assert found.quality == pytest.approx(outcomes.quality.mean() / data.quality[:, 1].mean())
    assert found.cost == pytest.approx(outcomes.cost.mean() / 10)
    assert found.cost_interval[0] < found.cost < found.cost_interval[1]
    low, high = (f"{end * 100:.0f}" for end in found.cost_interval)
    assert f"of the cost [{low}, {high}]" in str(found)
    assert str(found).startswith(f"asked {found.asked:.1%}".replace("%", " %"))
