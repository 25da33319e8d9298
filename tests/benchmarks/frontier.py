"""What quality costs: the fit to all models against its pairs, and against plain rules."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from langchain_automix.evaluation.cost_at_quality import (
    LEVELS,
    cost_table,
    costs_at_quality,
    cross_fit,
    cross_fitted_frontier,
)
from langchain_automix.evaluation.headline import build_headline
from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.fitting.candidates import CandidateFitter, always
from langchain_automix.policy.fitting.fit import fit_policy, frontier_points
from langchain_automix.policy.fitting.frontier import FrontierPoint, frontier
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.replay import replay_plan, replay_policy

HEADS = ("cost at", *(f"{level:.0%}" for level in LEVELS))
SPLITS = 10


def cross_fitted(columns: LogArrays) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the table that `automix evaluate` prints, of a whole log."""
    ids = [str(row) for row in range(len(columns))]
    folds = cross_fit(columns, ids, 0.0, 0)
    return cost_table(costs_at_quality(folds, cross_fitted_frontier(folds)))


def headline(train: LogArrays, test: LogArrays) -> str:
    """Return what a fit that may lose 0.01 of quality gets on the test split."""
    policy = fit_policy(train, Goal(max_loss=0.01), foretell=False)
    outcomes = replay_policy(policy, test, [str(row) for row in range(len(test))])
    found = build_headline(outcomes, test, policy)
    return "undefined" if found is None else found.describe()


def against_pairs(train: LogArrays, held_out: LogArrays | None) -> Iterator[tuple[str, ...]]:
    """Yield what the fit to all models costs at each level, and what its pairs together do.

    Args:
        train: What is fitted to.
        held_out: What is judged on. None: two fifths of `train`, for ten random splits.
    """
    found = []
    if held_out is not None:
        found.append(_costs(train, held_out, 0))
    for seed in range(0 if held_out is not None else SPLITS):
        order = np.random.default_rng(100 + seed).permutation(len(train))
        most = len(order) * 6 // 10
        found.append(_costs(train.rows(order[:most]), train.rows(order[most:]), seed))
    names = ("all models", "union of the pairs", "the same, chosen in hindsight")
    for name, costs in zip(names, np.mean(found, axis=0).tolist(), strict=True):
        yield (name, *("" if np.isnan(cost) else f"{cost:.3f}" for cost in costs))


def _costs(train: LogArrays, test: LogArrays, seed: int) -> list[list[float]]:
    """Return, for the fit and for the union of its pairs, the cost at each level.

    Which policies are offered is chosen by what is expected of them on `train`; only the last row
    chooses among all of every pair by what `test` shows, which flatters it.
    """
    singles = _means(test)
    fitted = frontier_points(CandidateFitter(train, seed=seed))
    of_all = [_replayed(point.plan, test) for point in fitted]
    offered, in_hindsight = [], []
    for pair in combinations(range(len(train.models)), 2):
        of_pair = test.only(pair)
        for point in frontier_points(CandidateFitter(train.only(pair), seed=seed)):
            reached = _replayed(point.plan, of_pair)
            in_hindsight.append(reached)
            offered.append((point, reached))
    hull = frontier([point for point, _ in offered])
    of_pairs = [reached for point, reached in offered if any(point is kept for kept in hull)]
    return [_at_levels(points + singles, test) for points in (of_all, of_pairs, in_hindsight)]


def _means(columns: LogArrays) -> list[tuple[float, float]]:
    costs, qualities = columns.cost.mean(axis=0).tolist(), columns.quality.mean(axis=0).tolist()
    return list(zip(costs, qualities, strict=True))


def _replayed(plan: Plan, columns: LogArrays) -> tuple[float, float]:
    outcomes = replay_plan(plan, columns)
    return float(outcomes.cost.mean()), float(outcomes.quality.mean())


def _at_levels(points: list[tuple[float, float]], columns: LogArrays) -> list[float]:
    """Return the share of the best single model's cost that each level takes on the hull."""
    plan = always(columns.models, 0)  # the hull does not look at it
    hull = frontier([FrontierPoint(cost, quality, plan, 0.0) for cost, quality in points])
    costs, qualities = [p.cost for p in hull], [p.quality for p in hull]
    best = int(columns.quality.mean(axis=0).argmax())
    quality, cost = columns.quality[:, best].mean(), columns.cost[:, best].mean()
    return [float(np.interp(level * quality, qualities, costs) / cost) for level in LEVELS]
