"""Logs of several models: no pair by itself may do better than the fit to all of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from langchain_automix.policy.fitting.candidates import CandidateFitter
from langchain_automix.policy.fitting.fit import frontier_points
from langchain_automix.policy.replay import replay_plan
from tests.support.builders.synthetic_logs import ladder


@pytest.mark.parametrize("seed", range(3))
def test_the_frontier_holds_what_every_pair_is_expected_to_reach(seed: int) -> None:
    data = ladder(250, seed)
    learner = CandidateFitter(data, seed=seed)
    points = frontier_points(learner)
    costs, qualities = np.array([(point.cost, point.quality) for point in points]).T
    weights = sorted({point.weight for point in points if point.weight})
    for weight in weights:
        for fitted in learner.candidates(weight, most_complex=1):
            cost = float(replay_plan(fitted.plan, learner.columns).cost.mean())
            quality = min(fitted.expected + weight * cost, 1.0)
            assert quality <= np.interp(cost, costs, qualities) + 1e-9, fitted.name


@pytest.mark.parametrize("seed", range(3))
def test_it_is_no_worse_than_the_frontiers_of_the_pairs_together(seed: int) -> None:
    """A pair's own fit weighs cost by its own models, so a little is left between two steps.

    It also expects of its smaller model what the prior says beside its own larger one.
    """
    data = ladder(250, seed)
    points = frontier_points(CandidateFitter(data, seed=seed))
    costs, qualities = np.array([(point.cost, point.quality) for point in points]).T
    for pair in combinations(range(len(data.models)), 2):
        for point in frontier_points(CandidateFitter(data.only(pair), seed=seed)):
            assert point.quality <= np.interp(point.cost, costs, qualities) + 0.015, pair
