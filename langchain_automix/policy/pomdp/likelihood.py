"""Compute how likely the findings of a check are on each logged query.

Every logged query, or group of similar ones, is a particle that carries the qualities of all
models; `belief.py` weighs them by these likelihoods. The first m verdicts of a check are compared
with logged checks of k verdicts. If m <= k, the hypergeometric likelihood is used, which has no
bias; beyond that, the Beta-binomial likelihood.
"""

from __future__ import annotations

import math

import numpy as np

from langchain_automix.policy.data.arrays import Floats, Ints
from langchain_automix.policy.ties import first_best

_SIZES = (0.2, 200.0)  # of a Beta prior: limits how certain or how similar checks can be


def beta_prior(successes: Ints, failures: Ints, weight: Floats) -> tuple[float, float]:
    """Fit Beta(a, b) to counts by maximum marginal likelihood (empirical Bayes).

    It uses a grid over the mean and the size a + b that zooms in. The size stays within [0.2, 200],
    because checks that always agree, or vary like a single coin, have their optimum at zero or
    infinity.
    """
    steps, bounds = 12, ((0.01, 0.99), (math.log(_SIZES[0]), math.log(_SIZES[1])))
    spans = bounds
    pairs, inverse = np.unique(np.stack([successes, failures], axis=1), axis=0, return_inverse=True)
    times = np.bincount(inverse.ravel(), weight)
    best = (0.5, 0.0)
    for _ in range(4):
        axes = [np.linspace(*span, steps + 1) for span in spans]
        means, sizes = np.repeat(axes[0], steps + 1), np.tile(axes[1], steps + 1)
        rank = first_best(_log_marginal(means, np.exp(sizes), pairs, times))
        best = (float(means[rank]), float(sizes[rank]))
        spans = tuple(  # type: ignore[assignment]
            (max(b - (s[1] - s[0]) / steps, low), min(b + (s[1] - s[0]) / steps, high))
            for b, s, (low, high) in zip(best, spans, bounds, strict=True)
        )
    mean, size = best[0], math.exp(best[1])
    return mean * size, (1 - mean) * size


def _log_marginal(means: Floats, sizes: Floats, pairs: Ints, times: Floats) -> Floats:
    """Return the log marginal likelihood of the counts, one number per prior."""
    longest = int(pairs.sum(axis=1).max(initial=0))
    starts = np.stack([means * sizes, (1 - means) * sizes, sizes])
    one, other, both = _log_rising(starts, longest)
    found: Floats = one[:, pairs[:, 0]] + other[:, pairs[:, 1]] - both[:, pairs.sum(axis=1)]
    return found @ times


def _log_rising(starts: Floats | float, longest: int) -> Floats:
    """Return log(start (start + 1) ... (start + t - 1)) for t = 0 ... longest, in the last axis."""
    first = np.asarray(starts)[..., None]
    sums = np.cumsum(np.log(first + np.arange(longest)), axis=-1)
    return np.concatenate([np.zeros_like(first), sums], axis=-1)


def predictive_likelihood(
    seen: tuple[Ints, Ints], logged: tuple[Ints, Ints], prior: tuple[float, float]
) -> Floats:
    """Return the probability of one order of verdicts on a query that resembles logged ones.

    A logged query with x successes and y failures has an unknown rate with the posterior Beta(a +
    x, b + y). So s successes and f failures in a particular order have the probability B(a + x + s,
    b + y + f) / B(a + x, b + y), which is Beta-binomial.

    Args:
        seen: (states,) successes and failures of the new check.
        logged: (particles,) successes and failures in the log.
        prior: a and b.

    Returns:
        (states, particles).
    """
    logs = np.zeros((len(seen[0]), len(logged[0])))
    sums = (seen[0] + seen[1], logged[0] + logged[1])
    for sign, start, new, old in (
        (1, prior[0], seen[0], logged[0]),
        (1, prior[1], seen[1], logged[1]),
        (-1, prior[0] + prior[1], *sums),
    ):
        rising = _log_rising(start, int(new.max(initial=0) + old.max(initial=0)))
        logs += sign * (rising[new[:, None] + old[None, :]] - rising[old][None, :])
    return np.exp(logs)


def prefix_likelihood(seen: Ints, logged: Ints) -> Floats:
    """Return the probability of one order of verdicts at the start of a logged query's own.

    The verdicts of a query may come in any order. So a start with counts s of a query with counts c
    has the probability prod (c_i)! / (c_i - s_i)! divided by (sum c)! / (sum c - sum s)!, which is
    multivariate hypergeometric. This is what a log says about shorter checks, without bias. The
    probability is 0 for a start that the query cannot have.

    Args:
        seen: (states, kinds) counts of the new check.
        logged: (particles, kinds) counts in the log.

    Returns:
        (states, particles).
    """
    factorials = np.concatenate(
        [[0.0], np.cumsum(np.log(np.arange(1, logged.sum(axis=1).max() + 1)))]
    )
    left = logged[None, :, :] - seen[:, None, :]
    possible = (left >= 0).all(axis=2)
    left = np.maximum(left, 0)
    totals = logged.sum(axis=1)
    logs = (factorials[logged].sum(axis=1) - factorials[totals])[None, :]
    logs = logs - factorials[left].sum(axis=2) + factorials[left.sum(axis=2)]
    return np.where(possible, np.exp(logs), 0.0)


def longer_likelihood(
    seen: tuple[Ints, Ints], logged: tuple[Ints, Ints], prior: tuple[float, float]
) -> Floats:
    """Return the probability of one order of more verdicts than a query has in the log.

    The query's own x accepts and y rejects are among them; the further verdicts are Beta-binomial.
    """
    own = logged[0] + logged[1]
    extra = [np.maximum(s[:, None] - c[None, :], 0) for s, c in zip(seen, logged, strict=True)]
    possible = (seen[0][:, None] >= logged[0]) & (seen[1][:, None] >= logged[1])
    most = int((seen[0] + seen[1]).max(initial=0) + own.max(initial=0))
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
    one, other, both = (_log_rising(x, most) for x in (*prior, sum(prior)))
    logs = one[logged[0] + extra[0]] - one[logged[0]] + other[logged[1] + extra[1]]
    logs = logs - other[logged[1]] - both[own + extra[0] + extra[1]] + both[own]
    # Orders of the further verdicts, divided by orders of all verdicts.
    logs += factorials[extra[0] + extra[1]] - factorials[extra[0]] - factorials[extra[1]]
    total = seen[0] + seen[1]
    logs -= (factorials[total] - factorials[seen[0]] - factorials[seen[1]])[:, None]
    return np.where(possible, np.exp(logs), 0.0)


def rank_kernel(rank: Floats, bins: Ints, number: int, bandwidth: float) -> Floats:
    """Return how likely each bin is on each particle: a Gaussian kernel on ranks.

    Args:
        rank: (particles,) rank of each particle's score, in (0, 1).
        bins: (particles,) bin of each particle's score.
        number: Number of bins.
        bandwidth: Standard deviation of the kernel, in ranks.

    Returns:
        (bins, particles); each column sums to 1.
    """
    mass = np.maximum(np.bincount(bins, minlength=number), 1e-9)
    centre = np.bincount(bins, rank, minlength=number) / mass
    squares = ((centre[:, None] - rank[None, :]) / bandwidth) ** 2 / 2
    kernel = mass[:, None] * np.exp(squares.min(axis=0) - squares)
    likelihood: Floats = kernel / kernel.sum(axis=0)
    return likelihood


def out_of_fold_bandwidth(rank: Floats, quality: Floats, weight: Floats) -> float:
    """Return the kernel bandwidth with the best leave-one-out predictions of quality.

    Args:
        rank: (n,) ranks of the scores; about 300 of them are used, evenly chosen.
        quality: (n, m) values to predict.
        weight: (n,) weight of each query.
    """
    step = -(-len(rank) // 300)
    rank, quality, weight = rank[::step], quality[::step], weight[::step]
    candidates = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
    if len(rank) < 3:  # noqa: PLR2004  (nothing to leave out)
        return candidates[-1]

    squares = (rank[:, None] - rank[None, :]) ** 2

    def error(bandwidth: float) -> float:
        exponents = squares / (2 * bandwidth**2)
        np.fill_diagonal(exponents, np.inf)
        kernel = np.exp(exponents.min(axis=1, keepdims=True) - exponents) * weight
        predicted = kernel @ quality / np.maximum(kernel.sum(axis=1, keepdims=True), 1e-300)
        return float((weight[:, None] * (predicted - quality) ** 2).sum())

    errors = np.array([error(bandwidth) for bandwidth in candidates])
    return candidates[first_best(-errors / max(float(weight.sum()), 1e-300))]
