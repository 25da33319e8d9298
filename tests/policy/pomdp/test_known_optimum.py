"""Fits in synthetic worlds whose optimum is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.replay import replay_plan
from tests.support.builders.synthetic_logs import WORLDS, logistic

COST_WEIGHT = 0.02
LARGE = 10.0


def made(name: str, n: int, seed: int) -> LogArrays:
    rng = np.random.default_rng(seed)
    chances = WORLDS[name](rng.random(n))
    quality = np.stack([rng.random(n) < c for c in chances[:2]], axis=1) * 1.0
    verdicts = np.full((n, 2, 8), -2, dtype=np.int8)
    verdicts[:, 0] = rng.random((n, 8)) < np.broadcast_to(chances[2], n)[:, None]
    zeros = np.zeros((n, 2))
    cost = np.tile([1.0, LARGE], (n, 1))
    return LogArrays(
        ("small", "large"),
        quality,
        cost,
        verdicts,
        zeros * np.nan,
        zeros + 0.2,
        zeros + 0.05,
        np.ones(n),
    )


def optimum(name: str) -> float:
    """Return the best utility: by stopping on the exact posterior over the hidden ease."""
    ease = (np.arange(2000) + 0.5) / 2000
    small, large, rate = (np.broadcast_to(c, ease.shape) for c in WORLDS[name](ease))
    value: dict[tuple[int, int], float] = {}
    for total in range(8, -1, -1):
        for accepts in range(total + 1):
            weight = rate**accepts * (1 - rate) ** (total - accepts) / len(ease)
            options = [weight @ small, weight @ large - COST_WEIGHT * LARGE * weight.sum()]
            for n in (1, 2, 4, 8):
                if total + n > 8:
                    continue
                after = sum(
                    _ways(n, extra) * value[total + n, accepts + extra] for extra in range(n + 1)
                )
                options.append(after - COST_WEIGHT * (0.2 + 0.05 * n) * weight.sum())
            value[total, accepts] = float(max(options))
    return max(value[0, 0] - COST_WEIGHT, float(large.mean()) - COST_WEIGHT * LARGE)


def _ways(n: int, k: int) -> float:
    return float(math.comb(n, k))


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize(("n", "loss"), [(1000, 0.02), (200, 0.10)])
def test_close_to_the_optimum(name: str, n: int, loss: float) -> None:
    best = optimum(name)
    test = made(name, 40_000, seed=99)
    reached = [
        replay_plan(fit_policy(made(name, n, seed), Goal(cost_weight=COST_WEIGHT)).plans[0], test)
        .utility(COST_WEIGHT)
        .mean()
        for seed in range(3)
    ]
    assert np.mean(reached) >= (1 - loss) * best


def test_a_check_at_chance_is_not_paid_for() -> None:
    policy = fit_policy(made("chance", 1000, 0), Goal(cost_weight=COST_WEIGHT))
    assert not policy.plans[0].tables


def distractor(n: int, seed: int) -> LogArrays:
    """Three models; the middle one is no better than the small one, and dearer."""
    rng = np.random.default_rng(seed)
    u = rng.random(n)
    right = logistic(u, 0.5, 8)
    quality = np.stack([rng.random(n) < c for c in (right, right, 0.9 + 0 * u)], axis=1) * 1.0
    score = np.full((n, 3), np.nan)
    score[:, 0] = np.clip(u + rng.normal(0, 0.15, n), 0, 1)
    score[:, 1] = rng.random(n)
    zeros = np.zeros((n, 3))
    cost = np.tile([1.0, 3.0, LARGE], (n, 1))
    none = np.empty((n, 3, 0), dtype=np.int8)
    names = ("small", "middle", "large")
    return LogArrays(names, quality, cost, none, score, zeros + 0.2, zeros, np.ones(n))


@pytest.mark.parametrize(("n", "loss"), [(1000, 0.02), (200, 0.10)])
def test_a_distractor_is_skipped(n: int, loss: float) -> None:
    test = distractor(40_000, seed=99)
    fine = np.clip((test.score[:, 0] * 50).astype(int), 0, 49)
    count = np.maximum(np.bincount(fine, minlength=50), 1)
    benefit = test.quality[:, 2] - test.quality[:, 0]
    asks = (np.bincount(fine, benefit, minlength=50) / count > COST_WEIGHT * LARGE)[fine]
    best = np.where(asks, test.quality[:, 2] - COST_WEIGHT * LARGE, test.quality[:, 0]).mean()
    best -= COST_WEIGHT * 1.2
    reached = [
        replay_plan(fit_policy(distractor(n, s), Goal(cost_weight=COST_WEIGHT)).plans[0], test)
        for s in range(3)
    ]
    assert np.mean([r.utility(COST_WEIGHT).mean() for r in reached]) >= (1 - loss) * best
    assert np.mean([(r.model == 1).mean() for r in reached]) < 0.05
