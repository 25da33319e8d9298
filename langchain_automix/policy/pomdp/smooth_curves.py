"""Smooth curves of quality over confidence: Gaussian processes, averaged over their kernels.

Each kernel is a line with some spread of its slope, and a bend of some size and length (Rasmussen
and Williams, "Gaussian Processes for Machine Learning", 2006, sections 2.7 and 5.4). The lines
change the equations of a bend by two columns, so one factor serves all of them (Woodbury's
identity; the same book, A.3).
"""

from __future__ import annotations

import numpy as np

from langchain_automix.policy.data.arrays import Floats

_SLOPE_SPREADS = np.array([0.1, 0.2, 0.4, 0.8])
_BENDS = np.array([
    (0.0, 0.15),
    *((size, length) for size in (0.002, 0.006, 0.02, 0.06) for length in (0.15, 0.3)),
])  # fmt: skip


def smooth_curves(
    place: Floats,
    count: Floats,
    means: Floats,
    *,
    noise: Floats,
    slope: Floats,
    invalid_share: Floats,
) -> Floats:
    """Return (c, b): the posterior mean of each of c curves at each of b places.

    Args:
        place: (b,) position of each group of observations, in [0, 1].
        count: (b,) number (or weight) of observations in each group, at least 0.
        means: (c, b) mean of each group, for each curve; ignored if `count` is 0.
        noise: (c,) variance of one observation around its curve, above 0.
        slope: (c,) prior mean of each curve's slope.
        invalid_share: (b,) a second coordinate, such as the share of invalid verdicts, in [0, 1].
    """
    seen = count > 0
    axes = np.stack([place - 0.5, invalid_share], axis=1)
    lines = slope[:, None] * axes[:, 0]
    centred = (means - lines)[:, seen]
    lines += (centred @ count[seen] / count[seen].sum())[:, None]  # reduces rounding errors
    columns = np.ones((len(means), 1, centred.shape[1], 4))
    columns[..., 1] = (means - lines)[:, None, seen]
    columns[..., 2:] = axes[seen]
    bends = _bends(place, invalid_share)[:, :, seen]
    system = bends[:, seen] + noise[:, None, None, None] * np.diag(1 / count[seen])
    solved = np.linalg.solve(system, columns)
    factor = np.linalg.cholesky(system).diagonal(axis1=-2, axis2=-1)
    amounts = _amounts(columns.swapaxes(-1, -2) @ solved, 2 * np.log(factor).sum(axis=-1))
    bent = np.einsum("hij,chj->ci", bends, (solved @ amounts[..., None])[..., 0])
    level, *tilt = amounts[..., [0, 2, 3]].sum(axis=1).T
    posterior: Floats = lines - level[:, None] - np.transpose(tilt) @ axes.T + bent
    return posterior


def _amounts(gram: Floats, log_det: Floats) -> Floats:
    """Return (c, h, 4): the weight of each column's solution in the posterior mean.

    Args:
        gram: (c, h, 4, 4): the columns times their solutions, for each curve and bend.
        log_det: (c, h): logarithm of the determinant of the bend's system.
    """
    gram = gram[:, :, None]
    inner = gram[..., 2:, 2:] + np.eye(2) / _SLOPE_SPREADS[:, None, None] ** 2
    tilts = np.linalg.solve(inner, gram[..., 2:, :2])
    quadratic = gram[..., :2, :2] - gram[..., :2, 2:] @ tilts
    # The curve's level has a flat prior: its estimate is the generalised least squares mean.
    precision, moment = quadratic[..., 0, 0], quadratic[..., 0, 1]
    level = moment / precision
    log_det = log_det[..., None] + np.log(np.linalg.det(inner) * _SLOPE_SPREADS**4)
    evidence = -0.5 * (log_det + np.log(precision) + quadratic[..., 1, 1] - level * moment)
    share = np.exp(evidence - evidence.max(axis=(1, 2), keepdims=True))
    share /= share.sum(axis=(1, 2), keepdims=True)
    each = np.ones((*level.shape, 4))
    each[..., 0] = -level
    each[..., 2:] = level[..., None] * tilts[..., 0] - tilts[..., 1]
    amounts: Floats = (share[..., None] * each).sum(axis=2)
    return amounts


def _bends(place: Floats, invalid_share: Floats) -> Floats:
    """Return (bends, b, b): covariances of a curve about its line."""
    squares = (place[:, None] - place) ** 2 + (invalid_share[:, None] - invalid_share) ** 2
    sizes, lengths = _BENDS.T[..., None, None]
    bends: Floats = sizes * np.exp(-squares / (2 * lengths**2))
    return bends
