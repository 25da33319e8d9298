"""What a report must not say: too much, of the unknown, or what cannot be read."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from langchain_automix import POMDPRouter, RoutingLog
from langchain_automix.policy.bounds import oracle, perfect_check_utility
from langchain_automix.policy.data.arrays import to_arrays
from langchain_automix.report.labels import describe_labels
from langchain_automix.report.measure import measure
from tests.support.builders import synthetic_logs as worlds


def world(n: int, seed: int = 1) -> RoutingLog:
    return worlds.world(n, seed, 3)


def test_labels_that_were_graded() -> None:
    graded = describe_labels([{"labels": "grade"}] * 3, "large")
    assert graded.kind == "grade"
    assert "judge" in graded.text


def test_where_no_answer_has_a_worth_of_its_own() -> None:
    """Every rule of two models with a check of the small one's answer, and abstaining."""
    data, worth = to_arrays(world(60, seed=5)), 0.85
    small, large = data.quality.T
    kept = {"small": small, "large": large, "none": np.full(60, worth)}
    dearer = {"small": 1.0, "large": 10.0, "none": 1.0}
    for price in (0.0, 0.5):
        found = perfect_check_utility(data, 0.02, np.array([price, np.nan]), worth)
        rules = []
        for right, wrong in product(kept, repeat=2):
            cost = np.where(small == 1, dearer[right], dearer[wrong])
            cost += np.where((small == 1) & (right == "large"), 1.0, 0.0)
            cost += np.where((small == 0) & (wrong == "large"), 1.0, 0.0)
            rules.append(np.where(small == 1, kept[right], kept[wrong]) - 0.02 * (cost + price))
        rules += [small - 0.02, large - 0.2]
        assert found == pytest.approx(max(float(rule.mean()) for rule in rules))
    best = np.maximum(np.maximum(small - 0.02, large - 0.2), worth - 0.02)
    assert oracle(data, 0.02, worth).tolist() == pytest.approx(best.tolist())


def test_a_policy_that_gives_no_answer() -> None:
    log = world(40, seed=4)
    policy = POMDPRouter.fit(world(150), cost_weight=0.02, abstain_value=0.85).policy
    contents = measure(policy, log)
    silent = [decision for decision in contents.decisions if decision.model_index is None]
    assert silent
    assert contents.verdict.startswith("Gives no answer to")
    assert "if no answer is worth 0.85" in contents.verdict
    [ideal] = [point for point in contents.baselines if point.name == "oracle"]
    assert ideal.utility_difference is not None
    assert ideal.utility_difference <= 1e-9


def test_the_verdict_can_be_read() -> None:
    """Long names and all: one sentence of about 220 letters, and the goal is held against it."""
    names = {"small": "qwen2.5-coder-0.5b", "large": "qwen2.5-coder-1.5b"}

    def named(log: RoutingLog) -> RoutingLog:
        records = list(log.records())
        for answer in (answer for record in records for answer in record["answers"]):
            answer["model"] = names[answer["model"]]
        return RoutingLog(records)

    goals: tuple[dict[str, Any], ...] = ({"cost_weight": 0.03}, {"max_cost": 4.0})
    for goal in goals:
        policy = POMDPRouter.fit(named(world(80)), **goal).policy
        contents = measure(policy, named(world(25, seed=3)))
        assert len(contents.verdict) <= 230, contents.verdict
        assert any("The goal was" in note for note in contents.notes) == ("max_cost" in goal)


def test_one_query_of_its_own() -> None:
    one = world(1)
    contents = measure(POMDPRouter.fit(one).policy, one)
    assert contents.judged == "fitted to it"
    assert "interval" not in contents.numbers[0].detail
    assert not any("1 queries" in text for text in (contents.verdict, *contents.notes))


def test_what_is_not_known_of_more_examples() -> None:
    policy = POMDPRouter.fit(world(80), cost_weight=0.03).policy
    contents = measure(policy, world(5, seed=3))
    gains = {advice.title: advice.gain for advice in contents.advice}
    assert gains["More examples"] is None
