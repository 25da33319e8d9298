"""Statistics of a replay, with their uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from langchain_automix.policy.data.arrays import Floats, Ints, Mask

Interval = tuple[float, float]

_Z = 1.959963984540054  # 95 % of a normal distribution lie within this many standard deviations
_RESAMPLES = 1_000
_FOLDS = 5
_MOST_BOOTSTRAPPED = 20_000
"""With more queries, the normal interval is as good, and much faster."""

_MOST_BOOTSTRAPPED_RATIOS = 5_000
"""The same limit for a ratio of means, which approaches normality sooner."""


def mean_interval(values: Floats) -> Interval:
    """Return the 95 % interval of a mean, by its standard error."""
    n = len(values)
    mean = float(values.mean())
    error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    return mean - _Z * error, mean + _Z * error


def wilson_interval(mean: float, n: int) -> Interval:
    """Return the 95 % interval of a share of n (Wilson, 1927); never outside [0, 1].

    For means of numbers in [0, 1] that are not all 0 or 1, it is too wide, never too narrow.
    """
    shrink = 1 + _Z**2 / n
    middle = (mean + _Z**2 / (2 * n)) / shrink
    half = _Z / shrink * float(np.sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n**2)))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def bootstrap(
    columns: Floats, figure: Callable[[Floats], Floats], seed: int = 0
) -> Interval | None:
    """Return the 95 % percentile interval of a statistic, resampling whole queries.

    Args:
        columns: (n, k) values to average; one row per query, so that all columns stay paired.
        figure: Maps (resamples, k) means to (resamples,) statistics; NaN if undefined.
        seed: Seed for the resampling.

    Returns:
        The interval; None if there are too many queries (use the delta method), or if the statistic
        is undefined in more than one resample in twenty.
    """
    n = len(columns)
    if n > _MOST_BOOTSTRAPPED:
        return None
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            rng.multinomial(n, np.full(n, 1 / n), size=100) @ columns
            for _ in range(_RESAMPLES // 100)
        ]
    )
    figures = figure(means / n)
    if np.isnan(figures).mean() > 0.05:  # noqa: PLR2004
        return None
    low, high = np.nanquantile(figures, [0.025, 0.975])
    return float(low), float(high)


def ratio_interval(part: Floats, whole: Floats, seed: int = 0) -> Interval:
    """Return the 95 % interval of mean(part) / mean(whole), both over the same queries.

    It uses the paired bootstrap, or the delta method for many queries or if the mean of the whole
    may be 0.

    Args:
        part: (n,) values in the numerator.
        whole: (n,) values in the denominator; their mean is above 0.
        seed: Seed for the resampling.
    """
    if len(part) <= _MOST_BOOTSTRAPPED_RATIOS:
        interval = bootstrap(np.stack([part, whole], axis=1), _ratio, seed)
        if interval is not None:
            return interval
    return ratio_interval_by_delta(part, whole)


def ratio_interval_by_delta(part: Floats, whole: Floats) -> Interval:
    """Return the 95 % interval of `ratio_interval` by the delta method, which is much faster."""
    ratio, mean = float(part.mean() / whole.mean()), float(whole.mean())
    low, high = mean_interval((part - ratio * whole) / mean)
    return ratio + low, ratio + high


def _ratio(means: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.where(means[:, 1] > 0, means[:, 0] / means[:, 1], np.nan)
    return ratio


def auroc(confidence: Floats | Sequence[float | None], good: Mask | Sequence[bool]) -> float | None:
    """Return the probability that a good answer has more confidence than a bad one (ties: half).

    Args:
        confidence: (n,) any numbers; NaN and None are left out.
        good: (n,) which answers are good.

    Returns:
        The probability; None if there is no good answer, or no bad one.
    """
    values, is_good = np.array(confidence, dtype=np.float64), np.array(good, dtype=np.bool_)
    known = ~np.isnan(values)
    return _auroc(values[known], is_good[known])[0]


def auroc_interval(confidence: Floats, good: Mask, seed: int = 0) -> Interval | None:
    """Return the 95 % interval of `auroc`, by the bootstrap; the arguments are the same.

    For the same number of queries and seed, the same queries are drawn, so that the areas of
    several checks in one log stay paired. With very many queries, it follows Hanley and McNeil
    (1982).

    Returns:
        The interval; None if the area is undefined in more than one resample in twenty.
    """
    known = ~np.isnan(confidence)
    if not known.any():
        return None
    if len(confidence) > _MOST_BOOTSTRAPPED:
        return _auroc(confidence[known], good[known])[1]
    order = np.flatnonzero(known)[np.argsort(confidence[known], kind="stable")]
    starts = np.flatnonzero(np.diff(confidence[order], prepend=-np.inf))
    areas = []
    rng, n = np.random.default_rng(seed), len(confidence)
    for _ in range(_RESAMPLES // 100):
        times = rng.multinomial(n, np.full(n, 1 / n), size=100)[:, order]
        goods = np.add.reduceat(times * good[order], starts, axis=1)
        bads = np.add.reduceat(times * ~good[order], starts, axis=1)
        wins = (goods * (bads.cumsum(axis=1) - bads / 2)).sum(axis=1)
        pairs = goods.sum(axis=1) * bads.sum(axis=1)
        with np.errstate(invalid="ignore"):
            areas.append(wins / np.where(pairs, pairs, np.nan))
    found = np.concatenate(areas)
    if np.isnan(found).mean() > 0.05:  # noqa: PLR2004
        return None
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Lift:
    """ΔIBC: how much more quality a unit of cost buys than random mixing does, minus 1."""

    value: float | None
    interval: Interval | None
    """95 %, paired bootstrap, or the delta method for very many queries."""

    delta_interval: Interval | None
    """95 %, delta method."""


def ibc_lift(quality: Floats, cost: Floats, small: Floats, large: Floats, seed: int = 0) -> Lift:
    """Return ΔIBC (AutoMix, section 5.1, equation 1) as a share, not in percent.

    It is (P - P_small) / (C - C_small) divided by (P_large - P_small) / (C_large - C_small), minus
    1.

    Args:
        quality: (n,) quality of the replayed policy.
        cost: (n,) cost of the replayed policy.
        small: (n, 2) quality and cost of the first model alone.
        large: (n, 2) quality and cost of the last model alone.
        seed: Seed for the bootstrap.

    Returns:
        The lift; all None if a denominator is not above 0.
    """
    columns = np.stack([quality - small[:, 0], cost - small[:, 1]], axis=1)
    columns = np.concatenate([columns, large - small], axis=1)
    value = float(_lift(columns.mean(axis=0)[None, :])[0])
    if np.isnan(value):
        return Lift(None, None, None)
    interval = bootstrap(columns, _lift, seed)
    delta = None
    means = columns.mean(axis=0)
    if (means != 0).all():
        influence = columns / means @ np.array([1, -1, -1, 1])
        error = abs(1 + value) * float(influence.std()) / np.sqrt(len(columns))
        delta = (value - _Z * error, value + _Z * error)
    return Lift(value, interval or delta, delta)


def _lift(means: Floats) -> Floats:
    gain, price, all_gain, all_price = means.T
    fine = (price > 0) & (all_gain > 0) & (all_price > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        lift: Floats = np.where(fine, gain / price / (all_gain / all_price) - 1, np.nan)
    return lift


@dataclass(frozen=True)
class Calibration:
    """How well a confidence can be read as a probability of being right."""

    reliability: tuple[tuple[float, float, int], ...]
    """Mean confidence, mean quality and number of answers, for up to ten groups."""

    ece: float
    """Mean distance between confidence and quality over the groups, in [0, 1]."""

    brier: float
    """Mean squared distance between confidence and quality, in [0, 1]."""

    auroc: float | None
    """Probability that a good answer (quality at least 0.5) has more confidence than a bad one."""

    auroc_interval: Interval | None
    """95 %, by Hanley and McNeil (1982)."""


def calibration(confidence: Floats, quality: Floats) -> Calibration | None:
    """Return how well a confidence agrees with the true quality, or None without data.

    Args:
        confidence: (n,) in [0, 1]; NaN is left out.
        quality: (n,) in [0, 1]; NaN is left out.
    """
    known = ~np.isnan(confidence) & ~np.isnan(quality)
    confidence, quality = confidence[known], quality[known]
    if not len(confidence):
        return None
    reliability = tuple(
        (float(confidence[g].mean()), float(quality[g].mean()), len(g))
        for g in equal_groups(confidence, 10)
    )
    ece = sum(abs(c - q) * n for c, q, n in reliability) / len(confidence)
    brier = float(((confidence - quality) ** 2).mean())
    area, interval = _auroc(confidence, quality >= 0.5)  # noqa: PLR2004
    return Calibration(reliability, float(ece), brier, area, interval)


def equal_groups(values: Floats, most: int) -> list[Ints]:
    """Group values of similar size; return the indices of at most `most` groups, by rising value.

    If there are few distinct values, each has its own group, so that equal values stay together.
    Otherwise the groups have equal size.
    """
    distinct, which = np.unique(values, return_inverse=True)
    if len(distinct) <= most:
        return [np.flatnonzero(which == place) for place in range(len(distinct))]
    return list(np.array_split(np.argsort(values, kind="stable"), most))


def _auroc(confidence: Floats, good: Mask) -> tuple[float | None, Interval | None]:
    goods, bads = int(good.sum()), int((~good).sum())
    if not goods or not bads:
        return None, None
    _, inverse, times = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = np.cumsum(times) - (times - 1) / 2
    area = float((middle[inverse][good].sum() - goods * (goods + 1) / 2) / (goods * bads))
    one, other = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (goods - 1) * (one - area**2) + (bads - 1) * (other - area**2)
    error = float(np.sqrt(max(spread, 0) / (goods * bads)))
    return area, (max(area - _Z * error, 0.0), min(area + _Z * error, 1.0))


def calibrated_brier(
    confidence: Floats, quality: Floats, seed: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """Return the Brier score of a confidence after a monotone calibration, in five folds.

    Args:
        confidence: (n,) any numbers; NaN is left out.
        quality: (n,) in [0, 1].
        seed: Seed for the folds.

    Returns:
        The mean squared distance between the quality and a curve (isotonic regression) fitted to
        other queries, and that between the quality and the mean of those queries, which uses no
        check. Both are None with fewer than two known confidences.
    """
    known = ~np.isnan(confidence)
    confidence, quality = confidence[known], quality[known]
    n = len(quality)
    if n < 2:  # noqa: PLR2004
        return None, None
    fold = np.random.default_rng([seed, n]).permutation(n) % min(_FOLDS, n)
    curve, plain = np.empty(n), np.empty(n)
    for number in range(int(fold.max()) + 1):
        out = fold == number
        values, which = np.unique(confidence[~out], return_inverse=True)
        times = np.bincount(which)
        means = isotonic(np.bincount(which, quality[~out]) / times, times)
        curve[out] = np.interp(confidence[out], values, means)
        plain[out] = quality[~out].mean()
    return float(((curve - quality) ** 2).mean()), float(((plain - quality) ** 2).mean())


def ranks(values: Floats, weight: Floats) -> Floats:
    """Return the middle rank of each value, in (0, 1); ties share their rank."""
    order, inverse = np.unique(values, return_inverse=True)
    mass = np.bincount(inverse, weight, minlength=len(order))
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    placed: Floats = middle[inverse]
    return placed


def bin_edges(values: Floats, bins: int) -> Floats:
    """Return the inner edges of bins with about the same number of values each."""
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    edges = np.unique(np.quantile(values, inner, method="higher"))
    kept: Floats = edges[edges > values.min()]
    return kept


def in_bins(values: Floats, edges: Floats) -> Ints:
    """Return the bin of each value; a value on an edge belongs to the bin above it."""
    return np.searchsorted(edges, values, side="right")


PRIOR_SLOPE = 0.3
"""Prior assumption: from the least to the most confident answer, quality rises and benefit falls by
this much. Chosen on halves of the train splits of the benchmark's logs."""


def isotonic(mean: Floats, count: Floats) -> Floats:
    """Return the non-decreasing sequence with the least weighted squared distance to `mean`."""
    blocks: list[list[float]] = []
    for value, weight in zip(mean.tolist(), np.maximum(count, 1e-9).tolist(), strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (v1, w1, n1), (v2, w2, n2) = blocks[-2:]
            blocks[-2:] = [[(v1 * w1 + v2 * w2) / (w1 + w2), w1 + w2, n1 + n2]]
    return np.repeat([b[0] for b in blocks], [int(b[2]) for b in blocks]).astype(np.float64)
