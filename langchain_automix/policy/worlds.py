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

from langchain_automix.policy.belief import (
    BATCHES,
    Evidence,
    bin_edges,
    in_bins,
    out_of_fold_bandwidth,
    rank_kernel,
    ranks,
    score_evidence,
    verdict_evidence,
)
from langchain_automix.policy.columns import Columns, Floats, Ints
from langchain_automix.policy.smoothing import PRIOR_SLOPE, isotonic, smooth
from langchain_automix.policy.solver import World

Shape = Literal["monotone", "free"]

PAIR_BINS = 24
CHAIN_BINS = 10
CHAIN_PARTICLES = 1_500
_FEWEST_IN_BIN = 4
_LEAST_NOISE = 1e-4


def pair_worlds(
    columns: Columns, small: int, large: int, shapes: tuple[Shape, ...], most: int
) -> dict[Shape, World]:
    """Return the POMDP of two models, one for each shape that the benefit may have.

    Args:
        columns: Queries that both models answered, the small one's answers checked.
        small: Index of the model whose answer is checked.
        large: Index of the later model.
        shapes: What to assume of the benefit as a function of the confidence.
        most: Verdicts that the policy may draw on one answer; not used for scores.
    """
    group, place, aside, evidence = (
        _score_groups(columns, small)
        if columns.is_score(small)
        else _verdict_groups(columns, small, most)
    )
    groups = _Groups(group, columns.weight, place, aside)
    count = groups.count
    cost = columns.mean(columns.cost[:, [small, large]])
    low = columns.quality[:, small]
    benefit = columns.quality[:, large] - low
    curves = {
        "low": _curve(groups, low, PRIOR_SLOPE),
        "benefit": _curve(groups, benefit, -PRIOR_SLOPE),
    }
    worlds: dict[Shape, World] = {}
    for shape in shapes:
        shaped = curves
        if shape == "monotone":
            shaped = {
                "low": _monotone(curves["low"], count, place, aside),
                "benefit": -_monotone(-curves["benefit"], count, place, aside),
            }
        base = _centred(shaped["low"], count, columns.mean(low))
        gain = _centred(shaped["benefit"], count, columns.mean(benefit))
        quality = np.stack([base, base + gain], axis=1)
        worlds[shape] = World((small, large), count / count.sum(), quality, cost, (evidence, None))
    return worlds


def _score_groups(columns: Columns, model: int) -> tuple[Ints, Floats, Floats, Evidence]:
    score = columns.score[:, model]
    bins = min(PAIR_BINS, max(2, len(score) // _FEWEST_IN_BIN))
    edges = bin_edges(score, bins)
    group = in_bins(score, edges)
    number = len(edges) + 1
    mass = np.bincount(group, columns.weight, minlength=number)
    place = (np.cumsum(mass) - mass / 2) / mass.sum()
    price = float(columns.mean(columns.fixed_cost[:, model]))
    return group, place, np.zeros(number), score_evidence(np.eye(number), edges, price)


def _verdict_groups(
    columns: Columns, model: int, most: int
) -> tuple[Ints, Floats, Floats, Evidence]:
    counts, group = np.unique(columns.counts(model), axis=0, return_inverse=True)
    group = group.ravel()
    mass = np.bincount(group, columns.weight)
    place = ranks(_accept_rate(counts), mass)
    aside = counts[:, 2] / counts.sum(axis=1)
    return group, place, aside, _verdict_evidence(columns, model, counts, mass, most)


def _accept_rate(counts: Ints) -> Floats:
    rate: Floats = (counts[:, 0] + 0.5) / (counts[:, 0] + counts[:, 1] + 1.0)
    return rate


def _verdict_evidence(
    columns: Columns, model: int, counts: Ints, weight: Floats, most: int, *, few: bool = False
) -> Evidence:
    fixed = float(columns.mean(columns.fixed_cost[:, model]))
    each = float(columns.mean(columns.sample_cost[:, model]))
    return verdict_evidence(
        counts, weight, most=most, prices=(fixed, each), batches=BATCHES, few=few
    )


@dataclass(frozen=True)
class _Groups:
    """Logged queries that no check tells apart, together."""

    member: Ints
    """(n,): group of each query."""

    weight: Floats
    """(n,): weight of each query."""

    place: Floats
    """(groups,): rank of the confidence, in [0, 1]."""

    aside: Floats
    """(groups,): share of invalid verdicts."""

    @property
    def count(self) -> Floats:
        """(groups,): weight of each group."""
        return np.bincount(self.member, self.weight, minlength=len(self.place))


def _curve(groups: _Groups, values: Floats, slope: float) -> Floats:
    """Smooth the weighted means of values over the groups."""
    member, count = groups.member, groups.count
    sums = np.bincount(member, groups.weight * values, minlength=len(count))
    means = sums / np.maximum(count, 1e-300)
    freedom = len(values) - len(np.unique(member))
    within = float((groups.weight * (values - means[member]) ** 2).sum())
    noise = within / freedom if freedom > 2 else float(values.var())  # noqa: PLR2004
    return smooth(
        groups.place,
        count,
        means,
        noise=max(noise, _LEAST_NOISE),
        slope=slope,
        aside=groups.aside,
    )


def _monotone(curve: Floats, count: Floats, place: Floats, aside: Floats) -> Floats:
    """Make a curve rise with the place, separately for each share of invalid verdicts."""
    risen = curve.copy()
    for level in np.unique(aside):
        there = np.flatnonzero(aside == level)
        ordered = there[np.argsort(place[there], kind="stable")]
        risen[ordered] = isotonic(curve[ordered], count[ordered])
    return risen


def _centred(curve: Floats, count: Floats, mean: Floats) -> Floats:
    centred: Floats = curve + (mean - count @ curve / count.sum())
    return centred


def chain_world(columns: Columns, most: int, seed: int = 0) -> World:
    """Return the POMDP of all models, with a check of every answer that the log has checked.

    Args:
        columns: Queries that all models answered, with the same answers checked throughout.
        most: Verdicts that the policy may draw on one answer; not used for scores.
        seed: For the choice of particles, where there are more queries than needed.
    """
    last = len(columns.models) - 1
    checkable = [j for j in range(last) if bool(columns.checked(j).all())]
    place = np.stack([place_of(columns, j) for j in checkable], axis=1)
    fitted = linear_quality(columns, place - 0.5, checkable)
    few = np.arange(len(columns))
    if len(few) > CHAIN_PARTICLES:
        few = np.sort(np.random.default_rng(seed).permutation(len(few))[:CHAIN_PARTICLES])
    evidence: list[Evidence | None] = [None] * (last + 1)
    for column, j in enumerate(checkable):
        evidence[j] = particle_evidence(columns, j, few, place[:, column], most)
    weight = columns.weight[few]
    return World(
        tuple(range(last + 1)),
        weight / weight.sum(),
        fitted[few],
        columns.mean(columns.cost),
        tuple(evidence),
    )


def place_of(columns: Columns, model: int) -> Floats:
    """Return the rank of what the first check found on each query, in (0, 1)."""
    if columns.is_score(model):
        return ranks(columns.score[:, model], columns.weight)
    return ranks(_accept_rate(columns.counts(model)), columns.weight)


def particle_evidence(
    columns: Columns,
    model: int,
    few: Ints,
    place: Floats,
    most: int,
    *,
    bins: int = CHAIN_BINS,
    few_states: bool = False,
) -> Evidence:
    """Return what the first check of a model's answers tells about some logged queries.

    Args:
        columns: The log.
        model: Whose answers.
        few: (particles,): places of the queries that are particles.
        place: (n,): rank of what the check found on each query.
        most: Verdicts that may be drawn; not used for scores.
        bins: Bins of a score.
        few_states: Whether to leave out invalid verdicts, and longer checks than `most`.
    """
    if not columns.is_score(model):
        counts = columns.counts(model)[few]
        weight = columns.weight[few]
        return _verdict_evidence(columns, model, counts, weight, most, few=few_states)
    score = columns.score[:, model]
    edges = bin_edges(score, min(bins, max(2, len(score) // _FEWEST_IN_BIN)))
    bandwidth = out_of_fold_bandwidth(place, columns.quality, columns.weight)
    kernel = rank_kernel(place, in_bins(score, edges), len(edges) + 1, bandwidth)
    price = float(columns.mean(columns.fixed_cost[:, model]))
    return score_evidence(kernel[:, few], edges, price)


def linear_quality(columns: Columns, features: Floats, owners: list[int]) -> Floats:
    """Regress the quality of each model on all confidences, shrunk by empirical Bayes.

    Bayesian linear regression (Bishop, "Pattern Recognition and Machine Learning", 2006,
    sections 3.3 and 3.5), averaged over the prior's spread by marginal likelihood. A model's
    own confidence is expected to rise with its quality, and where it has several, all of them
    together; nothing is expected of the others'.

    Args:
        columns: The log.
        features: (n, features): ranks of what the checks found, or what follows from them, with
            a mean of 0.
        owners: Whose confidence each feature is; -1: nobody's.
    """
    fitted = np.empty_like(columns.quality)
    root = np.sqrt(columns.weight)[:, None]
    for j in range(columns.quality.shape[1]):
        prior = np.array([PRIOR_SLOPE / owners.count(j) if k == j else 0.0 for k in owners])
        target = columns.quality[:, j]
        mean = columns.mean(target)
        noise = max(float(columns.mean((target - mean) ** 2)), _LEAST_NOISE)
        residual = target - mean - features @ prior
        fitted[:, j] = mean + features @ (
            prior + _ridge(root * features, root[:, 0] * residual, noise)
        )
    return fitted


def _ridge(features: Floats, target: Floats, noise: float) -> Floats:
    gram, moment = features.T @ features / noise, features.T @ target / noise
    means, evidence = [], []
    for spread in (0.05, 0.1, 0.2, 0.4):
        precision = gram + np.eye(len(gram)) / spread**2
        means.append(np.linalg.solve(precision, moment))
        log_det = np.linalg.slogdet(precision)[1] + 2 * len(gram) * np.log(spread)
        evidence.append(0.5 * (moment @ means[-1] - log_det))
    share = np.exp(np.array(evidence) - max(evidence))
    mixed: Floats = share @ np.array(means) / share.sum()
    return mixed
