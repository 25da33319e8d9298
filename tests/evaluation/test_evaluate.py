"""Evaluation: figures against their definitions, baselines, and what is said in words."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from langchain_automix import AutoMixError, POMDPRouter, RoutingLog, ThresholdRouter
from langchain_automix.evaluation.evaluate import evaluate
from langchain_automix.evaluation.router_replay import replay_router
from langchain_automix.policy.data.arrays import to_arrays
from langchain_automix.policy.fitting.fit import indifferent_weight
from langchain_automix.policy.statistics import auroc, bootstrap, calibration, ibc_lift
from langchain_automix.routers.baselines import (
    AlwaysRouter,
    DoubleThresholdRouter,
    FittedThresholdRouter,
    OracleRouter,
    RandomMixRouter,
    ReleasedPOMDPRouter,
)
from tests.support.builders.synthetic_logs import query, world


def test_figures_are_those_of_a_replay() -> None:
    log = world(100, seed=4, k=3)
    router = POMDPRouter.fit(world(100, k=3), cost_weight=0.03)
    found, outcomes = evaluate(router, log), replay_router(router, log)
    n = len(outcomes)
    assert found.quality == pytest.approx(sum(o.quality for o in outcomes) / n)
    assert found.cost == pytest.approx(sum(o.cost for o in outcomes) / n)
    assert found.escalation_rate == pytest.approx(sum(o.escalated for o in outcomes) / n)
    assert found.verification_samples == pytest.approx(sum(o.samples for o in outcomes) / n)
    small, large = (sum(q.answers[j].quality or 0 for q in log) / n for j in (0, 1))
    lift = (found.quality - small) / (found.cost - 1) / ((large - small) / 9) - 1
    assert found.ibc_lift == pytest.approx(lift)
    assert {"always:small", "always:large", "random_mix", "threshold", "oracle"} <= set(
        found.baselines
    )
    assert found.baselines["always:large"].cost == pytest.approx(10)
    assert found.baselines["random_mix"].cost == pytest.approx(found.cost)
    assert found.baselines["oracle"].utility_difference <= 0
    json.dumps(found.to_dict(), allow_nan=False)
    assert "queries: quality" in str(found)


def test_the_interval_of_the_lift_covers_it() -> None:
    """90 of 100 draws at the least; the delta method and the bootstrap agree."""
    truth, inside, widths = [], [], []
    rng = np.random.default_rng(0)
    for draw in range(100):
        right = rng.random(400) < 0.5
        routed = rng.random(400) < np.where(right, 0.2, 0.8)
        large = np.where(rng.random(400) < 0.9, 1.0, 0.0)
        small = np.stack([right * 1.0, np.ones(400)], axis=1)
        quality = np.where(routed, large, right)
        cost = 1.2 + routed * 10.0
        lift = ibc_lift(quality, cost, small, np.stack([large, np.full(400, 10.0)], axis=1), draw)
        assert lift.value is not None
        assert lift.interval is not None
        assert lift.delta_interval is not None
        truth.append(lift.value)
        inside.append(lift.interval)
        widths.append(np.diff(lift.interval)[0] / np.diff(lift.delta_interval)[0])
    middle = float(np.mean(truth))
    assert sum(low <= middle <= high for low, high in inside) >= 90
    assert np.mean(widths) == pytest.approx(1, abs=0.15)


def test_an_undefined_lift_is_null() -> None:
    log = RoutingLog([query(i, 1.0, 0.0, [True] * 4) for i in range(40)])
    found = evaluate(POMDPRouter.fit(log), log)
    assert found.ibc_lift is None
    assert found.ibc_lift_interval is None
    assert "undefined" in str(found)
    assert any("alone" in sentence for sentence in found.words)


def test_words_say_that_a_check_is_no_better_than_chance() -> None:
    draw = random.Random(3)
    log = RoutingLog(
        [
            query(i, float(draw.random() < 0.5), 1.0, [draw.random() < 0.5 for _ in range(8)])
            for i in range(300)
        ]
    )
    found = evaluate(POMDPRouter.fit(log, cost_weight=0.02), log)
    assert any("not shown to be better than chance" in sentence for sentence in found.words)
    assert any("single models, as they are, served best" in sentence for sentence in found.words)


def test_words_say_that_a_log_is_too_small() -> None:
    router = POMDPRouter.fit(world(400), cost_weight=0.045)
    assert any("too small to tell" in sentence for sentence in evaluate(router, world(25)).words)


def test_a_router_without_a_policy() -> None:
    found = evaluate(ThresholdRouter(threshold=0.6), world(100, k=4))
    assert found.quality > found.baselines["always:small"].quality
    assert found.verification_samples == 4


def test_the_efficiency_of_a_good_policy_is_near_1() -> None:
    found = evaluate(POMDPRouter.fit(world(800), cost_weight=0.03), world(800, seed=3))
    assert found.frontier_efficiency == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    "kind",
    [AlwaysRouter, FittedThresholdRouter, DoubleThresholdRouter, ReleasedPOMDPRouter],
)
def test_baselines_are_routers(kind: type[POMDPRouter]) -> None:
    log = world(100, k=3)
    router = kind.fit(log, cost_weight=0.03)
    assert len(replay_router(router, log)) == 100
    found = evaluate(router, log)
    assert found.utility <= found.baselines["oracle"].quality
    assert router.explain()


def test_a_random_mix_meets_its_budget_and_an_oracle_beats_all() -> None:
    log = world(100, k=3)
    mix = RandomMixRouter.fit(log, max_cost=5.5)
    assert [plan.name for plan in mix.policy.plans] == ["always:small", "always:large"]
    assert evaluate(mix, log).cost == pytest.approx(5.5, rel=0.1)
    oracle = replay_router(OracleRouter.fit(log, cost_weight=0.03), log)
    best = sum(o.quality - 0.03 * o.cost for o in oracle) / 100
    assert best >= evaluate(mix, log, cost_weight=0.03).utility


def test_other_models_and_empty_logs() -> None:
    router = POMDPRouter.fit(world(50))
    other = [query(i, 0.0, 1.0, [True]) for i in range(3)]
    for record in other:
        record["answers"][0]["model"] = "else"
    with pytest.raises(AutoMixError, match="same models"):
        evaluate(router, RoutingLog(other))
    with pytest.raises(AutoMixError, match="The routing log is empty"):
        evaluate(ThresholdRouter(), RoutingLog([]))


def test_calibration() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.random(4000)
    honest = calibration(confidence, (rng.random(4000) < confidence) * 1.0)
    assert honest is not None
    assert honest.ece < 0.03
    assert honest.auroc == pytest.approx(5 / 6, abs=0.02)
    blind = calibration(confidence, (rng.random(4000) < 0.5) * 1.0)
    assert blind is not None
    assert blind.auroc_interval is not None
    assert blind.ece > 0.2
    assert blind.auroc_interval[0] < 0.5 < blind.auroc_interval[1]
    assert calibration(np.array([np.nan]), np.array([1.0])) is None


def test_answers_of_equal_confidence_are_in_one_group() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.integers(0, 5, 300) / 4
    quality = (rng.random(300) < confidence) * 1.0
    order = rng.permutation(300)
    found = calibration(confidence, quality)
    assert found is not None
    assert [stated for stated, _, _ in found.reliability] == [0.0, 0.25, 0.5, 0.75, 1.0]
    for stated, actual, number in found.reliability:
        inside = quality[confidence == stated]
        assert actual == pytest.approx(inside.mean())
        assert number == len(inside)
    assert calibration(confidence[order], quality[order]) == found


def test_auroc_against_its_definition() -> None:
    draw = random.Random(2)
    scores = [draw.choice([0.1, 0.2, 0.3]) for _ in range(60)]
    good = [draw.random() < 0.5 for _ in range(60)]
    wins = [
        (a > b) + (a == b) / 2
        for a, x in zip(scores, good, strict=True)
        if x
        for b, y in zip(scores, good, strict=True)
        if not y
    ]
    assert auroc(scores, good) == pytest.approx(sum(wins) / len(wins))
    assert auroc([None, 0.5], [True, False]) is None


def test_the_bootstrap_is_left_for_the_normal_interval_when_there_are_many() -> None:
    assert bootstrap(np.zeros((20_001, 1)), lambda means: means[:, 0]) is None


@pytest.mark.parametrize("noise", [1 - 1e-13, 1.0, 1 + 1e-13])
def test_singles_that_are_tied_are_averaged_not_picked(noise: float) -> None:
    """At the indifferent weight both are worth the same; the last bits must not choose one."""
    log = world(60, seed=4, k=3)
    weight = indifferent_weight(to_arrays(log)) * noise
    words = evaluate(POMDPRouter.fit(log), log, cost_weight=weight).words
    [standing] = [text for text in words if "single model" in text or " alone" in text]
    assert "small or large" in standing
    assert POMDPRouter.fit(log, cost_weight=weight * 4).policy.plans[0].name == "always:small"
