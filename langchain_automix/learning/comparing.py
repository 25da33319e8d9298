"""One policy against another on the same traffic: what a change gains, and what is shown of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from langchain_automix.learning.estimation import doubly_robust, log_capital, lower_bound
from langchain_automix.learning.observations import Observations
from langchain_automix.policy.data.arrays import Floats, Mask
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.candidates import always
from langchain_automix.policy.replay import Outcomes, Trajectories, replay_plan, replay_policy

_FEWEST = 20
"""Queries below which nothing is compared."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one policy gains on another, per query, on traffic that neither was fitted to."""

    queries: int
    """Queries compared."""

    seen: int
    """Of them, those on which both outcomes are known."""

    gain: float
    """Estimated difference of what is compared: utility, or quality above what may be lost."""

    bound: float
    """What the difference is at least, with the confidence asked for; -infinity: not shown."""

    saving: float
    """Estimated difference of the costs; above 0 where the policy is cheaper."""

    is_shown: bool
    """Whether the policy is shown to be better in the sense of the goal."""

    needed: float
    """About how many queries it takes in all to show that, if they go on like this."""

    def to_record(self) -> Mapping[str, Any]:
        """Return it ready for JSON."""
        return {k: v if np.isfinite(v) else None for k, v in asdict(self).items()}


class Contest:
    """Compares policies on one stretch of traffic.

    Args:
        observed: The traffic. Queries that had no chance of a shadow are left out: what they
            were asked depends on what was found.
        cost_range: The most that a query can cost; a difference beyond it counts as that.
    """

    def __init__(self, observed: Observations, cost_range: float) -> None:
        self.observed = observed.rows(observed.share > 0)
        self.cost_range = cost_range or 1.0  # where nothing costs anything, nothing is saved
        self._outcomes: dict[int, Outcomes] = {}
        self._held: list[Policy] = []  # keeps the ids above from being reused

    def gains_utility(
        self, policy: Policy, other: Policy | None, cost_weight: float, alpha: float
    ) -> Comparison:
        """Return whether a policy has more utility than another; None: the largest model alone."""
        worst = 1 + cost_weight * self.cost_range
        one, two = self._replay(policy), self._replay(other)
        difference = one.utility(cost_weight) - two.utility(cost_weight)
        terms, lowest = self._terms(difference, one, two, worst)
        saving, _ = self._saved(one, two)
        return self._judge(terms, 0.0, lowest, alpha, saving=float(_mean(saving)))

    def loses_little(
        self, policy: Policy, other: Policy | None, max_loss: float, alpha: float
    ) -> Comparison:
        """Return whether a policy costs less than another, at little loss to the largest model.

        Each of the two is shown with half of alpha. The quality is compared with the largest
        model's and not with the other policy's, so that small losses never add up.
        """
        one, two, largest = self._replay(policy), self._replay(other), self._replay(None)
        terms, lowest = self._terms(one.quality - largest.quality, one, largest, 1.0)
        saved, least = self._saved(one, two)
        found = self._judge(terms, -max_loss, lowest, alpha / 2, saving=float(_mean(saved)))
        cheaper = log_capital(saved, 0.0, least) >= math.log(2 / alpha)
        return found if cheaper else _not_shown(found)

    def loses_utility(
        self, policy: Policy, other: Policy | None, cost_weight: float, alpha: float
    ) -> Comparison:
        """Return whether a policy has less utility than another; the gain is what is lost."""
        worst = 1 + cost_weight * self.cost_range
        one, two = self._replay(policy), self._replay(other)
        difference = two.utility(cost_weight) - one.utility(cost_weight)
        terms, lowest = self._terms(difference, one, two, worst)
        return self._judge(terms, 0.0, lowest, alpha, saving=0.0)

    def loses_quality(self, policy: Policy, max_loss: float, alpha: float) -> Comparison:
        """Return whether a policy loses more than it may against the largest model."""
        one, largest = self._replay(policy), self._replay(None)
        terms, lowest = self._terms(largest.quality - one.quality, one, largest, 1.0)
        return self._judge(terms, max_loss, lowest, alpha, saving=0.0)

    def _replay(self, policy: Policy | None) -> Outcomes:
        key = id(policy)
        if key not in self._outcomes:
            columns, ids = self.observed.filled, self.observed.ids
            if policy is None:
                largest = always(columns.models, len(columns.models) - 1)
                self._outcomes[key] = replay_plan(largest, columns)
            else:
                self._held.append(policy)
                self._outcomes[key] = replay_policy(policy, columns, ids)
        return self._outcomes[key]

    def _saved(self, one: Outcomes, two: Outcomes) -> tuple[Floats, Floats]:
        return self._terms(two.cost - one.cost, one, two, self.cost_range)

    def _terms(
        self, difference: Floats, one: Outcomes, two: Outcomes, largest: float
    ) -> tuple[Floats, Floats]:
        """Return the doubly robust terms of a difference, and the least that each can be."""
        observed = self.observed
        # What only a shadow found is seen by the chance of one, also where it makes no difference.
        alike = _went_alike(one, two) & _is_found(one, observed.own)
        clipped = np.where(alike, 0.0, np.clip(difference, -largest, largest))
        chance = np.where(alike, 1.0, observed.chance)
        terms = doubly_robust(clipped, alike | observed.complete, chance, -largest)
        return terms, -largest / observed.shadowed

    def _judge(
        self, terms: Floats, target: float, lowest: Floats, alpha: float, *, saving: float
    ) -> Comparison:
        n, seen = len(terms), int(self.observed.complete.sum())
        mean = _mean(terms)
        spread = float(terms.std()) if n else 0.0
        margin = math.sqrt(2 * math.log(1 / alpha)) * spread / max(mean - target, 1e-12)
        enough = n >= _FEWEST
        shown = enough and log_capital(terms, target, lowest) >= math.log(1 / alpha)
        return Comparison(
            queries=n,
            seen=seen,
            gain=mean - target,
            bound=lower_bound(terms, lowest, alpha) - target if enough else -math.inf,
            saving=saving,
            is_shown=shown,
            needed=1.3 * margin**2 if mean > target else math.inf,
        )


def _went_alike(one: Outcomes, two: Outcomes) -> Mask:
    """(n,): whether both policies asked and drew the same and kept the same answer."""
    paths, others = one.paths, two.paths
    if paths is None or others is None:
        return np.zeros(len(one.model), dtype=np.bool_)
    alike: Mask = np.logical_and.reduce([one.model == two.model, *_same_steps(paths, others)])
    return alike


def _same_steps(one: Trajectories, two: Trajectories) -> list[Mask]:
    pairs = (one.asked, two.asked), (one.checked, two.checked), (one.drawn, two.drawn)
    return [(a == b).all(axis=1) for a, b in pairs]


def _is_found(path: Outcomes, own: Mask | None) -> Mask | np.bool_:
    """(n,): whether the query itself asked all that a path asks, but for the largest model."""
    if own is None or path.paths is None:
        return np.True_
    found: Mask = np.logical_and.reduce((own | ~path.paths.asked)[:, :-1], axis=1)
    return found


def _mean(terms: Floats) -> float:
    return float(terms.mean()) if len(terms) else 0.0


def _not_shown(found: Comparison) -> Comparison:
    return Comparison(**{**asdict(found), "is_shown": False})
