"""When there are enough examples: the sequential test, its bound and its looks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.policy.fitting.candidates import CandidateFitter
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.fitting.selection import select_candidate
from langchain_automix.policy.fitting.stopping import (
    MIXTURE,
    StoppingResult,
    check_stopping,
    margin,
    next_look,
    rival_bounds,
    upper_bound,
)
from langchain_automix.policy.replay import replay_plan
from tests.support.builders.synthetic_logs import scored, unchecked, world

HALF = Goal(cost_weight=0.02)

some = arrays(np.float64, st.integers(2, 60), elements=st.floats(-1, 1, width=32))
levels = st.floats(0.001, 0.4)


def looks(most: int) -> list[int]:
    found = [next_look(0)]
    while next_look(found[-1]) <= most:
        found.append(next_look(found[-1]))
    return found


def stopped(columns: LogArrays, goal: Goal, **options: Any) -> tuple[int, StoppingResult] | None:
    """Return where the test first stops, and what it says; None where it does not."""
    for n in looks(len(columns)):
        found = check_stopping(columns.rows(np.arange(n)), goal, **options)
        if found.stop:
            return n, found
    return None


# The bound


@given(some, levels)
def test_the_bound_lies_above_the_mean(differences: Any, alpha: float) -> None:
    assert upper_bound(differences, alpha) > differences.mean()


@given(some, levels, st.randoms(use_true_random=False))
def test_the_bound_knows_no_order(differences: Any, alpha: float, random: Any) -> None:
    shuffled = differences.tolist()
    random.shuffle(shuffled)
    bound = upper_bound(np.array(shuffled), alpha)
    assert bound == pytest.approx(upper_bound(differences, alpha))


@given(some, levels, st.floats(-1, 1))
def test_the_bound_moves_with_the_differences(differences: Any, alpha: float, by: float) -> None:
    moved = upper_bound(differences + by, alpha)
    assert moved == pytest.approx(upper_bound(differences, alpha) + by, abs=1e-9)


@given(some, levels)
def test_more_caution_or_fewer_queries_widen_the_bound(differences: Any, alpha: float) -> None:
    bound = upper_bound(differences, alpha)
    assert upper_bound(differences, alpha / 2) > bound
    assert upper_bound(np.tile(differences, 4), alpha) < bound


@given(st.integers(1, 5_000), levels)
def test_at_the_margin_the_mixture_has_grown_past_one_in_alpha(number: int, alpha: float) -> None:
    # The likelihood ratio, its drift drawn from a half normal, summed on a grid.
    drift = np.linspace(0, 12 * math.sqrt(MIXTURE), 20_001)
    density = 2 * np.exp(-(drift**2) / (2 * MIXTURE)) / math.sqrt(2 * math.pi * MIXTURE)
    total = number * margin(number, alpha)
    ratio = np.exp(drift * total - number * drift**2 / 2)
    middle = (density * ratio)[1:] + (density * ratio)[:-1]
    assert (middle * np.diff(drift)).sum() / 2 >= (1 / alpha) * (1 - 1e-6)


@pytest.mark.parametrize("right", [0.5, 0.9, 0.98])
def test_the_bound_holds_at_all_looks_at_once(right: float) -> None:
    rng = np.random.default_rng(3)
    paths = rng.random((1_000, 1_000)) < right
    wrong = [any(upper_bound(path[:n], 0.05) < right for n in looks(1_000)) for path in paths]
    assert np.mean(wrong) <= 0.05


def test_queries_on_which_all_do_the_same_are_no_proof() -> None:
    assert upper_bound(np.zeros(50), 0.05) > 0.01
    assert upper_bound(np.zeros(1_000), 0.05) < 0.01


# The looks


def test_looks_come_geometrically() -> None:
    assert looks(100) == [50, 63, 79, 99]
    assert len(looks(1_000_000)) < 50


@given(st.integers(0, 10**6), st.integers(1, 500))
def test_a_look_lies_ahead_and_not_too_far(queries: int, fewest: int) -> None:
    look = next_look(queries, fewest)
    assert look > queries
    assert look <= max(fewest, math.ceil(queries * 1.25) + 1)


# The test


def test_never_below_the_least_number_of_queries() -> None:
    found = check_stopping(unchecked((0.0, 1.0), 49, 0), HALF)
    assert not found.stop
    assert found.bound is None
    assert "49 complete queries" in found.text


def test_queries_that_are_not_complete_do_not_count() -> None:
    columns = unchecked((0.0, 1.0), 60, 0)
    quality = columns.quality.copy()
    quality[:20, 1] = np.nan
    assert check_stopping(replace(columns, quality=quality), HALF).queries == 40


def test_a_clear_winner_is_found_early() -> None:
    found = stopped(unchecked((0.1, 0.95), 1_000, 0), HALF)
    assert found
    n, result = found
    assert n < 200
    assert (result.chosen, result.rival) == ("always:model1", "always:model0")
    assert result.bound is not None
    assert result.bound <= 0.01
    assert "enough" in result.text


def test_a_tie_goes_on() -> None:
    # 0.5 - 0.02 against 0.68 - 0.2: each model is worth 0.48.
    assert stopped(unchecked((0.5, 0.68), 1_000, 0), HALF) is None


def test_a_greater_tolerance_stops_no_later() -> None:
    columns = scored("monotone", 400, 0)
    found = [stopped(columns, HALF, tolerance=tolerance) for tolerance in (0.2, 0.05)]
    at = [each[0] if each else 401 for each in found]
    assert at[0] < at[1] <= 401


def test_a_near_tie_seldom_ends_with_the_worse_model() -> None:
    # The large model is better by 0.03, and the tolerance is 0.01.
    runs = [stopped(unchecked((0.5, 0.71), 1_000, seed), HALF) for seed in range(200)]
    wrong = [found for found in runs if found and found[1].chosen == "always:model0"]
    assert len(wrong) <= 0.05 * len(runs)


def test_of_many_models_the_best_is_kept() -> None:
    chances = (0.5, 0.52, 0.49, 0.56)
    goal = Goal(cost_weight=0.0)
    runs = [stopped(unchecked(chances, 2_000, seed), goal) for seed in range(100)]
    wrong = [found for found in runs if found and found[1].chosen != "always:model3"]
    assert len(wrong) <= 0.05 * len(runs)


@pytest.mark.parametrize("name", ["monotone", "peaked", "chance"])
def test_what_it_stops_with_is_as_good_as_any_rival(name: str) -> None:
    test = scored(name, 20_000, 999)
    for seed in range(3):
        columns = scored(name, 1_000, seed)
        found = stopped(columns, HALF, tolerance=0.02)
        if found is None:
            continue
        candidates = CandidateFitter(columns.rows(np.arange(found[0]))).candidates(0.02)
        worth = {c.name: replay_plan(c.plan, test).utility(0.02).mean() for c in candidates}
        assert found[1].chosen is not None
        assert max(worth.values()) - worth[found[1].chosen] <= 0.02


def test_a_family_that_does_the_same_is_a_rival_still() -> None:
    learner = CandidateFitter(scored("chance", 100, 0))
    candidates = learner.candidates(0.02)
    best, _ = select_candidate(candidates)
    bounds = rival_bounds(best, candidates, 0.05)
    assert set(bounds) == {c.name for c in candidates} - {best.name}
    same = [c for c in candidates if c is not best and c.plan.opening == best.plan.opening]
    assert same
    assert all(bounds[c.name] > 0 for c in same)


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_same_log_gives_the_same_answer(random: Any) -> None:
    columns = scored("lenient", 60, random.randrange(1_000))
    assert check_stopping(columns, HALF, seed=4) == check_stopping(columns, HALF, seed=4)


# Goals


def test_a_certified_risk_uses_every_example() -> None:
    found = check_stopping(unchecked((0.1, 0.95), 500, 0), Goal(max_risk=0.1))
    assert not found.stop
    assert "max_risk" in found.text


@pytest.mark.parametrize("goal", [Goal(max_cost=5.0), Goal(min_quality=0.8), Goal(), None])
def test_other_goals_are_judged_at_the_weight_that_they_imply(goal: Goal | None) -> None:
    found = check_stopping(scored("monotone", 80, 0), goal)
    assert found.chosen is not None
    assert found.bound is not None


def test_a_routing_log_will_do() -> None:
    found = check_stopping(world(60, k=2), HALF)
    assert found.queries == 60
    assert found.rival is not None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": math.nan}, "tolerance"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"fewest": 1}, "fewest"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(AutoMixError, match=says):
        check_stopping(unchecked((0.1, 0.95), 60, 0), HALF, **options)
