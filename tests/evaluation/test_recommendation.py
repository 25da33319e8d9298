"""What is recommended: deploy, keep, label more, or take a threshold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from langchain_automix.evaluation.headline import build_headline
from langchain_automix.evaluation.recommendation import Recommendation, recommend
from langchain_automix.policy.data.arrays import LogArrays, to_arrays
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.replay import Outcomes
from tests.support.builders.synthetic_logs import world


def outcomes_of(quality: Any, cost: Any) -> Outcomes:
    n = len(quality)
    ones = np.ones(n, dtype=np.int64)
    return Outcomes(ones, np.asarray(quality, float), np.asarray(cost, float), ones, ones * 2, ones)


@pytest.fixture(scope="module")
def policies() -> dict[str, Policy]:
    log = world(200, k=3)
    goals = {
        "weight": Goal(cost_weight=0.045),
        "loss": Goal(min_quality=float(to_arrays(log).quality[:, 1].mean()) - 0.01),
        "cost": Goal(max_cost=5.0),
    }
    return {name: fit_policy(log, goal) for name, goal in goals.items()}


def judged(policy: Policy, data: LogArrays, quality: Any, cost: Any, **more: Any) -> Recommendation:
    outcomes = outcomes_of(quality, cost)
    headline = build_headline(outcomes, data, policy)
    return recommend(policy, outcomes, data, policy.cost_weight, headline, **more)


def test_what_saves_is_deployed(policies: dict[str, Policy]) -> None:
    data = to_arrays(world(400, seed=3))
    large = data.quality[:, 1]
    for name in ("weight", "loss"):
        found = judged(policies[name], data, large, np.full(400, 4.0))
        assert found.action == "deploy"
        assert "saves 60 % of the cost of always large" in found.text
        assert "loses no quality" in found.text


def test_what_loses_is_not(policies: dict[str, Policy]) -> None:
    data = to_arrays(world(400, seed=3))
    found = judged(policies["weight"], data, data.quality[:, 0], np.full(400, 9.0))
    assert (found.action, found.model) == ("keep", "large")
    assert found.text.startswith("Keep large alone: the policy does worse")


def test_more_labels_where_the_log_is_too_small_for_the_gain(policies: dict[str, Policy]) -> None:
    data = to_arrays(world(60, seed=3))
    quality = data.quality[:, 1].copy()
    quality[:3] = 1 - quality[:3]
    found = judged(policies["weight"], data, quality, 9.6 + np.arange(60) % 2 * 1e-3)
    assert found.action in ("label", "keep")
    # Twice the mean gain takes a quarter of the queries: more of them as the gain falls.
    more = [
        judged(policies["loss"], data, quality, np.full(60, cost)).more_examples or 0
        for cost in (9.0, 9.5)
    ]
    assert more[0] <= more[1]
    assert (
        judged(policies["weight"], to_arrays(world(12)), np.ones(12), np.ones(12)).action == "label"
    )


def test_a_threshold_that_is_shown_to_be_better(policies: dict[str, Policy]) -> None:
    data = to_arrays(world(400, seed=3))
    large = data.quality[:, 1]
    for name, policy in policies.items():
        best = (np.minimum(large + 0.05, 1.0), np.full(400, 3.0))
        found = judged(policy, data, large, np.full(400, 5.0), threshold=best)
        assert found.action == "threshold", name
        assert "automix fit --rule threshold" in found.text
    worse = (large * 0.5, np.full(400, 5.5))
    found = judged(policies["loss"], data, large, np.full(400, 5.0), threshold=worse)
    assert found.action == "deploy"
    assert "threshold" not in found.text


def test_of_models_that_cost_nothing_no_share_is_saved(policies: dict[str, Policy]) -> None:
    data = to_arrays(world(60, seed=3))
    free = replace(data, cost=np.zeros_like(data.cost))
    found = judged(policies["loss"], free, data.quality[:, 0], np.zeros(60))
    threshold = (data.quality[:, 1], np.zeros(60))
    assert judged(
        policies["loss"], free, data.quality[:, 0], np.zeros(60), threshold=threshold
    ) == (found)
    assert "nan" not in str(found)


def test_a_bound_that_is_not_kept_is_said(policies: dict[str, Policy]) -> None:
    data = to_arrays(world(400, seed=3))
    quality = data.quality[:, 1].copy()
    quality[:40] = 0.0
    found = judged(policies["loss"], data, quality, np.full(400, 2.0))
    assert (found.action, found.model) == ("keep", "large")
    assert "does not show that no more than 0.010 of quality is lost" in found.text


def as_good_as_large(policy: Policy, n: int) -> Recommendation:
    """Judge a policy that is wrong on one of 100 queries, and right on another one, for less."""
    data = to_arrays(world(n, seed=3))
    quality = data.quality[:, 1].copy()
    wrong, right = (np.flatnonzero(quality == value)[: n // 100] for value in (1, 0))
    quality[wrong], quality[right] = 0.0, 1.0
    return judged(policy, data, quality, np.full(n, 2.0))


def test_a_loss_that_may_be_larger_than_allowed_is_not_deployed(
    policies: dict[str, Policy],
) -> None:
    found = as_good_as_large(policies["loss"], 100)
    assert found.action == "label"
    assert "no more than 0.010 of quality is lost, the loss allowed" in found.text
    assert "(lost here: 0.000, and at most 0.028)" in found.text
    assert found.more_examples is not None
    assert as_good_as_large(policies["loss"], found.more_examples).action == "label"
    enough = (100 + found.more_examples) // 100 * 100 + 100
    assert as_good_as_large(policies["loss"], enough).action == "deploy"


def test_a_limit_on_risk_is_judged_by_it(policies: dict[str, Policy]) -> None:
    data = to_arrays(world(400, seed=3))
    policy = policies["weight"].model_copy(update={"goal": {"max_risk": 0.2}})
    within = judged(policy, data, np.full(400, 0.9), np.full(400, 5.0))
    above = judged(policy, data, np.full(400, 0.7), np.full(400, 5.0))
    assert (within.action, above.action) == ("deploy", "label")
    assert above.text.startswith("Do not deploy")
