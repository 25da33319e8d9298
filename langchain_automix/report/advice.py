"""Estimate what would help most: a better verifier, more examples, another model; no promises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from langchain_automix.evaluation.recommendation import FEW
from langchain_automix.policy.bounds import check_prices, oracle, perfect_check_utility
from langchain_automix.policy.data.arrays import Floats, LogArrays
from langchain_automix.policy.fitting.cross_fitting import CrossFit
from langchain_automix.policy.replay import Outcomes, Trajectories
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
"""Number of queries above which one split into halves is as good as several."""

_NEGLIGIBLE = 5e-4
"""A smaller gain in utility would be printed as 0.000, and counts as none."""


@dataclass(frozen=True)
class PolicyOnLog:
    """The basis of the advice: a policy and its performance on a log."""

    data: LogArrays
    utility: Floats
    """(n,): utility of each query, in the way the policy is judged."""

    paths: Trajectories
    cost_weight: float
    cost: float
    """Mean cost of the policy."""

    abstain_value: float | None
    currency: str | None
    labels: Labels

    def describe_gain(self, gain: float) -> str:
        """Describe what a gain in utility is worth."""
        worth = describe_gain(gain, self.cost_weight, self.cost, self.currency)
        return f"{format_signed(gain)} of utility, {worth}"


def build_advice(current: PolicyOnLog, cross_fit: CrossFit | None) -> tuple[Advice, ...]:
    """Build the advice, the largest gain first.

    Args:
        current: The policy on the log.
        cross_fit: The log in folds; None if it is too small for that.
    """
    advice = [_advise_verifier(current)]
    if cross_fit is not None:
        advice += [_advise_examples(current, cross_fit), _advise_model(current, cross_fit)]
    return tuple(sorted(advice, key=lambda each: -(each.gain or 0.0)))


def _advise_verifier(current: PolicyOnLog) -> Advice:
    """Advise on a better verifier.

    The gain is the best mean utility with a check that is never wrong, at the present price, minus
    the present utility. Its rule is chosen on these very queries, so it is an upper bound.
    """
    data, weight, unanswered = current.data, current.cost_weight, current.abstain_value
    now = float(current.utility.mean())
    prices = check_prices(data, current.paths)
    priced = perfect_check_utility(data, weight, prices, unanswered) - now
    free = perfect_check_utility(data, weight, np.zeros(len(data.models)), unanswered) - now
    ceiling = float(oracle(data, weight, unanswered).mean()) - now
    if ceiling < _NEGLIGIBLE:
        text = (
            "None is needed: not even a router that knew all answers beforehand would gain "
            "anything among these models."
        )
        return Advice("A better verifier", 0.0, text)
    is_checked = not bool(np.isnan(prices).all())
    gain = max(priced if is_checked else free, 0.0)
    text = (
        f"{_describe_perfect_check(current, gain, max(free, 0.0), is_checked=is_checked)} Any real "
        "verifier gains a part of that. A router that knew all answers beforehand would gain "
        f"{format_signed(ceiling)}: more is not to be had by routing among these models."
    )
    return Advice("A better verifier", gain, text)


def _describe_perfect_check(
    current: PolicyOnLog, gain: float, free_gain: float, *, is_checked: bool
) -> str:
    """Describe the gain of a check that is never wrong, at its present price and for free."""
    if not is_checked:
        return (
            "No answer in this log was checked. A check that is never wrong and costs nothing "
            f"would gain at most {current.describe_gain(gain)}."
        )
    if gain < _NEGLIGIBLE:
        return (
            "Not even a check that is never wrong would pay at the present price; if it cost "
            f"nothing, it would gain at most {format_signed(free_gain)} of utility."
        )
    return (
        "A check that is never wrong, at the present price, would gain at most "
        f"{current.describe_gain(gain)}; if it cost nothing, at most {format_signed(free_gain)}."
    )


def _advise_examples(current: PolicyOnLog, cross_fit: CrossFit) -> Advice:
    """Advise on more examples, by the learning curve.

    Policies are fitted for the cost weight to four fifths of the log, and to random halves of
    these. Each query is judged by fits that have not seen it. As learning curves flatten, twice as
    many examples gain at most what the last doubling gained. The interval is for the mean over
    queries, and ignores that queries of one fold share their fit.
    """
    n, weight = len(current.data), current.cost_weight
    if n < FEW:
        text = (
            f"{pluralize(n, 'query', 'queries')} are too few to measure what more would gain; no "
            "figure here can be relied on before there are more."
        )
        return Advice("More examples", None, text)
    repeats = 1 if n > _MANY else 3
    gained = cross_fit.at(weight).utility(weight) - cross_fit.with_half(weight, repeats)
    mean, interval = float(gained.mean()), mean_interval(gained)
    gain = max(mean, 0.0)
    used = len(cross_fit.folds[0].train)
    text = (
        f"Fitted to {used} queries of this log instead of {used // 2}, a policy's utility on "
        f"others changes by {format_signed(mean)} (about: {format_interval(interval)})."
    )
    if gain < _NEGLIGIBLE:
        gain = 0.0
        text += " More examples are not expected to make the policy better."
    elif interval[0] <= 0:
        text += (
            f" So twice as many examples would gain at most about {format_signed(gain)}, and that "
            "is not shown to be more than nothing."
        )
    else:
        text += (
            " Learning curves flatten, so twice as many examples would gain at most about "
            f"{current.describe_gain(gain)}."
        )
    return Advice("More examples", gain, f"{text} More examples also make every figure here surer.")


def _advise_model(current: PolicyOnLog, cross_fit: CrossFit) -> Advice:
    """Advise on another model.

    The gain is what a cross-fitted policy would gain if the largest model's answers were all right,
    at its present price; no other model of that price can do more. A model is worth what a
    cross-fitted policy loses without it, which is nothing if no fold ever asks it.
    """
    data, weight = current.data, current.cost_weight
    largest = data.models[-1]
    if current.labels.kind == "agreement":
        text = (
            f"Not to be seen in this log: the answers of {largest} were taken for right. Grade "
            "answers against accepted ones, at least on some queries, to learn whether another "
            "model would help."
        )
        return Advice("Another model", None, text)
    outcomes = cross_fit.at(weight)
    utility = outcomes.utility(weight)
    perfect = cross_fit.with_data(_with_perfect_last, weight)
    gain = max(float((perfect - utility).mean()), 0.0)
    hopeless = float((data.quality.max(axis=1) < _HALF).mean())
    gained = f"at most {current.describe_gain(gain)}."
    if gain < _NEGLIGIBLE:
        gained = "nothing: at this cost weight it is worth no more than what is there."
    text = (
        f"{format_percent(hopeless)} of the queries are hopeless: no model answers them well. A "
        f"model that is always right, at the price of {largest}, would gain {gained}"
    )
    text += "".join(f" {sentence}" for sentence in _describe_present(cross_fit, outcomes, weight))
    return Advice("Another model", gain, text)


def _describe_present(cross_fit: CrossFit, outcomes: Outcomes, weight: float) -> Iterator[str]:
    """Describe what each model of the log is worth, and which are never asked."""
    assert outcomes.paths is not None  # noqa: S101
    models = cross_fit.data.models
    is_used: list[bool] = np.asarray(outcomes.paths.asked.any(axis=0)).tolist()
    utility = outcomes.utility(weight)
    losses = [
        f"without {name} {_describe_loss(cross_fit, j, utility, weight)}"
        for j, name in enumerate(models)
        if is_used[j] and sum(is_used) > 1
    ]
    if losses:
        yield f"Of the present ones, {'; '.join(losses)}."
    if idle := [name for name, used in zip(models, is_used, strict=True) if not used]:
        yield f"Never asked at this cost weight: {', '.join(idle)}."


def _with_perfect_last(data: LogArrays) -> LogArrays:
    quality = data.quality.copy()
    quality[:, -1] = 1.0
    return replace(data, quality=quality)


def _describe_loss(cross_fit: CrossFit, model: int, utility: Floats, weight: float) -> str:
    data = cross_fit.data
    kept = [j for j in range(len(data.models)) if j != model]
    if len(kept) == 1:
        without = data.quality[:, kept[0]] - weight * data.cost[:, kept[0]]
    else:
        without = cross_fit.with_data(lambda some: some.only(kept), weight)
    loss = utility - without
    mean, interval = float(loss.mean()), mean_interval(loss)
    if mean < _NEGLIGIBLE:
        return f"nothing would be lost ({format_interval(interval)})"
    return f"{format_signed(mean)[1:]} of utility would be lost ({format_interval(interval)})"
