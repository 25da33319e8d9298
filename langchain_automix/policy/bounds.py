"""What routing could come to at most: with a check that is never wrong, or with foresight."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from langchain_automix.policy.data.arrays import NOT_DRAWN, Floats, LogArrays
from langchain_automix.policy.replay import Trajectories

_CUTS = 33
"""Thresholds that are tried, where there are many qualities."""


def oracle(data: LogArrays, cost_weight: float, abstain_value: float | None = None) -> Floats:
    """Return the utility of each query if its best model were known beforehand; (n,).

    Args:
        data: Complete queries.
        cost_weight: Quality that one unit of cost is worth.
        abstain_value: Worth of giving no answer, which is known only after one model was asked;
            None if there must be one.
    """
    best: Floats = (data.quality - cost_weight * data.cost).max(axis=1)
    if abstain_value is not None:
        best = np.maximum(best, abstain_value - cost_weight * data.cost.min(axis=1))
    return best


def check_prices(data: LogArrays, paths: Trajectories) -> Floats:
    """Return what a check of each model's answer costs in the mean; (m,).

    As many verdicts as the policy draws where it checks that model, all that were logged where it
    does not; NaN for a model whose answers were not checked in the log.
    """
    prices = np.full(len(data.models), np.nan)
    for j in range(len(data.models)):
        made, logged = paths.checked[:, j], data.checked(j)
        if made.any():
            prices[j] = paths.check_cost[made, j].mean()
        elif logged.any():
            drawn = (data.verdicts[logged, j] != NOT_DRAWN).sum(axis=1)
            whole = data.fixed_cost[logged, j] + drawn * data.sample_cost[logged, j]
            prices[j] = whole.mean()
    return prices


def perfect_check_utility(
    data: LogArrays, cost_weight: float, prices: Floats, abstain_value: float | None = None
) -> float:
    """Return the best mean utility of a cascade whose checks tell the true quality.

    Some models are asked in turn; each answer but the last one's is checked and kept if its
    quality is at least a threshold. The models and the threshold are the best for these very
    queries, single models without a check among them. For qualities of 0 and 1 no other rule
    that knows just the quality of the answers so far does better. Where a query may go without an
    answer, the last one's is checked too if that pays, and no answer worth less is given.

    Args:
        data: Complete queries.
        cost_weight: Quality that one unit of cost is worth.
        prices: (m,): cost of a check of each model's answer; NaN where it cannot be checked.
        abstain_value: Worth of giving no answer; None if there must be one.
    """
    number = len(data.models)
    best = -np.inf
    cuts = np.unique(data.quality)
    if len(cuts) > _CUTS:
        cuts = np.unique(np.quantile(cuts, np.linspace(0, 1, _CUTS)))
    for chain in _chains(number):
        if np.isnan(prices[list(chain[:-1])]).any():
            continue
        tries = cuts if len(chain) > 1 else cuts[:1]
        best = max(best, *(_cascade(data, chain, cut, cost_weight, prices) for cut in tries))
        if abstain_value is not None and not np.isnan(prices[chain[-1]]):
            # To know that no answer is good enough, the last one is checked too.
            checked = (
                _cascade(data, chain, cut, cost_weight, prices, abstain_value) for cut in tries
            )
            best = max(best, *checked)
    return float(best)


def _chains(number: int) -> Iterator[tuple[int, ...]]:
    # More than four models in turn never paid in any log; all subsets of many models are too many.
    for size in range(1, min(number, 4) + 1):
        yield from combinations(range(number), size)


def _cascade(
    data: LogArrays,
    chain: tuple[int, ...],
    cut: float,
    cost_weight: float,
    prices: Floats,
    abstain_value: float | None = None,
) -> float:
    n = len(data)
    open_, quality, cost = np.ones(n, dtype=bool), np.zeros(n), np.zeros(n)
    for j in chain:
        quality = np.where(open_, data.quality[:, j], quality)
        cost += np.where(open_, data.cost[:, j], 0.0)
        if j != chain[-1] or abstain_value is not None:
            cost += np.where(open_, prices[j], 0.0)
            open_ = open_ & (data.quality[:, j] < cut)
    if abstain_value is not None:
        quality = np.maximum(quality, abstain_value)
    return float((quality - cost_weight * cost).mean())
