"""The recommendation: deploy the policy, keep one model, take a threshold, or label more."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from langchain_automix.evaluation.headline import Headline
from langchain_automix.evaluation.plain_rules import QualityAndCost
from langchain_automix.policy.data.arrays import Floats, LogArrays
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.baselines import best_single
from langchain_automix.policy.fitting.candidates import always
from langchain_automix.policy.fitting.frontier import FrontierPoint, frontier
from langchain_automix.policy.fitting.goal import TARGETS
from langchain_automix.policy.replay import Outcomes
from langchain_automix.policy.statistics import Interval, mean_interval
from langchain_automix.policy.ties import first_best
from langchain_automix.utils.formatting import (
    format_percent,
    format_signed,
    format_signed_range,
)

FEW = 20
"""Number of queries below which any difference may be luck."""

FAIRLY_MANY = 50
"""Number of queries below which most differences are luck."""

_SAME = 5e-4
"""A smaller difference in utility would be printed as 0.000."""

_SAME_COST = 0.005
"""A share of the cost that counts as no difference."""

_HOPELESS = 10
"""Labelling is not recommended beyond this many times the size of the log."""

Action = Literal["deploy", "keep", "label", "threshold"]


@dataclass(frozen=True)
class Recommendation:
    """What to do, according to a log."""

    action: Action
    """`deploy` the policy, `keep` a single model, `label` more examples, or take the `threshold`
    rule instead of the policy."""

    text: str
    """The recommendation in one sentence: what is saved and the most that is lost, or why not."""

    model: str | None = None
    """The single model to keep, for now or for good; None if the rule is to be deployed."""

    more_examples: int | None = None
    """Approximate number of further examples that would show the gain; None if none are asked
    for."""

    detail: str = ""
    """The basis of the recommendation, with intervals."""

    def __str__(self) -> str:
        return f"{self.text} {self.detail}".rstrip()


@dataclass(frozen=True)
class _Standing:
    """A rule compared with single models."""

    n: int
    bound: str | None
    """The bound that the rule was fitted for, if any."""

    gain: float
    """Utility gained over the single model with the highest utility; with a bound, quality gained
    over mixing single models at random at the same cost."""

    gain_interval: Interval
    gain_deviation: float
    loss: float
    """Quality lost compared with the single model of the best quality; negative if gained."""

    loss_interval: Interval
    loss_deviation: float
    allowed: float | None
    """Loss of quality that the goal allows; None for other goals."""

    saving: Headline | None

    @property
    def is_shown(self) -> bool:
        """Whether the log shows a gain, and a loss no larger than the goal allows."""
        gains = self.gain_interval[0] > 0
        if self.allowed is None:
            return gains
        saves = self.saving is not None and self.saving.cost_interval[1] < 1
        return (gains or saves) and self.loss_interval[1] <= self.allowed

    @property
    def needed(self) -> int | None:
        """Queries that would show what is missing, if nothing changed; None if none would."""
        if self.allowed is None:
            return _queries_to_show(self.gain, self.gain_deviation)
        if self.saving is None or self.saving.cost >= 1:
            return None
        return _queries_to_show(self.allowed - self.loss, self.loss_deviation)


def _queries_to_show(mean: float, deviation: float) -> int | None:
    """Return how many queries a 95 % interval above 0 takes; None if the mean is not above 0."""
    if mean <= 0:
        return None
    return math.ceil((1.96 * deviation / mean) ** 2)


def recommend(
    policy: Policy,
    outcomes: Outcomes,
    data: LogArrays,
    cost_weight: float,
    headline: Headline | None,
    threshold: QualityAndCost | None = None,
) -> Recommendation:
    """Recommend what to do, according to a log.

    A policy for a cost weight is compared with the single model of the best utility. A policy for a
    bound on cost, quality or loss is compared with mixing single models at random at the same cost,
    since its cost weight is only what the fit expects at the bound, and a single model seldom meets
    a bound.

    Args:
        policy: The policy, with the goal that it was fitted for.
        outcomes: The outcome of each query under the policy, fitted without that query.
        data: The queries, all complete.
        cost_weight: How much quality one unit of cost is worth.
        headline: Shares of quality and cost of the best single model; None if undefined.
        threshold: Quality and cost of each query under one threshold fitted for the same goal and
            judged in the same way. None if the log has no check, or if the policy is a threshold
            itself.
    """
    kept = _kept(policy, data, cost_weight)
    if len(data) < FEW:
        return _too_few(len(data), kept)
    if "max_risk" in policy.goal:
        return _by_risk(policy, outcomes)
    if bound_of(policy) is not None:
        cost_weight = _price_of_mixing(data, float(outcomes.cost.mean()), cost_weight)
    utility = outcomes.utility(cost_weight, policy.goal.get("abstain_value"))
    standing = _standing(policy, outcomes.quality, utility, data, cost_weight, headline)
    found = _by_standing(standing, kept, policy, outcomes)
    if threshold is None:
        return found
    return _beside_threshold(found, standing.bound, outcomes, threshold, data, cost_weight)


def _beside_threshold(
    found: Recommendation,
    bound: str | None,
    outcomes: Outcomes,
    threshold: QualityAndCost,
    data: LogArrays,
    cost_weight: float,
) -> Recommendation:
    """Recommend one threshold if it is shown to do better; mention it if that may be luck.

    For a cost weight, the utilities are compared. For a bound, the threshold must be no worse in
    quality and cost, and better in one of them, since the two need not spend the same.
    """
    better = threshold[0] - outcomes.quality
    cheaper = outcomes.cost - threshold[1]
    if bound is None:
        gained, unit, is_as_good = better + cost_weight * cheaper, "utility", True
    elif bound == "max_cost":
        gained, unit, is_as_good = better, "quality at no more cost", cheaper.mean() >= 0
    elif (own := float(outcomes.cost.mean())) <= 0:  # nothing is cheaper
        return found
    else:
        gained, unit = cheaper / own, "the cost, at no less quality"
        is_as_good = better.mean() >= 0
    mean, interval = float(gained.mean()), mean_interval(gained)
    if not is_as_good or mean <= _SAME:
        return found
    by = f"{format_signed(mean)} of {unit} ({_ends(interval)})"
    if bound not in (None, "max_cost"):
        ends = " to ".join(f"{end * 100:+.1f} %" for end in interval)
        by = f"{format_percent(mean)} of {unit} (95 % interval {ends})"
    verb = "saves" if bound not in (None, "max_cost") else "gains"
    single = best_single(data, cost_weight).utility
    above = threshold[0] - cost_weight * threshold[1] - single
    if interval[0] > 0 and mean_interval(above)[0] > 0:
        text = (
            "Take one threshold in place of this policy: it does better on this log, and "
            "`automix fit --rule threshold` fits it."
        )
        return Recommendation("threshold", text, detail=f"It {verb} {by} against the policy.")
    detail = (
        f"{found.detail} One threshold {verb} {by} against the policy here, which may be luck; "
        "`automix fit --rule threshold` fits it."
    )
    return replace(found, detail=detail.lstrip())


def bound_of(policy: Policy) -> str | None:
    """Return the bound on cost or quality that a policy was fitted for, or None if it has none."""
    return next((name for name in TARGETS if name in policy.goal), None)


def _kept(policy: Policy, data: LogArrays, cost_weight: float) -> str:
    """Return the single model to keep: the best of those within the cost bound, if any."""
    means, costs = data.quality.mean(axis=0), data.cost.mean(axis=0)
    best = data.models[first_best(means)]
    if (most := policy.goal.get("max_cost")) is not None:
        allowed = np.where(costs <= most, means, -1.0)
        return data.models[first_best(allowed) if (costs <= most).any() else int(costs.argmin())]
    if bound_of(policy) is not None:
        return best
    single = best_single(data, cost_weight)
    return best if best in single.models else single.models[-1]


def _price_of_mixing(data: LogArrays, cost: float, otherwise: float) -> float:
    """Return the price of quality when mixing single models at random, around a mean cost.

    At this price, the two models mixed are worth the same, and the utility gained over them is the
    quality gained at the same cost.
    """
    means = zip(data.cost.mean(axis=0).tolist(), data.quality.mean(axis=0).tolist(), strict=True)
    singles = [
        FrontierPoint(price, quality, always(data.models, j), weight=0.0)
        for j, (price, quality) in enumerate(means)
    ]
    pairs = list(pairwise(frontier(singles)))
    if not pairs:
        return otherwise
    left, right = next((pair for pair in pairs if cost <= pair[1].cost), pairs[-1])
    return (right.quality - left.quality) / (right.cost - left.cost)


def _standing(
    policy: Policy,
    quality: Floats,
    utility: Floats,
    data: LogArrays,
    cost_weight: float,
    headline: Headline | None,
) -> _Standing:
    gained = utility - best_single(data, cost_weight).utility
    lost = data.quality[:, first_best(data.quality.mean(axis=0))] - quality
    return _Standing(
        n=len(data),
        bound=bound_of(policy),
        gain=float(gained.mean()),
        gain_interval=mean_interval(gained),
        gain_deviation=float(gained.std()),
        loss=float(lost.mean()),
        loss_interval=mean_interval(lost),
        loss_deviation=float(lost.std()),
        allowed=_allowed_loss(policy),
        saving=headline,
    )


def _allowed_loss(policy: Policy) -> float | None:
    """Return how much quality the goal allows to lose against the best single model of the fit."""
    if (loss := policy.goal.get("max_loss")) is not None:
        return loss
    if (least := policy.goal.get("min_quality")) is not None and policy.fit.quality:
        loss = max(policy.fit.quality) - least
        return loss if loss >= 0 else None  # a goal above every model asks for a gain
    return None


def _too_few(n: int, kept: str) -> Recommendation:
    number = "one query" if n == 1 else f"{n} queries"
    more = FAIRLY_MANY - n
    text = (
        f"Label at least {more} more examples: a log of {number} is too small to tell the policy "
        f"from {kept} alone. Until then keep {kept}."
    )
    return Recommendation("label", text, kept, more)


def _by_risk(policy: Policy, outcomes: Outcomes) -> Recommendation:
    """Judge a policy with a bound on wrong answers by that bound."""
    is_answered, limit = outcomes.model >= 0, policy.goal["max_risk"]
    wrong = float(np.where(is_answered, 1 - outcomes.quality, 0.0).mean())
    figures = (
        f"it answers {format_percent(float(is_answered.mean()))} of the queries, and gives a wrong "
        f"answer to {format_percent(wrong)} of all, where {format_percent(limit)} are allowed."
    )
    if wrong <= limit:
        return Recommendation("deploy", f"Deploy this policy: {figures}")
    text = f"Do not deploy this policy: {figures} Label more examples of the traffic, and fit anew."
    return Recommendation("label", text)


def _by_standing(
    standing: _Standing, kept: str, policy: Policy, outcomes: Outcomes
) -> Recommendation:
    single = _single(policy, outcomes)
    if standing.is_shown:
        detail = _gains_in_intervals(standing)
        if single is None:
            text = f"Deploy this policy: {_gains(standing)}."
            return Recommendation("deploy", text, detail=detail)
        text = f"{_keep(single, kept)} alone: {_gains(standing)}."
        return Recommendation("keep", text, single, detail=detail)
    if standing.gain_interval[1] < 0:
        text = f"Keep {kept} alone: the policy does worse on this log."
        return Recommendation("keep", text, kept, detail=_worth(standing))
    if single is not None:
        text = f"{_keep(single, kept)} alone: on this log no check is worth its price."
        return Recommendation("keep", text, single)
    return _not_shown(standing, kept)


def _not_shown(standing: _Standing, kept: str) -> Recommendation:
    """Recommend labels if a moderate number would show a gain; otherwise keep the single model."""
    needed, n, detail = standing.needed, standing.n, _worth(standing)
    what = "that the policy gains anything"
    if standing.allowed is not None and standing.saving is not None and standing.saving.cost < 1:
        lost, most = standing.loss, standing.loss_interval[1]
        what = f"that no more than {standing.allowed:.3f} of quality is lost, the loss allowed"
        what += f" (lost here: {format_signed(lost)}, and at most {most:.3f})"
        detail = _gains_in_intervals(standing)
    if needed is None or needed > _HOPELESS * n:
        text = f"Keep {kept} alone: this log does not show {what}."
        return Recommendation("keep", text, kept, detail=detail)
    more = _rounded(max(needed - n, FEW))
    text = f"Label about {more:,} more examples, and keep {kept} until then: {n:,} do not show"
    return Recommendation("label", f"{text} {what}.", kept, more, detail)


def _single(policy: Policy, outcomes: Outcomes) -> str | None:
    """Return the one model that a policy gives every query to, unchecked, if there is one."""
    [first, *more] = policy.plans
    if more or first.tables:
        return None
    model = first.opening.model
    is_stable = bool(((outcomes.model == model) & (outcomes.asked == 1)).all())
    return policy.models[model] if is_stable else None


def _keep(single: str, kept: str) -> str:
    return f"Keep {single}" if single == kept else f"Use {single}"


def _gains(standing: _Standing) -> str:
    """Describe the saving, and the most that is lost, compared with the best single model."""
    high = standing.loss_interval[1]
    lost = f"loses at most {high:.3f} of quality"
    if high < 0:
        lost = f"gains at least {-high:.3f} of quality"
    elif high < _SAME:
        lost = "loses no quality"
    if standing.saving is None:
        return f"it {lost}"
    saved, against = 1 - standing.saving.cost, standing.saving.against
    if abs(saved) < _SAME_COST:
        return f"it costs as much as always {against} and {lost}"
    share = format_percent(abs(saved))
    if saved < 0:
        return f"it costs {share} more than always {against} and {lost}"
    return f"it saves {share} of the cost of always {against} and {lost}"


def _gains_in_intervals(standing: _Standing) -> str:
    low, high = standing.loss_interval
    lost = f"of the quality lost, {low:+.3f} to {high:+.3f}"
    if standing.saving is None:
        return f"95 % interval {lost}."
    start, end = (100 * (1 - share) for share in reversed(standing.saving.cost_interval))
    return f"95 % intervals: of the cost saved, {start:.0f} to {end:.0f} %; {lost}."


def _worth(standing: _Standing) -> str:
    what, against = "utility", "the best model alone"
    if standing.bound is not None:
        what, against = "quality", "mixing single models at random at the same cost"
    gain = format_signed(standing.gain)
    return f"The policy's {what} against {against}: {gain} ({_ends(standing.gain_interval)})."


def _ends(interval: Interval) -> str:
    return f"95 % interval {format_signed_range(interval)}"


def _rounded(number: int) -> int:
    """Round up to two digits, since no log determines such a number more exactly."""
    step: int = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // step) * step
