"""Learn from measured questions: which check is best, and the policy of a mix with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.evaluation.compare_verifiers import compare_verifiers
from langchain_automix.evaluation.comparison import ComparedCheck
from langchain_automix.evaluation.router_replay import replay_router
from langchain_automix.local.demo.logs import routing_log
from langchain_automix.local.demo.measuring import Row
from langchain_automix.policy.data.arrays import Floats, to_arrays
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.fitting.baselines import best_single
from langchain_automix.policy.fitting.fit import indifferent_weight
from langchain_automix.policy.statistics import Interval, mean_interval
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.verifiers.base import Verifier

Names = tuple[str, str]


@dataclass(frozen=True)
class Learned:
    """What the fitting questions have shown, at one price of the large model."""

    check: str
    """Name of the best check on these questions, by cross-fitted gain."""

    router: POMDPRouter
    """Fitted to these questions, with that check alone."""

    compared: tuple[ComparedCheck, ...]
    """All checks, cross-fitted on these questions."""

    queries: int

    @property
    def buys_checks(self) -> bool:
        """Whether the policy makes a check at all, rather than giving all queries to one model."""
        return any(plan.tables for plan in self.router.policy.plans)


@dataclass(frozen=True)
class Gain:
    """Mean utility of a mix minus that of the better single model, on queries not fitted on.

    Utility is accuracy minus cost at an exchange rate. If both models alone are worth the same at
    that rate, so is any random mix of them, and the gain is the accuracy gained at equal cost.
    """

    value: float
    interval: Interval
    """95 % interval, from the differences query by query."""

    best: str
    """The better single model on these queries."""

    @classmethod
    def of(cls, quality: Floats, cost: Floats, log: RoutingLog, cost_weight: float) -> Gain:
        """Compare the outcome of a mix on a log, query by query, with the better single model.

        Args:
            quality: (n,) quality of the kept answers.
            cost: (n,) cost of each query.
            log: The same queries.
            cost_weight: How much quality one unit of cost is worth.
        """
        single = best_single(to_arrays(log), cost_weight)
        difference = quality - cost_weight * cost - single.utility
        return cls(float(difference.mean()), mean_interval(difference), single.name)

    @property
    def in_words(self) -> str:
        """Whether the gain is beyond chance."""
        low, high = self.interval
        if low > 0:
            return "yes"
        return "no" if high < 0 else "within chance"


@dataclass(frozen=True)
class Judged:
    """A fitted mix, replayed on queries that it was not fitted on."""

    check: str
    accuracy: float
    cost: float
    """Mean cost of a query as a share of always asking the large model."""

    escalation_rate: float
    """Share of the queries that ask the large model."""

    buys_checks: bool
    gain: Gain
    """The gain at equal cost, that is, at the rate at which both models tie on these queries."""

    gain_at_fitted_rate: Gain
    """The gain at the rate of the fit, at which both models tied on the fitting queries."""


def tying_rate(log: RoutingLog) -> float:
    """Return the cost weight at which both models are worth the same; 0 if there is none."""
    return indifferent_weight(to_arrays(log)) if is_dearer(log) else 0.0


def is_dearer(log: RoutingLog) -> bool:
    """Whether the large model costs more than the small one; otherwise there is no trade-off."""
    costs = to_arrays(log).cost.mean(axis=0)
    return bool(costs[-1] > costs[0])


def learn(
    rows: Sequence[Row],
    names: Names,
    price_ratio: float | None,
    checks: Mapping[str, Verifier],
    seed: int = 0,
) -> Learned:
    """Compare the checks on measured questions, and fit a mix with the best of them.

    Args:
        rows: Questions with all checks.
        names: Names of the small and the large model.
        price_ratio: Price of the large model relative to the small one; None uses measured seconds.
        checks: The checks by name.
        seed: Seed for folds and resampling.
    """
    log = routing_log(rows, names, price_ratio)
    compared = compare_verifiers(log, samples=(_most(rows),), seed=seed).rows
    best = max(compared, key=lambda each: (each.gain, each.auroc or 0.0))
    return Learned(
        check=best.name,
        router=fit(rows, names, price_ratio, best.name, checks[best.name], seed),
        compared=compared,
        queries=len(rows),
    )


def fit(
    rows: Sequence[Row],
    names: Names,
    price_ratio: float | None,
    check: str,
    verifier: Verifier,
    seed: int = 0,
    *,
    kind: type[POMDPRouter] = POMDPRouter,
) -> POMDPRouter:
    """Fit a router to measured questions with one check; for the other arguments see `learn`."""
    log = routing_log(rows, names, price_ratio, check)
    return kind.fit(log, verifier=verifier, seed=seed)


def judge(
    router: POMDPRouter,
    rows: Sequence[Row],
    names: Names,
    price_ratio: float | None,
    check: str,
) -> Judged:
    """Replay a fitted router on other questions, on which its check was made."""
    log = routing_log(rows, names, price_ratio, check)
    outcomes = replay_router(router, log)
    quality = np.array([outcome.quality for outcome in outcomes])
    cost = np.array([outcome.cost for outcome in outcomes])
    plans = router.policy.plans
    return Judged(
        check=check,
        accuracy=float(quality.mean()),
        cost=float(cost.mean() / to_arrays(log).cost[:, -1].mean()),
        escalation_rate=float(np.mean([o.escalated or o.model_index == 1 for o in outcomes])),
        buys_checks=any(plan.tables for plan in plans),
        gain=Gain.of(quality, cost, log, tying_rate(log)),
        gain_at_fitted_rate=Gain.of(quality, cost, log, router.policy.cost_weight),
    )


def _most(rows: Sequence[Row]) -> int:
    drawn = [len(each.found.verdicts) for row in rows for each in row.checks.values()]
    most = max(drawn, default=0)
    if not most and not any(row.checks for row in rows):
        raise AutoMixError("No check was made on any question: there is nothing to learn.")
    return max(most, 1)
