"""From a routing log to the POMDPs that explain it: the families that a fit chooses from.

A *pair* has two models and the check of the first. Its particles are the groups of logged
queries that no check tells apart: the same verdict counts, or the same bin of the score. Their
benefit is smoothed, and in the monotone family it also falls with confidence. A *chain* has all
models and all checks; its particles are the logged queries themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from langchain_automix.policy.data.arrays import Floats, Ints, LogArrays
from langchain_automix.policy.pomdp.model import RoutingPOMDP
from langchain_automix.policy.pomdp.observation_model import (
    BATCHES,
    ObservationModel,
    score_observation_model,
    verdict_observation_model,
)
from langchain_automix.policy.statistics import (
    PRIOR_SLOPE,
    bin_edges,
    gp_smooth,
    in_bins,
    isotonic,
    ranks,
)

Shape = Literal["monotone", "free"]

PAIR_BINS = 24
FEWEST_IN_BIN = 4
LEAST_NOISE = 1e-4


def two_model_pomdps(
    columns: LogArrays, small: int, large: int, shapes: tuple[Shape, ...], max_verdicts: int
) -> dict[Shape, RoutingPOMDP]:
    """Return the POMDP of two models, one for each shape that the benefit may have.

    Args:
        columns: Queries that both models answered, the small one's answers checked.
        small: Index of the model whose answer is checked.
        large: Index of the later model.
        shapes: What to assume of the benefit as a function of the confidence.
        max_verdicts: Verdicts that the policy may draw on one answer; not used for scores.
    """
    group, rank, invalid_share, evidence = (
        _score_groups(columns, small)
        if columns.is_score(small)
        else _verdict_groups(columns, small, max_verdicts)
    )
    groups = _Groups(group, columns.weight, rank, invalid_share)
    count = groups.count
    cost = columns.mean(columns.cost[:, [small, large]])
    low = columns.quality[:, small]
    benefit = columns.quality[:, large] - low
    curves = {
        "low": _curve(groups, low, PRIOR_SLOPE),
        "benefit": _curve(groups, benefit, -PRIOR_SLOPE),
    }
    pomdps: dict[Shape, RoutingPOMDP] = {}
    for shape in shapes:
        shaped = curves
        if shape == "monotone":
            shaped = {
                "low": _monotone(curves["low"], count, rank, invalid_share),
                "benefit": -_monotone(-curves["benefit"], count, rank, invalid_share),
            }
        base = _centred(shaped["low"], count, columns.mean(low))
        gain = _centred(shaped["benefit"], count, columns.mean(benefit))
        quality = np.stack([base, base + gain], axis=1)
        pomdps[shape] = RoutingPOMDP(
            (small, large), count / count.sum(), quality, cost, (evidence, None)
        )
    return pomdps


def _score_groups(columns: LogArrays, model: int) -> tuple[Ints, Floats, Floats, ObservationModel]:
    score = columns.score[:, model]
    bins = min(PAIR_BINS, max(2, len(score) // FEWEST_IN_BIN))
    edges = bin_edges(score, bins)
    group = in_bins(score, edges)
    number = len(edges) + 1
    mass = np.bincount(group, columns.weight, minlength=number)
    rank = (np.cumsum(mass) - mass / 2) / mass.sum()
    price = float(columns.mean(columns.fixed_cost[:, model]))
    return group, rank, np.zeros(number), score_observation_model(np.eye(number), edges, price)


def _verdict_groups(
    columns: LogArrays, model: int, max_verdicts: int
) -> tuple[Ints, Floats, Floats, ObservationModel]:
    counts, group = np.unique(columns.counts(model), axis=0, return_inverse=True)
    group = group.ravel()
    mass = np.bincount(group, columns.weight)
    rank = ranks(accept_rate(counts), mass)
    invalid_share = counts[:, 2] / counts.sum(axis=1)
    return (
        group,
        rank,
        invalid_share,
        binned_verdict_model(columns, model, counts, mass, max_verdicts),
    )


def accept_rate(counts: Ints) -> Floats:
    """Return the share of accepts among accepts and rejects, shrunk towards one half."""
    rate: Floats = (counts[:, 0] + 0.5) / (counts[:, 0] + counts[:, 1] + 1.0)
    return rate


def binned_verdict_model(
    columns: LogArrays,
    model: int,
    counts: Ints,
    weight: Floats,
    max_verdicts: int,
    *,
    coarse: bool = False,
) -> ObservationModel:
    """Return the observation model of one model's verdicts, at their mean prices in the log."""
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


@dataclass(frozen=True)
class _Groups:
    """Logged queries that no check tells apart, together."""

    member: Ints
    """(n,): group of each query."""

    weight: Floats
    """(n,): weight of each query."""

    rank: Floats
    """(groups,): rank of the confidence, in [0, 1]."""

    invalid_share: Floats
    """(groups,): share of invalid verdicts."""

    @property
    def count(self) -> Floats:
        """(groups,): weight of each group."""
        return np.bincount(self.member, self.weight, minlength=len(self.rank))


def _curve(groups: _Groups, values: Floats, slope: float) -> Floats:
    """Smooth the weighted means of values over the groups."""
    member, count = groups.member, groups.count
    sums = np.bincount(member, groups.weight * values, minlength=len(count))
    means = sums / np.maximum(count, 1e-300)
    freedom = len(values) - len(np.unique(member))
    within = float((groups.weight * (values - means[member]) ** 2).sum())
    noise = within / freedom if freedom > 2 else float(values.var())  # noqa: PLR2004
    return gp_smooth(
        groups.rank,
        count,
        means,
        noise=max(noise, LEAST_NOISE),
        slope=slope,
        invalid_share=groups.invalid_share,
    )


def _monotone(curve: Floats, count: Floats, rank: Floats, invalid_share: Floats) -> Floats:
    """Make a curve rise with the rank, separately for each share of invalid verdicts."""
    risen = curve.copy()
    for level in np.unique(invalid_share):
        there = np.flatnonzero(invalid_share == level)
        ordered = there[np.argsort(rank[there], kind="stable")]
        risen[ordered] = isotonic(curve[ordered], count[ordered])
    return risen


def _centred(curve: Floats, count: Floats, mean: Floats) -> Floats:
    centred: Floats = curve + (mean - count @ curve / count.sum())
    return centred
