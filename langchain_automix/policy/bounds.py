"""Upper bounds on routing: with a check that is never wrong, and with foresight."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from langchain_automix.policy.data.arrays import NOT_DRAWN, Floats, LogArrays
from langchain_automix.policy.replay import Trajectories

_MAX_THRESHOLDS = 33
"""Maximum number of thresholds to try, if there are more distinct qualities."""


def oracle(data: LogArrays, cost_weight: float, abstain_value: float | None = None) -> Floats:
    """Return the utility of each query if its best model were known in advance; (n,).

    Args:
        data: Complete queries.
        cost_weight: How much quality one unit of cost is worth.
        abstain_value: Utility of giving no answer after asking at least one model. None: an answer
            is always given.
    """
    best: Floats = (data.quality - cost_weight * data.cost).max(axis=1)
    if abstain_value is not None:
        best = np.maximum(best, abstain_value - cost_weight * data.cost.min(axis=1))
    return best


def check_prices(data: LogArrays, paths: Trajectories) -> Floats:
    """Return the mean price of a check of each model's answer; (m,).

    For a model that the policy checks, it is the price of the verdicts that the policy draws; for
    others, of all logged verdicts. It is NaN for a model whose answers were not checked in the log.
    """
    prices = np.full(len(data.models), np.nan)
    for j in range(len(data.models)):
        made, logged = paths.checked[:, j], data.checked(j)
        if made.any():
            prices[j] = paths.check_cost[made, j].mean()
        elif logged.any():
            drawn = (data.verdicts[logged, j] != NOT_DRAWN).sum(axis=1)
            prices[j] = (data.fixed_cost[logged, j] + drawn * data.sample_cost[logged, j]).mean()
    return prices


def perfect_check_utility(
    data: LogArrays, cost_weight: float, prices: Floats, abstain_value: float | None = None
) -> float:
    """Return the best mean utility of a cascade whose checks reveal the true quality.

    Some models are asked in turn. Each answer except the last is checked, and kept if its quality
    reaches a threshold. The models and the threshold are the best for these very queries; single
    models without a check are included. For qualities of 0 and 1, no other rule that knows only the
    qualities so far does better. If a query may go without an answer, the last answer is checked,
    too, if that pays, and an answer worth less than none is not given.

    Args:
        data: Complete queries.
        cost_weight: How much quality one unit of cost is worth.
        prices: (m,): price of a check of each model's answer; NaN if it cannot be checked.
        abstain_value: Utility of giving no answer. None: an answer is always given.
    """
    best = -np.inf
    thresholds = np.unique(data.quality)
    if len(thresholds) > _MAX_THRESHOLDS:
        shares = np.linspace(0, 1, _MAX_THRESHOLDS)
        thresholds = np.unique(np.quantile(thresholds, shares))
    for chain in _chains(len(data.models)):
        if np.isnan(prices[list(chain[:-1])]).any():
            continue
        # To know that no answer is good enough, the last one must be checked, too.
        may_abstain = abstain_value is not None and not np.isnan(prices[chain[-1]])
        for least in (None, abstain_value) if may_abstain else (None,):
            for threshold in thresholds if len(chain) > 1 else thresholds[:1]:
                utility = _cascade_utility(data, chain, threshold, cost_weight, prices, least)
                best = max(best, utility)
    return float(best)


def _chains(models: int) -> Iterator[tuple[int, ...]]:
    # More than four models in turn never paid in any log, and all subsets of many models are too
    # many.
    for size in range(1, min(models, 4) + 1):
        yield from combinations(range(models), size)


def _cascade_utility(
    data: LogArrays,
    chain: tuple[int, ...],
    threshold: float,
    cost_weight: float,
    prices: Floats,
    abstain_value: float | None,
) -> float:
    n = len(data)
    is_open, quality, cost = np.ones(n, dtype=bool), np.zeros(n), np.zeros(n)
    for j in chain:
        quality = np.where(is_open, data.quality[:, j], quality)
        cost += np.where(is_open, data.cost[:, j], 0.0)
        if j != chain[-1] or abstain_value is not None:
            cost += np.where(is_open, prices[j], 0.0)
            is_open = is_open & (data.quality[:, j] < threshold)
    if abstain_value is not None:
        quality = np.maximum(quality, abstain_value)
    return float((quality - cost_weight * cost).mean())
