"""What a mix saves against the largest model, or would have saved, and what that costs in quality.

Before a policy decides, it is a question: policies are fitted to the queries that were seen in
full, each query is judged by one that was fitted without it (`policy.fitting.cross_fitting`), and
the loss is bounded as `policy.fitting.confidence` bounds it. Once one decides, it is measured: by
the money that was paid, and by the doubly robust bound of `learning.comparing`.
"""

from __future__ import annotations

import math

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.evaluation.cost_at_quality import cross_fit
from langchain_automix.learning.comparing import Contest
from langchain_automix.learning.estimation import effective_size
from langchain_automix.learning.fitting import fit_to, weighed
from langchain_automix.learning.review import FIRST_FIT
from langchain_automix.learning.review_settings import ReviewSettings
from langchain_automix.learning.traffic import Traffic
from langchain_automix.policy.data.arrays import Floats, LogArrays
from langchain_automix.policy.fitting.confidence import (
    Margin,
    dearest_query,
    examples_needed,
    lower_bound,
    resampled_means,
)
from langchain_automix.policy.statistics import Interval, ratio_interval
from langchain_automix.report.timeline.contents import Saving

_FEWEST_MORE = 10.0
"""The number of queries that are missing is an estimate: no smaller one is told."""

_MOST_MORE = 20
"""Times as many queries as there are: what takes more is not shown in practice."""


def would_have_saved(traffic: Traffic, settings: ReviewSettings) -> Saving | None:
    """Return what policies fitted to the traffic, since the latest alarm, would have saved of it.

    Returns:
        None where too few queries were seen in full, or no policy can be fitted to them.
    """
    observed = traffic.recent
    if int(observed.complete.sum()) < FIRST_FIT:
        return None
    try:
        policy, _ = fit_to(observed, settings)
    except AutoMixError:
        return None
    ids = [id for id, seen in zip(observed.ids, observed.complete, strict=True) if seen]
    folds = cross_fit(weighed(observed), ids, policy.cost_weight, settings.seed)
    outcomes, _ = folds.like(policy)
    data, last = folds.data, len(traffic.models) - 1
    lost = data.quality[:, last] - outcomes.quality
    margin = _margin(lost, outcomes.cost, data, settings)
    scale = len(data) / effective_size(data.weight)
    bound = lower_bound([Margin(-lost, -1.0)], data.weight, settings.confidence, settings.seed)
    needed = examples_needed(margin, settings.confidence) * scale
    shown = lower_bound([margin], data.weight, settings.confidence, settings.seed) >= 0
    saved, interval = _saved(outcomes.cost, data.cost[:, last], data.weight, settings.seed)
    return Saving(
        queries=len(data),
        saved=saved,
        interval=interval,
        lost=float(data.mean(lost)),
        lost_at_most=-bound,
        is_shown=bool(shown),
        more=_more(
            needed - len(data), len(data), len(data) / max(len(observed), 1), shown=bool(shown)
        ),
    )


def has_saved(traffic: Traffic, settings: ReviewSettings) -> Saving | None:
    """Return what the version that decides has saved since it decides; None: no query had both.

    The loss is measured on the queries since, with the bound that the review goes by.
    """
    champion = traffic.champion
    if champion is None or champion.since is None:
        return None
    since = [
        each.query
        for each in traffic.stored
        if each.query.at > champion.since and each.query.came_to_its_end
    ]
    paid = [(q.cost, q.alone) for q in since if q.cost is not None and q.alone]
    if not paid:
        return None
    cost, alone = np.array(paid, dtype=np.float64).T
    low, high = ratio_interval(cost, alone, settings.seed)
    contest = Contest.since(traffic.observed, champion.since)
    policy = champion.to_policy()
    # Each half of what `loses_little` shows has half of the chance: this one is to have all.
    alpha = 2 * (1 - settings.confidence)
    allowed = settings.max_loss if settings.max_loss is not None else 0.0
    found = contest.loses_little(policy, None, allowed, alpha)
    goal = found
    if settings.cost_weight is not None:
        goal = contest.gains_utility(policy, None, settings.cost_weight, 1 - settings.confidence)
    shown = goal.bound >= 0
    return Saving(
        queries=len(paid),
        saved=1 - float(cost.mean() / alone.mean()),
        interval=(1 - high, 1 - low),
        lost=allowed - found.gain if found.seen else None,
        lost_at_most=allowed - found.bound if math.isfinite(found.bound) else None,
        is_shown=shown,
        more=_more(goal.needed - goal.queries, goal.queries, 1.0, shown=shown or not found.seen),
        version=champion.number,
    )


def _margin(lost: Floats, cost: Floats, data: LogArrays, settings: ReviewSettings) -> Margin:
    """Return by how much each query is within the goal."""
    if settings.max_loss is not None:
        return Margin(settings.max_loss - lost, settings.max_loss - 1)
    weight = settings.cost_weight or 0.0
    gained = weight * (data.cost[:, -1] - cost) - lost
    return Margin(gained, -1 - weight * dearest_query(data))


def _saved(cost: Floats, alone: Floats, weight: Floats, seed: int) -> tuple[float, Interval]:
    """Return the share of the cost that is saved, with its 95 % interval."""
    means, _ = resampled_means(np.stack([cost, alone], axis=1), weight, seed)
    low, high = np.quantile(1 - means[:, 0] / means[:, 1], [0.025, 0.975])
    return 1 - float(weight @ cost / (weight @ alone)), (float(low), float(high))


def _more(missing: float, seen: int, share: float, *, shown: bool) -> int | None:
    """Return how many queries more it takes; None: more of them would hardly show it, or it is."""
    if shown or not missing <= _MOST_MORE * seen:
        return None
    more = max(missing, _FEWEST_MORE) / max(share, 1e-3)
    size: int = 10 ** max(len(str(math.ceil(more))) - 2, 0)
    return math.ceil(more / size) * size
