"""What would help most: a better verifier, more examples, another model; never a promise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from langchain_automix.evaluation.evaluate import FEW
from langchain_automix.policy.bounds import check_prices, oracle, perfect_check_utility
from langchain_automix.policy.data.arrays import Floats, LogArrays
from langchain_automix.policy.fitting.cross_fitting import CrossFit
from langchain_automix.policy.replay import Trajectories
from langchain_automix.policy.statistics import mean_interval
from langchain_automix.report.contents import Advice, Labels
from langchain_automix.utils.formatting import (
    describe_gain,
    format_interval,
    format_percent,
    format_signed,
    pluralize,
)

_HALF = 0.5
_MANY = 2_000
"""Queries above which one split into halves is as good as several."""

_LEAST = 5e-4
"""A gain in utility that is written as 0.000 is none."""


@dataclass(frozen=True)
class PolicyOnLog:
    """What advice is given on."""

    data: LogArrays
    utility: Floats
    """(n,): of each query, as the policy is judged."""

    paths: Trajectories
    cost_weight: float
    cost: float
    """Mean cost of the policy."""

    abstain_value: float | None
    currency: str | None
    labels: Labels

    @property
    def now(self) -> float:
        """Mean utility of the policy."""
        return float(self.utility.mean())

    def said(self, gain: float) -> str:
        """Return what a gain is worth."""
        return describe_gain(gain, self.cost_weight, self.cost, self.currency)


def build_advice(situation: PolicyOnLog, crossed: CrossFit | None) -> tuple[Advice, ...]:
    """Return what would help, the largest gain first.

    Args:
        situation: The policy on the log.
        crossed: The log in folds; None where it is too small for that.
    """
    found = [_verifier(situation)]
    if crossed is not None:
        found += [_examples(situation, crossed), _model(situation, crossed)]
    return tuple(sorted(found, key=lambda advice: -(advice.gain or 0.0)))


def _verifier(situation: PolicyOnLog) -> Advice:
    """Advise on a better verifier.

    The gain is the best mean utility with a check that is never wrong, at the present price,
    less the utility now. Its rule is chosen on these very queries, so it is an upper bound.
    """
    data, weight, unanswered = situation.data, situation.cost_weight, situation.abstain_value
    prices = check_prices(data, situation.paths)
    nothing = np.zeros(len(data.models))
    priced = perfect_check_utility(data, weight, prices, unanswered) - situation.now
    free = perfect_check_utility(data, weight, nothing, unanswered) - situation.now
    ceiling = float(oracle(data, weight, unanswered).mean()) - situation.now
    checked = not bool(np.isnan(prices).all())
    gain = max(priced if checked else free, 0.0)
    if not checked:
        text = (
            "No answer in this log was checked. A check that is never wrong and costs nothing "
            f"would gain at most {format_signed(max(free, 0.0))} of utility, "
            f"{situation.said(gain)}."
        )
    elif gain < _LEAST:
        text = (
            "Not even a check that is never wrong would pay at the present price; if it cost "
            f"nothing, it would gain at most {format_signed(max(free, 0.0))} of utility."
        )
    else:
        text = (
            "A check that is never wrong, at the present price, would gain at most "
            f"{format_signed(gain)} of utility, {situation.said(gain)}; if it cost nothing, at "
            "most "
            f"{format_signed(max(free, 0.0))}."
        )
    if ceiling < _LEAST:
        text = (
            "None is needed: not even a router that knew all answers beforehand would gain "
            "anything among these models."
        )
        return Advice("A better verifier", 0.0, text)
    text += (
        " Any real verifier gains a part of that. A router that knew all answers beforehand would "
        f"gain {format_signed(max(ceiling, 0.0))}: more is not to be had by routing among these "
        "models."
    )
    return Advice("A better verifier", gain, text)


def _examples(situation: PolicyOnLog, crossed: CrossFit) -> Advice:
    """Advise on more examples, by the learning curve.

    Policies are fitted for the cost weight to four fifths of the log, and to random halves of
    those; each query is judged by fits that have not seen it. As learning curves flatten, twice
    as many examples gain at most what the last doubling gained. The interval is of the mean
    over queries, and does not count that queries of one fold share their fit.
    """
    n, weight = len(situation.data), situation.cost_weight
    if n < FEW:
        text = (
            f"{pluralize(n, 'query', 'queries')} are too few to measure what more would "
            "gain; no "
            "figure here can be relied on before there are more."
        )
        return Advice("More examples", None, text)
    times = 1 if n > _MANY else 3
    gained = crossed.at(weight).utility(weight) - crossed.with_half(weight, times)
    mean, interval = float(gained.mean()), mean_interval(gained)
    gain = max(mean, 0.0)
    used = len(crossed.folds[0].train)
    start = (
        f"Fitted to {used} queries of this log instead of {used // 2}, a policy's utility on "
        f"others changes by {format_signed(mean)} (about: {format_interval(interval)})."
    )
    if gain < _LEAST:
        gain, text = 0.0, " More examples are not expected to make the policy better."
    elif interval[0] <= 0:
        text = (
            f" So twice as many examples would gain at most about {format_signed(gain)}, and "
            "that is not "
            "shown to be more than nothing."
        )
    else:
        text = (
            f" Learning curves flatten, so twice as many examples would gain at most about "
            f"{format_signed(gain)} of utility, {situation.said(gain)}."
        )
    text += " More examples also make every figure here surer."
    return Advice("More examples", gain, start + text)


def _model(situation: PolicyOnLog, crossed: CrossFit) -> Advice:
    """Advise on another model.

    The gain is what a cross-fitted policy gains if the largest model's answers were all right,
    at its present price: no other model of that price can do more. What a model is worth is what
    a cross-fitted policy loses without it; nothing, where no fold ever asks it.
    """
    data, weight = situation.data, situation.cost_weight
    largest = data.models[-1]
    hopeless = float((data.quality.max(axis=1) < _HALF).mean())
    if situation.labels.kind == "agreement":
        text = (
            f"Not to be seen in this log: the answers of {largest} were taken for right. Grade "
            "answers against accepted ones, at least on some queries, to learn whether another "
            "model would help."
        )
        return Advice("Another model", None, text)
    now = crossed.at(weight)
    utility = now.utility(weight)
    better = crossed.with_data(_with_perfect_last, weight)
    gain = max(float((better - utility).mean()), 0.0)
    text = (
        f"{format_percent(hopeless)} of the queries are hopeless: no model answers them well. A "
        "model "
        f"that is always right, at the price of {largest}, would gain "
    )
    text += (
        "nothing: at this cost weight it is worth no more than what is there."
        if gain < _LEAST
        else f"at most {format_signed(gain)} of utility, {situation.said(gain)}."
    )
    assert now.paths is not None  # noqa: S101
    used: list[bool] = np.asarray(now.paths.asked.any(axis=0)).tolist()
    losses = [
        f"without {name} {_loss(crossed, j, utility, weight)}"
        for j, name in enumerate(data.models)
        if used[j] and sum(used) > 1
    ]
    if losses:
        text += f" Of the present ones, {'; '.join(losses)}."
    idle = [name for name, asked in zip(data.models, used, strict=True) if not asked]
    if idle:
        text += f" Never asked at this cost weight: {', '.join(idle)}."
    return Advice("Another model", gain, text)


def _with_perfect_last(data: LogArrays) -> LogArrays:
    quality = data.quality.copy()
    quality[:, -1] = 1.0
    return replace(data, quality=quality)


def _loss(crossed: CrossFit, model: int, utility: Floats, weight: float) -> str:
    kept = [j for j in range(len(crossed.data.models)) if j != model]
    if len(kept) == 1:
        data = crossed.data
        without = data.quality[:, kept[0]] - weight * data.cost[:, kept[0]]
    else:
        without = crossed.with_data(lambda data: data.only(kept), weight)
    loss = utility - without
    mean, interval = float(loss.mean()), mean_interval(loss)
    if mean < _LEAST:
        return f"nothing would be lost ({format_interval(interval)})"
    return f"{format_signed(mean)[1:]} of utility would be lost ({format_interval(interval)})"
