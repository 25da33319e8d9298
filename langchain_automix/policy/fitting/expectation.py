"""Find where on the frontier a target is met in expectation, and the chance that it is kept."""

from __future__ import annotations

import math
from statistics import NormalDist

from langchain_automix.errors import OutOfReachError
from langchain_automix.policy.data.arrays import Floats
from langchain_automix.policy.fitting.frontier import (
    FoldFrontier,
    FrontierPoint,
    JudgedFrontier,
    Mixture,
    place,
)
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.ties import TIE, first_best
from langchain_automix.utils.formatting import format_percent

_FOLDABLE = 10
"""Number of queries below which no chance is estimated, since folds would hold out one or none."""


def meet_in_expectation(
    judged: JudgedFrontier, goal: Goal, *, foretell: bool
) -> tuple[Mixture, tuple[str, ...]]:
    """Return where the frontier meets a target in expectation, and notes.

    Args:
        judged: The frontier of the log.
        goal: A goal with `max_loss`, `min_quality` or `max_cost`.
        foretell: Whether to note how likely new queries are to meet it; takes five more fits.

    Raises:
        OutOfReachError: No policy reaches the target.
    """
    found = _reached(judged.points, judged.learner.level, goal)
    told = foretell and len(judged.data) >= _FOLDABLE
    return found, ((_foretold(judged, goal),) if told else ())


def _reached(points: list[FrontierPoint], level: Floats, goal: Goal) -> Mixture:
    """Return where the frontier meets a target in expectation."""
    low, high = points[0], points[-1]
    if goal.max_cost is not None and goal.max_cost < low.cost:
        raise OutOfReachError(
            f"max_cost={goal.max_cost:g} is out of reach: on this log a policy costs from "
            f"{low.cost:g} ({low.rule.name}) to {high.cost:g} a query ({high.rule.name}).",
            nearest=low.cost,
        )
    if goal.min_quality is not None and goal.min_quality > high.quality:
        raise OutOfReachError(
            f"min_quality={goal.min_quality:g} is out of reach: on this log a policy reaches a "
            f"quality from {low.quality:.4f} ({low.rule.name}) to {high.quality:.4f} "
            f"({high.rule.name}).",
            nearest=high.quality,
        )
    return _nearest(points, level, goal)


def _nearest(points: list[FrontierPoint], level: Floats, goal: Goal) -> Mixture:
    """Return where the frontier comes nearest to a target."""
    if goal.max_cost is not None:
        return place([point.cost for point in points], goal.max_cost)
    least = goal.min_quality or 0.0
    if goal.max_loss is not None:
        least = float(level.max()) - goal.max_loss
    return place([point.quality for point in points], least)


def _foretold(judged: JudgedFrontier, goal: Goal) -> str:
    """Describe how likely new queries are to meet a target that is met in expectation."""

    def where(fold: FoldFrontier) -> Mixture:
        return _nearest(fold.points, fold.level, goal)

    data = judged.data
    quality, cost = judged.cross_fitted(where)
    if goal.max_cost is not None:
        margin, seen = goal.max_cost - cost, f"cost {data.mean(cost):g} a query"
    elif goal.min_quality is not None:
        margin = quality - goal.min_quality
        seen = f"have a quality of {data.mean(quality):.4f}"
    else:
        best = first_best(data.mean(data.quality))
        loss = data.quality[:, best] - quality
        margin = (goal.max_loss or 0.0) - loss
        seen = f"lose {data.mean(loss):.4f} of quality against always {data.models[best]}"
    chance = chance_of_meeting(margin, data.weight)
    [(name, target)] = goal.target.items()
    return (
        f"The goal {name}={target:g} is met in expectation only. Judged on queries that they were "
        f"not fitted to, policies fitted like this one {seen}; the chance that {len(data)} new "
        f"queries meet the goal is about {format_percent(chance)}. To be surer, give a confidence "
        "beside the goal, such as 0.9."
    )


def chance_of_meeting(margin: Floats, weight: Floats) -> float:
    """Return the probability that as many new queries meet a target on average.

    Args:
        margin: (n,) how far each query is within the target, judged by a fit that has not seen it.
        weight: (n,) weight of each query.

    Returns:
        A probability in [0, 1]. Both the n queries seen and the n new ones are treated as random
        draws.
    """
    share = weight / weight.sum()
    mean = float(share @ margin)
    error = math.sqrt(2 * float((share**2) @ (margin - mean) ** 2))
    if error < TIE:
        return float(mean >= -TIE)
    return NormalDist().cdf(mean / error)
