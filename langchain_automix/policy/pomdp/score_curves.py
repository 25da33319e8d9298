"""How right two models are, given what a check found: a prior, moved by whatever labels there are.

Two logistic curves of the log-odds of a score, with a joint Gaussian prior over their coefficients
(`policy/decision/score_prior.py`): Bayesian logistic regression by Laplace's approximation (Bishop,
"Pattern Recognition and Machine Learning", 2006, section 4.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from langchain_automix.policy.data.arrays import Floats
from langchain_automix.policy.decision.score_prior import CLIP, SCALE, ScorePrior

_NODES = np.arange(-10, 11) / 2
_SHARES = np.exp(-(_NODES**2) / 2) / np.exp(-(_NODES**2) / 2).sum()
_STEPS = 50
_CONVERGED = 1e-6


def log_odds(score: Floats) -> Floats:
    """Return the log-odds of scores in [0, 1], clipped and divided as the prior has them."""
    clipped = np.clip(score, CLIP, 1 - CLIP)
    odds: Floats = np.log(clipped / (1 - clipped)) / SCALE
    return odds


@dataclass(frozen=True)
class ScoreCurves:
    """A Gaussian belief over the coefficients of both curves."""

    mean: Floats
    """(4,): intercept and slope of the small model's curve, and of the large model's."""

    covariance: Floats
    """(4, 4)."""

    def expected(self, x: Floats) -> Floats:
        """Return the chance that each model is right: (n, 2) for (n,) log-odds."""
        columns = []
        for first in (0, 2):
            own = slice(first, first + 2)
            features = np.stack([np.ones_like(x), x], axis=1)
            middle = features @ self.mean[own]
            variance = ((features @ self.covariance[own, own]) * features).sum(axis=1)
            spread = np.sqrt(np.maximum(variance, 0.0))
            columns.append(_logistic(middle[:, None] + spread[:, None] * _NODES) @ _SHARES)
        return np.stack(columns, axis=1)


def fit_score_curves(prior: ScorePrior, x: Floats, count: Floats, right: Floats) -> ScoreCurves:
    """Return the belief over the curves after some labels.

    Args:
        prior: The belief before them.
        x: (g,): log-odds of the score, of each group of labelled queries.
        count: (g,): number (or weight) of labelled queries in each, at least 0.
        right: (g, 2): sums of the qualities of both models over them.
    """
    mean, covariance = np.array(prior.mean), np.array(prior.covariance)
    precision = np.linalg.inv(covariance)
    features = np.stack([np.ones_like(x), x], axis=1)
    found, value = mean, _objective(mean, mean, precision, features, count, right)
    for _ in range(_STEPS):
        chance = _chances(features, found)
        gradient = (features.T @ (right - count[:, None] * chance)).T.ravel()
        gradient = gradient - precision @ (found - mean)
        step = np.linalg.solve(_curvature(precision, features, count, chance), gradient)
        if float(gradient @ step) < _CONVERGED:  # where Newton's method squares the error
            found = found + step
            break
        moved = found + step
        reached = _objective(moved, mean, precision, features, count, right)
        while reached < value:  # The objective is concave, so a short enough step gains.
            step = step / 2
            moved = found + step
            reached = _objective(moved, mean, precision, features, count, right)
        found, value = moved, reached
    curvature = _curvature(precision, features, count, _chances(features, found))
    return ScoreCurves(found, np.linalg.inv(curvature))


def _logistic(values: Floats) -> Floats:
    chance: Floats = 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    return chance


def _chances(features: Floats, coefficients: Floats) -> Floats:
    """Return (g, 2): the chance that each model is right, by both curves."""
    return _logistic(features @ coefficients.reshape(2, 2).T)


def _objective(
    coefficients: Floats,
    mean: Floats,
    precision: Floats,
    features: Floats,
    count: Floats,
    right: Floats,
) -> float:
    """Return the log posterior density, but for a constant."""
    linear = features @ coefficients.reshape(2, 2).T
    away = coefficients - mean
    likelihood = (right * linear - count[:, None] * np.logaddexp(0.0, linear)).sum()
    return float(likelihood - away @ precision @ away / 2)


def _curvature(precision: Floats, features: Floats, count: Floats, chance: Floats) -> Floats:
    """Return the negative second derivative of the log posterior density."""
    curvature = precision.copy()
    for curve in range(2):
        own = slice(2 * curve, 2 * curve + 2)
        weight = count * chance[:, curve] * (1 - chance[:, curve])
        curvature[own, own] += (features.T * weight) @ features
    return curvature
