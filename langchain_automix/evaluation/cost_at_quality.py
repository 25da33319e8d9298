"""The cost of quality: the frontier of fits and of plain rules, at shares of the best quality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.arrays import Floats, LogArrays
from langchain_automix.policy.fitting.baselines import Family, fit_rule
from langchain_automix.policy.fitting.candidates import CROSS_FIT_ROWS
from langchain_automix.policy.fitting.cross_fitting import CrossFit
from langchain_automix.policy.fitting.fit import frontier_points
from langchain_automix.policy.replay import Outcomes, concatenate, replay_plan
from langchain_automix.policy.statistics import Interval, ratio_interval_by_delta
from langchain_automix.policy.ties import TIE, first_best

LEVELS = (1.0, 0.99, 0.97, 0.95)
"""Shares of the best single model's quality."""

_RUNGS, _FEW_RUNGS = 13, 6
"""Number of cost weights to fit; fewer if the log can distinguish only a few."""

_FEW_QUERIES = 50

_RULES: tuple[Family, ...] = ("threshold", "released")
"""Plain rules to compare the fit with, besides random mixing."""


@dataclass(frozen=True)
class CostAtQuality:
    """The cost of a rule that must reach a share of the best single model's quality."""

    level: float
    """The required share of that quality."""

    cost: float | None
    """Share of the best single model's cost; None if the rule does not reach the level."""

    cost_interval: Interval | None
    """95 % interval, paired, by the delta method; for the chosen mix of rules."""

    quality: float | None
    """Share of the quality that the rule reaches, on queries that had no part in choosing it."""

    quality_interval: Interval | None


def cross_fit(data: LogArrays, ids: Sequence[str], cost_weight: float, seed: int) -> CrossFit:
    """Return complete queries in folds, or a random sample of them if there are very many.

    Args:
        data: Complete queries, two or more.
        ids: Ids of the queries.
        cost_weight: Cost weight at which to judge whether more than two models pay.
        seed: Seed for the sample and the folds.
    """
    if len(data) > CROSS_FIT_ROWS:
        drawn = np.random.default_rng(seed).permutation(len(data))[:CROSS_FIT_ROWS]
        rows = np.sort(drawn)
        return CrossFit(data.rows(rows), [ids[row] for row in rows.tolist()], cost_weight, seed)
    return CrossFit(data, ids, cost_weight, seed)


@dataclass(frozen=True)
class CrossFittedFrontier:
    """Policies from cheap to good: for each cost weight, the one that a fit offers."""

    weights: tuple[float, ...]
    """Cost weights, in descending order."""

    quality: Floats
    """(n, weights): quality of each query under the policy that was fitted without its fold."""

    cost: Floats
    """(n, weights)."""


def cross_fitted_frontier(folds: CrossFit) -> CrossFittedFrontier:
    """Fit the frontier without each fold, and replay it on the fold.

    This is the frontier on which `max_cost` and `min_quality` are met. At a cost weight, the policy
    on it with the best expected utility is taken.
    """
    data = folds.data
    weights = frontier_weights(data, folds.cost_weight)
    quality, cost = np.empty((2, len(data), len(weights)))
    for fold in folds.folds:
        points = frontier_points(fold.learner)
        replays = [replay_plan(point.rule, fold.held_out) for point in points]
        best = [first_best([p.quality - weight * p.cost for p in points]) for weight in weights]
        quality[fold.places] = np.stack([replays[k].quality for k in best], axis=1)
        cost[fold.places] = np.stack([replays[k].cost for k in best], axis=1)
    return CrossFittedFrontier(tuple(weights), quality, cost)


def costs_at_quality(
    folds: CrossFit, frontier: CrossFittedFrontier
) -> dict[str, tuple[CostAtQuality, ...]]:
    """Return, for each rule, the cost of shares of the best single model's quality.

    Every rule is fitted without each fold at several cost weights. For each level, two of these
    fits (or one, or single models) are mixed so that the mean quality on the *other* folds reaches
    the level at the least cost. The mix is then judged on the fold itself, so neither a fit nor the
    choice among fits has seen the queries that it is judged on. The quality reached may thus differ
    from the level.

    Args:
        folds: The log in folds.
        frontier: The policies that the fit offers, from the same folds.

    Returns:
        For `policy` (the fit and the single models), `random_mix` (of the first and the last model)
        and each plain rule that the log allows, one entry per level in `LEVELS`. Empty if the best
        single model has no quality or no cost.
    """
    data = folds.data
    best = first_best(data.quality.mean(axis=0))
    single = data.quality[:, best], data.cost[:, best]
    if single[0].mean() <= 0 or single[1].mean() <= 0:
        return {}
    fold = np.empty(len(data), dtype=np.int64)
    for number, each in enumerate(folds.folds):
        fold[each.places] = number
    return {
        name: tuple(_at_level(level, options, single, fold) for level in LEVELS)
        for name, options in _options(folds, frontier)
    }


def frontier_weights(data: LogArrays, own: float) -> list[float]:
    """Return the cost weights to fit: 0, the given one, and steps over all that matter.

    Above 1 / (cost of the second cheapest model), no answer of that model is worth its price,
    however good. Below an eighth of the lowest price of quality between two models, price does not
    matter.
    """
    means = np.sort(data.cost.mean(axis=0))
    dearer = means[means > 0][1:] if (means > 0).all() else means[means > 0]
    if not len(dearer):
        return sorted({0.0, own})
    high = 1.0 / float(dearer[0])
    slopes = list(_slopes(data))
    low = min([*slopes, high]) / 8 if slopes else 1.0 / float(means[-1]) / 64
    number = _RUNGS if len(data) >= _FEW_QUERIES else _FEW_RUNGS
    steps = np.geomspace(min(low, high / 8), high, number).tolist()
    return sorted({0.0, own, *steps}, reverse=True)


def _slopes(data: LogArrays) -> Iterator[float]:
    """Yield the quality that a unit of cost buys, from each model to the next better one."""
    means: list[tuple[float, float]] = sorted(
        zip(data.cost.mean(axis=0).tolist(), data.quality.mean(axis=0).tolist(), strict=True)
    )
    for (cost, quality), (more, better) in pairwise(means):
        if more > cost and better > quality:
            yield (better - quality) / (more - cost)


_Options = tuple[Floats, Floats]
"""(n, options) quality and cost of each query under each option, fitted without its fold."""


def _options(folds: CrossFit, frontier: CrossFittedFrontier) -> Iterator[tuple[str, _Options]]:
    """Yield the rules, each with its variants at the different cost weights."""
    data = folds.data
    quality = np.concatenate([data.quality, frontier.quality], axis=1)
    yield "policy", (quality, np.concatenate([data.cost, frontier.cost], axis=1))
    yield "random_mix", (data.quality[:, [0, -1]], data.cost[:, [0, -1]])
    for family in _RULES:
        try:
            yield family, _stack([_rule_at(folds, family, w) for w in frontier.weights])
        except AutoMixError:  # the first model's answers were not checked
            continue


def _stack(outcomes: Sequence[Outcomes]) -> _Options:
    quality = np.stack([each.quality for each in outcomes], axis=1)
    return quality, np.stack([each.cost for each in outcomes], axis=1)


def _rule_at(folds: CrossFit, family: Family, cost_weight: float) -> Outcomes:
    """Return the outcomes under a plain rule that was fitted without each fold."""
    parts = []
    for fold in folds.folds:
        plan = fit_rule(fold.learner.columns, cost_weight, family).plan
        parts.append((fold.places, replay_plan(plan, fold.held_out)))
    return concatenate(parts)


def _at_level(
    level: float, options: _Options, single: tuple[Floats, Floats], fold: Floats
) -> CostAtQuality:
    qualities, costs = options
    quality, cost = np.empty(len(fold)), np.empty(len(fold))
    for number in range(int(fold.max()) + 1):
        others, own = fold != number, fold == number
        target = level * float(single[0][others].mean())
        mix = cheapest_mix(costs[others].mean(axis=0), qualities[others].mean(axis=0), target)
        if mix is None:
            return CostAtQuality(level, None, None, None, None)
        first, second, share = mix
        quality[own] = share * qualities[own, first] + (1 - share) * qualities[own, second]
        cost[own] = share * costs[own, first] + (1 - share) * costs[own, second]
    return CostAtQuality(
        level,
        float(cost.mean() / single[1].mean()),
        ratio_interval_by_delta(cost, single[1]),
        float(quality.mean() / single[0].mean()),
        ratio_interval_by_delta(quality, single[0]),
    )


def cheapest_mix(costs: Floats, qualities: Floats, least: float) -> tuple[int, int, float] | None:
    """Return the two options, and the share of the first, that reach a quality at the least cost.

    Args:
        costs: (options,) mean cost of each option.
        qualities: (options,) mean quality of each option.
        least: The quality to reach.

    Returns:
        The options and the share; None if no option reaches the quality.
    """
    is_enough = qualities >= least - TIE
    if not is_enough.any():
        return None
    best = int(np.flatnonzero(is_enough)[costs[is_enough].argmin()])
    found, price = (best, best, 1.0), float(costs[best])
    for low in np.flatnonzero(~is_enough).tolist():
        for high in np.flatnonzero(is_enough).tolist():
            share = float((qualities[high] - least) / (qualities[high] - qualities[low]))
            share = min(max(share, 0.0), 1.0)
            mixed = share * float(costs[low]) + (1 - share) * float(costs[high])
            if mixed < price * (1 - TIE):
                found, price = (low, high, share), mixed
    return found


COST_TABLE_WORDS = (
    "Asked: a share of the quality of {against}, the best single model. Under each rule: the share "
    "of its cost that this takes, checks included, with a 95 % interval. Each rule was fitted and "
    "mixed on other queries than it is judged on, so what the policy got may differ a little from "
    "what was asked."
)
"""How to read the table; a format string with the field `against`."""

RULE_NAMES = {
    "policy": "policy",
    "random_mix": "random mixing",
    "threshold": "one threshold",
    "released": "released rule",
}
"""Names of the rules on the frontier."""


def cost_table(
    found: Mapping[str, Sequence[CostAtQuality]],
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the frontier as a table: heads, and a row per level.

    The second column is the quality that the policy reached on queries that had no part in its
    choice.
    """
    names = [name for name in RULE_NAMES if name in found]
    heads = ("asked", "got", *(RULE_NAMES[name] for name in names))
    rows = []
    for place, policy in enumerate(found["policy"]):
        got = "" if policy.quality is None else f"{policy.quality:.1%}"
        costs = (_cost_cell(found[name][place]) for name in names)
        rows.append((f"{policy.level:.0%}", got, *costs))
    return heads, rows


def _cost_cell(point: CostAtQuality) -> str:
    if point.cost is None or point.cost_interval is None:
        return "not reached"
    low, high = point.cost_interval
    return f"{point.cost:.0%} [{low * 100:.0f}, {high * 100:.0f}]"
