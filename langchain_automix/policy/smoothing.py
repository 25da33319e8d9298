"""Smooth curves from few noisy points: how benefit and quality depend on a check.

A Gaussian process with a linear and a smooth part, whose sizes are averaged over by their
marginal likelihood (empirical Bayes; Rasmussen and Williams, "Gaussian Processes for Machine
Learning", 2006, sections 2.7 and 5.4). With few queries the curve stays close to the prior
slope around the mean; with many it goes where the data go. Isotonic regression by pooling
adjacent violators (Barlow et al., 1972) makes a curve monotone.
"""

from __future__ import annotations

import numpy as np

from langchain_automix.policy.columns import Floats

PRIOR_SLOPE = 0.3
"""Before any data: from the least to the most confident answer, quality rises by this much
and benefit falls by it. Chosen on halves of the train splits of the benchmark's logs."""

_SLOPE_SPREADS = np.array([0.1, 0.2, 0.4, 0.8])
_WIGGLES = (
    (0.0, 0.15),
    *((v, length) for v in (0.002, 0.006, 0.02, 0.06) for length in (0.15, 0.3)),
)


def smooth(
    place: Floats, count: Floats, mean: Floats, *, noise: float, slope: float, aside: Floats
) -> Floats:
    """Return the posterior mean of a curve at each place.

    Args:
        place: (b,) where each group of observations lies, in [0, 1].
        count: (b,) number (or weight) of observations in each group, at least 0.
        mean: (b,) their mean; ignored where `count` is 0.
        noise: Variance of one observation around the curve, above 0.
        slope: Prior mean of the curve's slope.
        aside: (b,) a second coordinate, such as the share of invalid verdicts, in [0, 1].
    """
    seen = count > 0
    line = slope * (place - 0.5)
    centred = mean[seen] - line[seen]
    kernels = _kernels(place, aside)
    inverse = np.linalg.inv(kernels[:, seen][:, :, seen] + np.diag(noise / count[seen]))
    # The curve's level has a flat prior: its estimate is the generalised least squares mean.
    row_sums = inverse.sum(axis=2)
    precision = row_sums.sum(axis=1)
    level = row_sums @ centred / precision
    residual = centred[None, :] - level[:, None]
    solved = np.einsum("hij,hj->hi", inverse, residual)
    evidence = 0.5 * (
        np.linalg.slogdet(inverse)[1] - np.log(precision) - (residual * solved).sum(axis=1)
    )
    share = np.exp(evidence - evidence.max())
    curves = level[:, None] + np.einsum("hij,hj->hi", kernels[:, :, seen], solved) + line
    posterior: Floats = share @ curves / share.sum()
    return posterior


def _kernels(place: Floats, aside: Floats) -> Floats:
    linear = np.outer(place - 0.5, place - 0.5) + np.outer(aside, aside)
    squares = (place[:, None] - place) ** 2 + (aside[:, None] - aside) ** 2
    kernels = [
        spread**2 * linear + size * np.exp(-squares / (2 * length**2))
        for spread in _SLOPE_SPREADS
        for size, length in _WIGGLES
    ]
    return np.stack(kernels)


def isotonic(mean: Floats, count: Floats) -> Floats:
    """Return the non-decreasing sequence with the least weighted squared distance to `mean`."""
    blocks: list[list[float]] = []
    for value, weight in zip(mean.tolist(), np.maximum(count, 1e-9).tolist(), strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (v1, w1, n1), (v2, w2, n2) = blocks[-2:]
            blocks[-2:] = [[(v1 * w1 + v2 * w2) / (w1 + w2), w1 + w2, n1 + n2]]
    return np.repeat([b[0] for b in blocks], [int(b[2]) for b in blocks]).astype(np.float64)
