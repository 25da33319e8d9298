"""Group queries that no check can distinguish: same verdicts, or same bin of a score."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from langchain_automix.policy.data.arrays import Floats, Ints, LogArrays, Mask
from langchain_automix.policy.pomdp.score_curves import log_odds
from langchain_automix.policy.statistics import bin_edges, in_bins, ranks


@dataclass(frozen=True)
class Groups:
    """Queries in groups, by what a check of one model's answers found."""

    member: Ints
    """(n,): group of each query."""

    weight: Floats
    """(n,): weight of each query."""

    rank: Floats
    """(groups,): rank of the confidence, in [0, 1]."""

    invalid_share: Floats
    """(groups,): share of invalid verdicts."""

    log_odds: Floats
    """(groups,): log-odds of the mean score, or of the share of accepts."""

    edges: Floats | None = None
    """Boundaries between groups of scores, ascending; None for verdicts."""

    counts: Ints | None = None
    """(groups, 3): accepts, rejects, invalid; None for scores."""

    @cached_property
    def count(self) -> Floats:
        """(groups,): weight of each group."""
        return np.bincount(self.member, self.weight, minlength=len(self.rank))

    def sums(self, values: Floats) -> Floats:
        """Return (groups,): the weighted sums of values over the queries of each group."""
        return np.bincount(self.member, self.weight * values, minlength=len(self.rank))

    def mean(self, values: Floats) -> Floats:
        """Return the weighted mean of values that are given per group."""
        mean: Floats = self.count @ values / self.count.sum()
        return mean

    def only(self, which: Mask) -> Groups:
        """Return the same groups with only these queries."""
        if which.all():
            return self
        return replace(self, member=self.member[which], weight=self.weight[which])


def grouped(columns: LogArrays, model: int, bins: int) -> Groups:
    """Group queries by the first check of a model's answers.

    Args:
        columns: Queries on which the check was made.
        model: Index of the model.
        bins: Number of bins of a score; not used for verdicts.
    """
    return (
        _by_score(columns, model, bins) if columns.is_score(model) else _by_counts(columns, model)
    )


def _by_score(columns: LogArrays, model: int, bins: int) -> Groups:
    score = columns.score[:, model]
    edges = bin_edges(score, bins)
    group = in_bins(score, edges)
    number = len(edges) + 1
    mass = np.bincount(group, columns.weight, minlength=number)
    rank = (np.cumsum(mass) - mass / 2) / mass.sum()
    means = np.bincount(group, columns.weight * score, minlength=number)
    odds = log_odds(means / np.maximum(mass, 1e-300))
    return Groups(group, columns.weight, rank, np.zeros(number), odds, edges=edges)


def _by_counts(columns: LogArrays, model: int) -> Groups:
    counts, group = np.unique(columns.counts(model), axis=0, return_inverse=True)
    group = group.ravel()
    share = accept_rate(counts)
    rank = ranks(share, np.bincount(group, columns.weight))
    invalid_share = counts[:, 2] / counts.sum(axis=1)
    return Groups(group, columns.weight, rank, invalid_share, log_odds(share), counts=counts)


def accept_rate(counts: Ints) -> Floats:
    """Return the share of accepts among accepts and rejects, shrunk towards one half."""
    rate: Floats = (counts[:, 0] + 0.5) / (counts[:, 0] + counts[:, 1] + 1.0)
    return rate
