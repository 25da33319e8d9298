"""Guarantee a bound on the probability that an answer is given and is wrong.

This is Learn then Test (Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then Test: Calibrating
Predictive Algorithms to Achieve Risk Control", 2021, section 3.2, fixed sequence testing). The
policies are fitted to one half of the log and ordered from the safest on. On the other half, each
is tested against the hypothesis that its risk exceeds the limit, until a test fails to reject. The
last policy that passed has at most the given risk, with the given confidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from langchain_automix.errors import AutoMixError, OutOfReachError
from langchain_automix.policy.data.arrays import Floats, LogArrays
from langchain_automix.policy.decision.interpreter import Rule
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.fitting.candidates import CandidateFitter
from langchain_automix.policy.fitting.selection import select_candidate
from langchain_automix.policy.replay import replay_plan

_STEPS = 13
_LEAST = 20


@dataclass(frozen=True)
class CertifiedPlan:
    """A policy whose risk is bounded."""

    plan: Plan
    cost_weight: float
    notes: tuple[str, ...]


def certify(
    learner: CandidateFitter,
    cost_weight: float,
    max_risk: float,
    confidence: float,
    abstain_value: float | None,
) -> CertifiedPlan:
    """Return the policy with the best utility whose risk is certified.

    The risk of a policy is the sum of 1 - quality over the queries that it answers, with whichever
    model, divided by the number of all queries; an abstention has no risk. If abstaining is
    allowed, the sequence runs from always abstaining to abstaining at the given value. Otherwise it
    runs from a cost weight of 0, where only quality counts, to the given one.

    Args:
        learner: The log.
        cost_weight: Largest cost weight, in quality per unit of cost.
        max_risk: The limit, in (0, 1).
        confidence: Required confidence, in (0, 1).
        abstain_value: Utility of giving no answer. None: an answer is always given.

    Raises:
        AutoMixError: The log is too small, or not even the safest policy passes; the message gives
            the lowest limit that the log supports.
    """
    n = learner.labels
    if n < _LEAST:
        raise AutoMixError(f"max_risk needs a log of at least {_LEAST} complete queries, not {n}.")
    order = np.random.default_rng(learner.seed).permutation(n)
    fitting = CandidateFitter(learner.columns.rows(order[: n // 2]), seed=learner.seed)
    testing = learner.columns.rows(order[n // 2 :])
    passed: CertifiedPlan | None = None
    least = 1.0
    for weight, worth in _sequence(cost_weight, abstain_value):
        fitted, _ = select_candidate(fitting.candidates(weight, worth))
        risk, limit = _bounded(fitted.rule, testing, 1 - confidence)
        least = min(least, limit)
        if limit > max_risk:
            break
        note = (
            f"On {len(testing)} queries that it was not fitted to, the policy gave a wrong answer "
            f"to {risk:.1%}; with confidence {confidence:g} the chance is at most "
            f"{limit:.1%}, within max_risk={max_risk:g}."
        )
        passed = CertifiedPlan(fitted.plan, weight, (note,))
    if passed is None:
        hint = "" if abstain_value is not None else " Allowing to abstain (abstain_value) helps."
        raise OutOfReachError(
            f"max_risk={max_risk:g} cannot be certified: with confidence {confidence:g} the "
            f"least risk that this log supports is {least:.4f}.{hint}",
            nearest=least,
        )
    return passed


def _sequence(cost_weight: float, abstain_value: float | None) -> list[tuple[float, float | None]]:
    steps = np.linspace(0, 1, _STEPS).tolist()
    if abstain_value is None:
        return [(cost_weight * step, None) for step in steps]
    high = max(1.0, abstain_value)
    return [(cost_weight, high + (abstain_value - high) * step) for step in steps]


def _bounded(plan: Rule, columns: LogArrays, delta: float) -> tuple[float, float]:
    """Return the observed risk and its upper confidence limit."""
    outcomes = replay_plan(plan, columns)
    loss = np.where(outcomes.model < 0, 0.0, 1 - outcomes.quality)
    return float(loss.mean()), upper_limit(float(loss.mean()), len(loss), delta)


def upper_limit(mean: float, n: int, delta: float) -> float:
    """Return the largest risk that a mean loss of n queries in [0, 1] does not reject.

    It uses the Hoeffding-Bentkus p-value (Bates et al., "Distribution-Free, Risk-Controlling
    Prediction Sets", 2021, section 3.1): min(exp(-n KL(mean, risk)), e P(Bin(n, risk) <= n mean)).
    """
    low, high = mean, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _p_value(mean, middle, n) > delta:
            low = middle
        else:
            high = middle
    return high


def _p_value(mean: float, risk: float, n: int) -> float:
    if mean >= risk:
        return 1.0
    if risk >= 1:
        return 0.0
    divergence = (1 - mean) * math.log((1 - mean) / (1 - risk))
    if mean > 0:
        divergence += mean * math.log(mean / risk)
    return min(math.exp(-n * divergence), math.e * _binomial_below(math.ceil(n * mean), n, risk))


def _binomial_below(k: int, n: int, chance: float) -> float:
    """Return P(Bin(n, chance) <= k)."""
    places = np.arange(k + 1)
    logs = _log_choose(n)[: k + 1] + places * math.log(chance) + (n - places) * math.log1p(-chance)
    top = float(logs.max())
    return min(1.0, math.exp(top) * float(np.exp(logs - top).sum()))


@lru_cache(maxsize=16)
def _log_choose(n: int) -> Floats:
    """Return (n + 1,): the logarithms of the binomial coefficients of n."""
    factorials = np.array([math.lgamma(i + 1) for i in range(n + 1)])
    logs: Floats = factorials[-1] - factorials - factorials[::-1]
    logs.setflags(write=False)
    return logs
