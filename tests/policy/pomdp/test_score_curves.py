"""The belief over how right two models are, given a score, with and without labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_automix.policy.data.arrays import Floats
from langchain_automix.policy.decision.score_prior import SHIPPED, ScorePrior
from langchain_automix.policy.pomdp.score_curves import fit_score_curves, log_odds

TRUE = np.array([-0.5, 1.5, 1.0, 0.5])


def drawn(n: int, seed: int) -> tuple[Floats, Floats]:
    """Return log-odds, and the qualities of both models by known curves."""
    rng = np.random.default_rng(seed)
    x = log_odds(rng.random(n))
    chance = 1 / (1 + np.exp(-(TRUE[[0, 2]] + x[:, None] * TRUE[[1, 3]])))
    return x, (rng.random((n, 2)) < chance) * 1.0


def posterior(prior: ScorePrior, at: Floats, x: Floats, right: Floats) -> float:
    """Return the log posterior density, written out."""
    away = at - np.array(prior.mean)
    value = -0.5 * away @ np.linalg.solve(np.array(prior.covariance), away)
    for curve in range(2):
        chance = 1 / (1 + np.exp(-(at[2 * curve] + at[2 * curve + 1] * x)))
        own = right[:, curve]
        value += (own * np.log(chance) + (1 - own) * np.log(1 - chance)).sum()
    return float(value)


def test_without_labels_it_is_the_prior() -> None:
    scores = np.array([0.0, 0.1, 0.5, 0.8, 1.0])
    curves = fit_score_curves(SHIPPED, log_odds(scores), np.zeros(5), np.zeros((5, 2)))
    small, large = np.transpose([SHIPPED.expected_qualities(score) for score in scores.tolist()])
    fitted = curves.expected(log_odds(scores))
    assert fitted[:, 0] == pytest.approx(small, abs=1e-12)
    # Without any fit, the large model's lead never falls with the score (`expected_qualities`).
    assert fitted[2:, 1] == pytest.approx(large[2:], abs=1e-5)
    assert (large >= fitted[:, 1] - 1e-12).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(0, 10**6))
def test_the_mean_is_the_mode_of_the_posterior(n: int, seed: int) -> None:
    x, right = drawn(n, seed)
    curves = fit_score_curves(SHIPPED, x, np.ones(n), right)
    best = posterior(SHIPPED, curves.mean, x, right)
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1e-1, 1.0):
        for step in rng.normal(0, size, (5, 4)):
            assert posterior(SHIPPED, curves.mean + step, x, right) < best


def test_queries_in_one_group_count_as_the_same_queries_apart() -> None:
    x, right = np.repeat([-0.5, 0.7], 4), drawn(8, 0)[1]
    apart = fit_score_curves(SHIPPED, x, np.ones(8), right)
    sums = np.stack([right[:4].sum(axis=0), right[4:].sum(axis=0)])
    together = fit_score_curves(SHIPPED, np.array([-0.5, 0.7]), np.full(2, 4.0), sums)
    assert together.mean == pytest.approx(apart.mean)
    assert together.covariance == pytest.approx(apart.covariance)


def test_labels_overrule_the_prior() -> None:
    x, right = drawn(20_000, 1)
    curves = fit_score_curves(SHIPPED, x, np.ones(len(x)), right)
    assert curves.mean == pytest.approx(TRUE, abs=0.1)
    assert curves.expected(x).mean(axis=0) == pytest.approx(right.mean(axis=0), abs=1e-3)


def test_labels_that_all_agree_give_no_certainty() -> None:
    right = np.tile([0.0, 1.0], (30, 1))
    curves = fit_score_curves(SHIPPED, drawn(30, 2)[0], np.ones(30), right)
    small, large = curves.expected(np.array([0.0]))[0]
    assert 0 < small < 0.1
    assert 0.9 < large < 1
