"""The concave hull of cost and quality, and how policies along it perform on unseen queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from langchain_automix.policy.data.arrays import Floats, LogArrays, Mask
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.fitting.candidates import FOLDS, CandidateFitter
from langchain_automix.policy.pomdp.extract_plan import extract_plan
from langchain_automix.policy.pomdp.solved_rule import SolvedRule
from langchain_automix.policy.replay import replay_plan
from langchain_automix.policy.ties import TIE, exceeds


@dataclass(frozen=True)
class FrontierPoint:
    """Mean cost and expected quality of one plan, and the cost weight that it was solved for."""

    cost: float
    quality: float
    rule: Plan | SolvedRule
    weight: float

    @property
    def plan(self) -> Plan:
        """The rule as a plan."""
        return extract_plan(self.rule)


@dataclass(frozen=True)
class Mixture:
    """A place on the frontier: one of its points, or a mixture of two neighbours."""

    first: int
    """Index of the first point; the second is the next one."""

    share: float = 1.0
    """Share of the queries that the first point gets, in (0, 1]."""

    def of(self, values: Sequence[float] | Floats) -> Floats:
        """Return the mean of values that are known for each point, (points, ...)."""
        found = np.asarray(values, dtype=np.float64)
        first: Floats = self.share * found[self.first]
        return first if self.share == 1 else first + (1 - self.share) * found[self.first + 1]

    def share_of(self, points: Sequence[FrontierPoint], plan: Plan) -> float:
        """Return the share of the queries that follow a plan without checks."""
        return float(self.of([float(point.rule == plan) for point in points]))


Hull = Callable[[CandidateFitter], list[FrontierPoint]]
"""Fits the frontier to a log."""


def frontier(points: list[FrontierPoint]) -> list[FrontierPoint]:
    """Return the upper concave hull of (cost, quality), up to the best quality.

    If points are tied in both, the first one is kept.
    """
    hull: list[FrontierPoint] = []
    for point in sorted(points, key=lambda p: p.cost):
        if hull and not exceeds(point.quality, hull[-1].quality):
            continue
        while hull and point.cost <= hull[-1].cost * (1 + TIE):
            hull.pop()
        while len(hull) > 1 and _is_below(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _is_below(left: FrontierPoint, middle: FrontierPoint, right: FrontierPoint) -> bool:
    rise = (middle.quality - left.quality) * (right.cost - left.cost)
    return rise <= (right.quality - left.quality) * (middle.cost - left.cost)


def mean_costs(columns: LogArrays) -> tuple[float, ...]:
    """Return the mean cost of each model's answer."""
    return tuple(columns.mean(columns.cost).tolist())


def place(axis: Sequence[float], target: float) -> Mixture:
    """Return where the frontier has a given cost or quality, or its nearest end.

    Args:
        axis: The costs or qualities of its points, ascending.
        target: The cost or quality to find.
    """
    target = min(max(target, axis[0]), axis[-1])
    index = int(np.searchsorted(axis, target))
    if index == 0 or abs(axis[index] - target) <= TIE * max(abs(axis[index]), abs(target)):
        return Mixture(index)
    return Mixture(index - 1, float((axis[index] - target) / (axis[index] - axis[index - 1])))


@dataclass(frozen=True)
class FoldFrontier:
    """A frontier fitted without a fold, and how its plans perform on the queries of the fold."""

    held_out: Mask
    """(n,): which of the judged queries are in the fold."""

    columns: LogArrays
    """The queries that the frontier was fitted to."""

    level: Floats
    """(models,): expected mean quality of each model."""

    points: list[FrontierPoint]
    quality: Floats
    """(points, queries of the fold)."""

    cost: Floats
    """(points, queries of the fold)."""


@dataclass(frozen=True)
class JudgedFrontier:
    """The frontier of a log, with frontiers fitted in the same way without each fold.

    Everything that depends on the log is repeated without each fold, including the choice among
    families, so that no choice makes the figures too optimistic. Places on the frontiers are
    identified by their cost: level 0 is the cost of the cheapest model alone, level 1 that of the
    dearest.
    """

    learner: CandidateFitter
    hull: Hull
    own_cost: bool = False
    """Whether the cost of a query's own answer scales the price of a larger model."""

    @cached_property
    def points(self) -> list[FrontierPoint]:
        """The frontier of the whole log."""
        return self.hull(self.learner)

    @cached_property
    def data(self) -> LogArrays:
        """The queries that fits are judged on: all, or a sample if there are very many."""
        return self.learner.columns.rows(self.learner.sample)

    @cached_property
    def folds(self) -> list[FoldFrontier]:
        """Five folds, or one per query if there are fewer queries."""
        data, n = self.data, len(self.data)
        number = min(FOLDS, n)
        fold = np.random.default_rng([self.learner.seed, n, 2]).permutation(n) % number
        return [self._without(data, fold == f) for f in range(number)]

    def _without(self, data: LogArrays, held_out: Mask) -> FoldFrontier:
        like = self.learner
        learner = CandidateFitter(
            data.rows(~held_out),
            seed=like.seed,
            shapes=like.shapes,
            chain=like.chain,
            prior=like.prior,
        )
        points = self.hull(learner)
        own = mean_costs(learner.columns) if self.own_cost else None
        outcomes = [replay_plan(point.rule, data.rows(held_out), own) for point in points]
        quality, cost = (
            np.array([getattr(outcome, name) for outcome in outcomes])
            for name in ("quality", "cost")
        )
        return FoldFrontier(held_out, learner.columns, learner.level, points, quality, cost)

    @cached_property
    def _ends(self) -> tuple[int, int]:
        """The cheapest and the dearest model."""
        cost = self.learner.columns.mean(self.learner.columns.cost)
        return int(np.argmin(cost)), int(np.argmax(cost))

    def level(self, cost: float) -> float:
        """Return the level of a mean cost on the whole log."""
        low, high = self._range(self.learner.columns)
        return (cost - low) / (high - low) if high > low else 0.0

    def at(self, level: float) -> Mixture:
        """Return the place of a level on the frontier of the whole log."""
        return self._at(self.learner.columns, self.points, level)

    def fold_at(self, fold: FoldFrontier, level: float) -> Mixture:
        """Return the place of a level on the frontier without a fold."""
        return self._at(fold.columns, fold.points, level)

    def _at(self, columns: LogArrays, points: list[FrontierPoint], level: float) -> Mixture:
        low, high = self._range(columns)
        return place([point.cost for point in points], low + level * (high - low))

    def _range(self, columns: LogArrays) -> tuple[float, float]:
        cost, (low, high) = columns.mean(columns.cost), self._ends
        return float(cost[low]), float(cost[high])

    def cross_fitted(self, where: Callable[[FoldFrontier], Mixture]) -> tuple[Floats, Floats]:
        """Return the quality and the cost of each judged query at a place on its fold's frontier.

        For a mixture of two plans, it is their mean, weighted by their shares.
        """
        quality, cost = np.empty(len(self.data)), np.empty(len(self.data))
        for fold in self.folds:
            mixture = where(fold)
            quality[fold.held_out] = mixture.of(fold.quality)
            cost[fold.held_out] = mixture.of(fold.cost)
        return quality, cost
