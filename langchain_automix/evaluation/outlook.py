"""What to expect of a policy on queries that it has not seen, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from langchain_automix.errors import OutOfReachError
from langchain_automix.evaluation.cost_at_quality import cross_fit
from langchain_automix.evaluation.headline import Headline, build_headline
from langchain_automix.evaluation.plain_rules import QualityAndCost, cross_fitted_rule
from langchain_automix.evaluation.recommendation import FEW, Recommendation, bound_of, recommend
from langchain_automix.policy.data.arrays import LogArrays, to_arrays
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.cross_fitting import CrossFit
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.replay import Outcomes


@dataclass(frozen=True)
class Outlook:
    """The headline of a policy, with the matching recommendation."""

    headline: Headline | None
    """None if the best single model has no quality or no cost."""

    recommendation: Recommendation

    def lines(self) -> Iterator[str]:
        """Yield the recommendation, then the headline, as sentences."""
        yield str(self.recommendation)
        if self.headline is not None:
            yield self.headline.describe()


def outlook_of(
    policy: Policy, outcomes: Outcomes, data: LogArrays, cost_weight: float, seed: int = 0
) -> Outlook:
    """Return the outlook, given the outcomes of queries that the policy was not fitted to.

    Args:
        policy: The policy that decided.
        outcomes: The outcome of each query.
        data: The queries, all complete.
        cost_weight: How much quality one unit of cost is worth.
        seed: Seed for halves and resampling.
    """
    headline = build_headline(outcomes, data, policy, seed)
    threshold = _threshold(policy, data, cost_weight, seed)
    found = recommend(policy, outcomes, data, cost_weight, headline, threshold)
    return Outlook(headline, found)


def _threshold(
    policy: Policy, data: LogArrays, cost_weight: float, seed: int
) -> QualityAndCost | None:
    """Return the outcome of one threshold fitted for the same goal, or None if there is none."""
    if {"max_risk", "abstain_value"} & set(policy.goal):
        return None
    if any(plan.name.startswith("threshold") for plan in policy.plans) or len(data) < FEW:
        return None
    bound = bound_of(policy)
    goal = Goal(**{bound: policy.goal[bound]}) if bound else Goal(cost_weight=cost_weight)
    try:
        return cross_fitted_rule(data, goal, "threshold", seed)
    except OutOfReachError:
        return None


def cross_fitted_outlook(
    policy: Policy, folds: CrossFit, cost_weight: float, seed: int = 0
) -> Outlook:
    """Return the outlook of a policy on the log that it was fitted to.

    For each fold, a policy is fitted to the other folds for the same goal, and judged on the fold.
    """
    outcomes, _ = folds.like(policy)
    return outlook_of(policy, outcomes, folds.data, cost_weight, seed)


def expect(policy: Policy, log: RoutingLog, *, seed: int = 0) -> Outlook | None:
    """Return what to expect of a policy on new queries that resemble those of its log.

    Args:
        policy: The policy.
        log: The log that it was fitted to.
        seed: Seed for folds and resampling.

    Returns:
        The outlook; None if fewer than two queries are complete, so that none can be held out.
    """
    arrays = to_arrays(log)
    rows = np.flatnonzero(arrays.complete).tolist()
    if len(rows) < 2:  # noqa: PLR2004
        return None
    ids = [log.store.ids[row] for row in rows]
    folds = cross_fit(arrays.rows(np.array(rows)), ids, policy.cost_weight, seed)
    return cross_fitted_outlook(policy, folds, policy.cost_weight, seed)
