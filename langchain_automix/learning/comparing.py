"""One policy against another on the same traffic: what a change gains, and what is shown of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from langchain_automix.learning.estimation import (
    doubly_robust,
    log_capital,
    lower_bound,
    queries_needed,
)
from langchain_automix.learning.observations import Observations
from langchain_automix.policy.data.arrays import Floats, Mask
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.candidates import always
from langchain_automix.policy.fitting.confidence import dearest_query
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

    start: float = math.nan
    """Since when queries are compared, in seconds since 1970."""

    first: float = math.inf
    """When the first query compared ended, likewise; infinity: there is none."""

    cost_range: float = math.nan
    """The most that a query could cost, as it was known at the start; nan: it was not."""

    def to_record(self) -> Mapping[str, Any]:
        """Return it ready for JSON."""
        return {k: v if np.isfinite(v) else None for k, v in asdict(self).items()}


class Contest:
    """Compares policies on one stretch of traffic.

    Args:
        observed: The traffic. Queries that had no chance of a shadow are left out: what they
            were asked depends on what was found.
        cost_range: The most that a query can cost; a difference beyond it counts as that.
        start: Since when the traffic is compared, in seconds since 1970; nan: since ever.
        is_fixed: Whether the range was known at the start.
    """

    def __init__(
        self,
        observed: Observations,
        cost_range: float,
        start: float = math.nan,
        *,
        is_fixed: bool = False,
    ) -> None:
        self.observed = observed.rows(observed.share > 0)
        self.start, self.is_fixed = start, is_fixed
        self.cost_range = cost_range or 1.0  # where nothing costs anything, nothing is saved

    @classmethod
    def since(
        cls, observed: Observations, start: float, earlier: Mapping[str, Any] | None = None
    ) -> Self:
        """Compare on the queries after a time; those before it say what one can cost at most.

        Args:
            observed: The traffic.
            start: The time, in seconds since 1970.
            earlier: The record of an earlier comparison; of the same start, its range holds.
        """
        told = (earlier or {}).get("cost_range")
        if told is not None and (earlier or {}).get("start") == start:
            return cls(observed.since(start), told, start, is_fixed=True)
        before = observed.rows(observed.at <= start)
        known = before if len(before) else observed
        dearest = dearest_query(known.filled)
        return cls(observed.since(start), dearest, start, is_fixed=len(before) > 0)

    def lacks(self, earlier: Mapping[str, Any]) -> bool:
        """Whether queries are missing that an earlier comparison of the same start has counted.

        What goes on without them is another comparison, whose error comes on top.
        """
        first = earlier.get("first")
        return earlier.get("start") == self.start and first is not None and self._first > first

    @property
    def _first(self) -> float:
        return float(self.observed.at.min()) if len(self.observed) else math.inf

    def gains_utility(
        self, policy: Policy | None, other: Policy | None, cost_weight: float, alpha: float
    ) -> Comparison:
        """Return whether a policy has more utility than another; None: the largest model alone."""
        worst = 1 + cost_weight * self.cost_range
        one, two = replay(policy, self.observed), replay(other, self.observed)
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
        one, largest = replay(policy, self.observed), replay(None, self.observed)
        two = largest if other is None else replay(other, self.observed)
        terms, lowest = self._terms(one.quality - largest.quality, one, largest, 1.0)
        saved, least = self._saved(one, two)
        found = self._judge(terms, -max_loss, lowest, alpha / 2, saving=float(_mean(saved)))
        cheaper = log_capital(saved, 0.0, least) >= math.log(2 / alpha)
        needed = max(found.needed, queries_needed(saved, 0.0, least, alpha / 2))
        return replace(found, is_shown=found.is_shown and cheaper, needed=needed)

    def loses_quality(self, policy: Policy, max_loss: float, alpha: float) -> Comparison:
        """Return whether a policy loses more than it may against the largest model."""
        one, largest = replay(policy, self.observed), replay(None, self.observed)
        terms, lowest = self._terms(largest.quality - one.quality, one, largest, 1.0)
        return self._judge(terms, max_loss, lowest, alpha, saving=0.0)

    def _saved(self, one: Outcomes, two: Outcomes) -> tuple[Floats, Floats]:
        return self._terms(two.cost - one.cost, one, two, self.cost_range)

    def _terms(
        self, difference: Floats, one: Outcomes, two: Outcomes, largest: float
    ) -> tuple[Floats, Floats]:
        """Return the doubly robust terms of a difference, and the least that each can be."""
        observed = self.observed
        # What only a shadow found is seen by the chance of one, also where it makes no difference.
        alike: Mask = _went_alike(one, two) & _is_found(one, observed.own)
        clipped = np.where(alike, 0.0, np.clip(difference, -largest, largest))
        chance = np.where(alike, 1.0, observed.chance)
        terms = doubly_robust(clipped, alike | observed.complete, chance, -largest)
        return terms, -largest / observed.shadowed

    def _judge(
        self, terms: Floats, target: float, lowest: Floats, alpha: float, *, saving: float
    ) -> Comparison:
        n, seen = len(terms), int(self.observed.complete.sum())
        mean = _mean(terms)
        enough = n >= _FEWEST
        shown = enough and log_capital(terms, target, lowest) >= math.log(1 / alpha)
        return Comparison(
            queries=n,
            seen=seen,
            gain=mean - target,
            bound=lower_bound(terms, lowest, alpha) - target if enough else -math.inf,
            saving=saving,
            is_shown=shown,
            needed=queries_needed(terms, target, lowest, alpha),
            start=self.start,
            first=self._first,
            cost_range=self.cost_range if self.is_fixed else math.nan,
        )


def replay(policy: Policy | None, observed: Observations) -> Outcomes:
    """Send traffic through a policy, as far as its paths are known; None: the largest model."""
    columns = observed.filled
    if policy is None:
        return replay_plan(always(columns.models, len(columns.models) - 1), columns)
    return replay_policy(policy, columns, observed.ids)


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


def _is_found(path: Outcomes, own: Mask | None) -> Mask:
    """(n,): whether the query itself asked all that a path asks, but for the largest model."""
    if own is None or path.paths is None:
        return np.ones(len(path.model), dtype=np.bool_)
    found: Mask = np.all((own | ~path.paths.asked)[:, :-1], axis=1)
    return found


def _mean(terms: Floats) -> float:
    return float(terms.mean()) if len(terms) else 0.0
