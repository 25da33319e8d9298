"""Build the POMDPs that explain a routing log: the families that a fit chooses from.

A *pair* has two models and the check of the first. Its particles are groups of logged queries that
no check can distinguish: those with the same verdict counts, or in the same bin of the score. Their
benefit is smoothed, and in the monotone family it also falls with confidence. A *chain* has all
models and all checks; its particles are the logged queries themselves.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np

from langchain_automix.policy.data.arrays import Floats, Ints, LogArrays, Mask
from langchain_automix.policy.decision.score_prior import ScorePrior
from langchain_automix.policy.pomdp.combined_observations import combine
from langchain_automix.policy.pomdp.groups import Groups, grouped
from langchain_automix.policy.pomdp.model import RoutingPOMDP
from langchain_automix.policy.pomdp.observation_model import (
    BATCHES,
    ObservationModel,
    score_observation_model,
    verdict_observation_model,
)
from langchain_automix.policy.pomdp.score_curves import fit_score_curves
from langchain_automix.policy.pomdp.smooth_curves import smooth_curves
from langchain_automix.policy.statistics import PRIOR_SLOPE, isotonic

Shape = Literal["monotone", "free"]

PAIR_BINS = 24
FEWEST_IN_BIN = 4
LEAST_NOISE = 1e-4


_EVEN = 300
"""Number of labels at which the fit to them counts as much as the prior that they updated."""

_FEWEST_LABELS = 20
"""Number of labels below which only the prior that they updated counts."""


def share_of_labels(labels: int) -> float:
    """Return the weight of the fit to the labels alone, beside the prior that they updated."""
    return labels / (labels + _EVEN) if labels >= _FEWEST_LABELS else 0.0


class CheckedAnswers:
    """The answers of one model with one of their checks, and its POMDPs with any later model.

    Args:
        columns: Queries on which the model's answers were checked. A query of unknown quality only
            shows how the findings of the check are distributed.
        model: Index of the model.
        check: Name of the check; None for the first.
        max_verdicts: Maximum number of verdicts that a policy may draw on one answer; not used for
            scores.
        prior: Assumptions about a score before any label, for the monotone shape; None for none.
    """

    def __init__(
        self,
        columns: LogArrays,
        model: int,
        check: str | None,
        max_verdicts: int,
        prior: ScorePrior | None = None,
    ) -> None:
        self.columns, self.model, self.check = columns.alone(check), model, check
        self.max_verdicts, self.prior = max_verdicts, prior
        self._read: dict[int, tuple[Groups, ObservationModel]] = {}
        self._labels: dict[tuple[int, int], _Labels] = {}

    def pomdps(
        self, large: int, shapes: tuple[Shape, ...], level: Floats
    ) -> dict[Shape, RoutingPOMDP]:
        """Return the POMDPs with a later model, one for each assumed shape of the benefit.

        Args:
            large: Index of the later model.
            shapes: Assumptions on the benefit as a function of the confidence.
            level: (models,): expected mean quality of each model.
        """
        pair = [self.model, large]
        cost = self.columns.mean(self.columns.cost[:, pair])
        pomdps: dict[Shape, RoutingPOMDP] = {}
        for shape in shapes:
            prior = self.prior if shape == "monotone" else None
            labels = self._labels_with(large, prior)
            quality = labels.expected(shape, prior)
            quality = quality + (level[pair] - labels.all.mean(quality))
            weight = labels.all.count / labels.all.count.sum()
            evidence = (self._grouped(prior)[1], None)
            pomdps[shape] = RoutingPOMDP((pair[0], large), weight, quality, cost, evidence)
        return pomdps

    def level(self, large: int) -> Floats:
        """Return (2,): the expected mean quality of this model and of a later one."""
        return self._labels_with(large, self.prior).level(self.prior)

    def _labels_with(self, large: int, prior: ScorePrior | None) -> _Labels:
        key = (large, self._bins(prior))
        if key not in self._labels:
            quality = self.columns.quality[:, [self.model, large]]
            self._labels[key] = _Labels(self._grouped(prior)[0], quality)
        return self._labels[key]

    def _grouped(self, prior: ScorePrior | None) -> tuple[Groups, ObservationModel]:
        bins = self._bins(prior)
        if bins not in self._read:
            groups = grouped(self.columns, self.model, bins)
            self._read[bins] = groups, self._observation_model(groups)
        return self._read[bins]

    def _bins(self, prior: ScorePrior | None) -> int:
        if not self.columns.is_score(self.model):
            return 0  # verdicts have no bins, so both shapes share the groups
        # Curves with a prior do not need several labels per bin.
        fewest = FEWEST_IN_BIN if prior is None else 1
        return min(PAIR_BINS, max(2, len(self.columns) // fewest))

    def _observation_model(self, groups: Groups) -> ObservationModel:
        if groups.counts is not None:
            at = (groups.counts, groups.count, self.max_verdicts)
            own = binned_verdict_model(self.columns, self.model, *at)
        else:
            assert groups.edges is not None  # noqa: S101  (it is either verdicts or a score)
            price = float(self.columns.mean(self.columns.fixed_cost[:, self.model]))
            own = score_observation_model(np.eye(len(groups.rank)), groups.edges, price)
        return own if self.check is None else combine([(self.check, own)])


class _Labels:
    """The qualities of two models on the queries for which both are known.

    Args:
        groups: All queries.
        quality: (n, 2): qualities of both models, NaN if unknown.
    """

    def __init__(self, groups: Groups, quality: Floats) -> None:
        known: Mask = np.logical_not(np.isnan(quality).any(axis=1))
        self.all, self.groups = groups, groups.only(known)
        self.quality = quality if known.all() else quality[known]
        self._believed: Floats | None = None

    def expected(self, shape: Shape, prior: ScorePrior | None) -> Floats:
        """Return (groups, 2): the expected quality of both models, up to its level."""
        share = 1.0 if prior is None else share_of_labels(len(self.quality))
        curves = np.zeros((2, len(self.all.rank)))
        if share:
            curves = share * self._smoothed
        if prior is not None:
            low, high = self._beliefs(prior).T
            curves = curves + (1 - share) * np.stack([low, high - low])
        base, gain = curves
        if shape == "monotone":
            at = (self.all.count, self.all.rank, self.all.invalid_share)
            base, gain = _monotone(base, *at), -_monotone(-gain, *at)
        return np.stack([base, base + gain], axis=1)

    def level(self, prior: ScorePrior | None) -> Floats:
        """Return (2,): the expected mean quality of each model."""
        share = 1.0 if prior is None else share_of_labels(len(self.quality))
        level: Floats = np.zeros(2)
        if share:
            level = share * (self.groups.weight @ self.quality) / self.groups.weight.sum()
        if prior is not None:
            level = level + (1 - share) * self.all.mean(self._beliefs(prior))
        return level

    @cached_property
    def _smoothed(self) -> Floats:
        """(2, groups): quality of the small model and benefit, smoothed over the labels."""
        low, groups = self.quality[:, 0], self.groups
        curves = np.stack([low, self.quality[:, 1] - low])
        means = np.stack([groups.sums(values) for values in curves])
        means /= np.maximum(groups.count, 1e-300)
        freedom = curves.shape[1] - int((np.bincount(groups.member) > 0).sum())
        noise = curves.var(axis=1)
        if freedom > 2:  # noqa: PLR2004
            noise = (curves - means[:, groups.member]) ** 2 @ groups.weight / freedom
        return smooth_curves(
            groups.rank,
            groups.count,
            means,
            noise=np.maximum(noise, LEAST_NOISE),
            slope=np.array([PRIOR_SLOPE, -PRIOR_SLOPE]),
            invalid_share=groups.invalid_share,
        )

    def _beliefs(self, prior: ScorePrior) -> Floats:
        """Return (groups, 2): the qualities expected by the prior that the labels updated."""
        if self._believed is None:
            right = np.stack([self.groups.sums(values) for values in self.quality.T], axis=1)
            curves = fit_score_curves(prior, self.all.log_odds, self.groups.count, right)
            self._believed = curves.expected(self.all.log_odds)
        return self._believed


def binned_verdict_model(
    columns: LogArrays,
    model: int,
    counts: Ints,
    weight: Floats,
    max_verdicts: int,
    *,
    coarse: bool = False,
) -> ObservationModel:
    """Build the observation model of one model's verdicts, with their mean prices in the log."""
    fixed = float(columns.mean(columns.fixed_cost[:, model]))
    each = float(columns.mean(columns.sample_cost[:, model]))
    return verdict_observation_model(
        counts,
        weight,
        max_verdicts=max_verdicts,
        prices=(fixed, each),
        batches=BATCHES,
        coarse=coarse,
    )


def _monotone(curve: Floats, count: Floats, rank: Floats, invalid_share: Floats) -> Floats:
    """Make a curve rise with the rank, separately for each share of invalid verdicts."""
    risen = curve.copy()
    for level in np.unique(invalid_share):
        there = np.flatnonzero(invalid_share == level)
        ordered = there[np.argsort(rank[there], kind="stable")]
        risen[ordered] = isotonic(curve[ordered], count[ordered])
    return risen
