"""Rules to compare a router with: random mixing, thresholds, the released rule, foresight."""

from __future__ import annotations

import numpy as np

from langchain_automix.errors import AutoMixError, OutOfReachError
from langchain_automix.policy.bounds import oracle
from langchain_automix.policy.data.arrays import Floats, Ints, LogArrays
from langchain_automix.policy.fitting.baselines import Family
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.replay import replay_policy

QualityAndCost = tuple[Floats, Floats]
"""(n,) each: quality and cost of every query."""


def random_mix(data: LogArrays, budget: float) -> QualityAndCost:
    """Mix the first and the last model at random so that the mean cost equals the budget."""
    low, high = data.cost[:, 0].mean(), data.cost[:, -1].mean()
    share = 0.0 if high <= low else float(np.clip((budget - low) / (high - low), 0, 1))
    mixed = [(1 - share) * x[:, 0] + share * x[:, -1] for x in (data.quality, data.cost)]
    return mixed[0], mixed[1]


def with_foresight(
    data: LogArrays, cost_weight: float, abstain_value: float | None
) -> tuple[Floats, Floats, Floats]:
    """Pick each query's best model, or the cheapest and no answer if that is worth more.

    Returns:
        Quality, cost and utility of each query.
    """
    rows, best = np.arange(len(data)), (data.quality - cost_weight * data.cost).argmax(axis=1)
    quality, cost = data.quality[rows, best], data.cost[rows, best]
    worth = oracle(data, cost_weight, abstain_value)
    is_silent = worth > quality - cost_weight * cost
    quality = np.where(is_silent, 0.0, quality)
    cost = np.where(is_silent, data.cost.min(axis=1), cost)
    return quality, cost, worth


def cross_fitted_rule(data: LogArrays, goal: Goal, family: Family, seed: int) -> QualityAndCost:
    """Fit a rule to each half of some queries, and replay it on the other half.

    Raises:
        OutOfReachError: A half cannot reach the goal.
    """
    quality, cost = np.empty(len(data)), np.empty(len(data))
    halves = _halves(data, seed) if len(data) > 1 else [(data, np.arange(1))]
    for train, rest in halves:
        try:
            policy = fit_policy(train, goal, family=family, seed=seed, foretell=False)
        except OutOfReachError:
            raise
        except AutoMixError:  # nothing was checked, so the rule has nothing to read
            policy = fit_policy(train, goal, family="always", seed=seed, foretell=False)
        outcomes = replay_policy(policy, data.rows(rest), [str(row) for row in rest.tolist()])
        quality[rest], cost[rest] = outcomes.quality, outcomes.cost
    return quality, cost


def _halves(data: LogArrays, seed: int) -> list[tuple[LogArrays, Ints]]:
    """Return, for each of two random halves, its queries and the row indices of the other half."""
    order = np.random.default_rng(seed).permutation(len(data))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    return [(data.rows(first), second), (data.rows(second), first)]
