"""The POMDPs of several checks: of one answer, and of the last model's answers.

As in the chain of all models, the particles are logged queries, and their qualities are regressed
on what the checks found. Here, products of two findings are included, since the value of one check
may depend on another: whether two models agree says little if both are certain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from langchain_automix.policy.data.arrays import NOT_DRAWN, Floats, Ints, LogArrays
from langchain_automix.policy.pomdp.combined_observations import (
    ObservationSize,
    Resolution,
    choose_resolution,
    combine,
)
from langchain_automix.policy.pomdp.groups import accept_rate
from langchain_automix.policy.pomdp.likelihood import out_of_fold_bandwidth, rank_kernel
from langchain_automix.policy.pomdp.model import RoutingPOMDP
from langchain_automix.policy.pomdp.observation_model import (
    BATCHES,
    ObservationModel,
    score_observation_model,
)
from langchain_automix.policy.pomdp.two_models import (
    FEWEST_IN_BIN,
    LEAST_NOISE,
    binned_verdict_model,
)
from langchain_automix.policy.statistics import PRIOR_SLOPE, bin_edges, in_bins, ranks

CheckNames = tuple[str | None, ...]
"""Names of the checks of one model's answer; None is the first."""

Resolutions = Mapping[str | None, Resolution]
"""The checks of one model's answer, and how finely each is read."""

JOINT_STATES = 2_500
"""Maximum number of joint findings of the checks of one answer."""

CHAIN_STATES = 200_000
"""The same limit for the checks of all answers, since many findings of the first lead to a table
each."""

SINGLE = Resolution(16, 10)
"""How finely a check is read if it is the only one of its model's answers."""

JOINT_PARTICLES = 800
_MOST_PRODUCTS = 6
"""Maximum number of checks for which products of their findings are included in the regression."""


def joint_pomdp(
    columns: LogArrays, models: Sequence[int], resolutions: Mapping[int, Resolutions], seed: int = 0
) -> RoutingPOMDP:
    """Build the POMDP of some models with several checks of their answers.

    Args:
        columns: Queries that all these models answered, with the same checks throughout.
        models: Indices of the models in play, ascending.
        resolutions: For each model whose answers are checked, its checks and how to read them.
        seed: Seed for the choice of particles, if there are more queries than needed.
    """
    keys = [(j, name) for j in models for name in resolutions.get(j, {})]
    alone = {name: columns.alone(name) for _, name in keys}
    rank = np.stack([evidence_rank(alone[name], j) for j, name in keys], axis=1)
    fitted = _quality(columns, rank, [j for j, _ in keys])
    particles = np.arange(len(columns))
    if len(particles) > JOINT_PARTICLES:
        particles = np.sort(
            np.random.default_rng(seed).permutation(len(particles))[:JOINT_PARTICLES]
        )
    found: dict[int, list[tuple[str | None, ObservationModel]]] = {}
    for i, (j, name) in enumerate(keys):
        resolution, is_plain = resolutions[j][name], list(resolutions[j]) == [None]
        own = particle_observation_model(
            alone[name],
            j,
            particles,
            rank[:, i],
            resolution.verdicts,
            bins=resolution.bins,
            coarse=not is_plain,
        )
        found.setdefault(j, []).append((name, own))
    weight, chosen = columns.weight[particles], list(models)
    return RoutingPOMDP(
        tuple(models),
        weight / weight.sum(),
        fitted[particles][:, chosen],
        columns.mean(columns.cost[:, chosen]),
        tuple(_together(found[j]) if j in found else None for j in models),
    )


def _together(checks: list[tuple[str | None, ObservationModel]]) -> ObservationModel:
    """Combine all checks of one answer; the first check alone is left as it is."""
    [(name, first), *others] = checks
    return first if name is None and not others else combine(checks)


def resolutions_of(columns: LogArrays, checks: Mapping[int, CheckNames]) -> dict[int, Resolutions]:
    """Choose how finely each check of each model's answers is read, so that states are few.

    Args:
        columns: The log.
        checks: For each model whose answers are checked, its checks.
    """
    extents = {
        j: {name: _extent(columns, j, name) for name in names} for j, names in checks.items()
    }
    several = [j for j, names in checks.items() if len(names) > 1]
    left = float(CHAIN_STATES)
    for j in set(checks) - set(several):
        left /= next(iter(extents[j].values())).states(SINGLE)
    states = min(JOINT_STATES, max(left, 1.0) ** (1 / max(len(several), 1)))
    found: dict[int, Resolutions] = {}
    for j, own in extents.items():
        resolution = choose_resolution(own.values(), states) if j in several else SINGLE
        found[j] = {
            name: Resolution(min(size.max_verdicts, resolution.verdicts), resolution.bins)
            for name, size in own.items()
        }
    return found


def _extent(columns: LogArrays, model: int, name: str | None) -> ObservationSize:
    check = columns.alone(name)
    if check.is_score(model):
        return ObservationSize(len(np.unique(check.score[:, model])), is_score=True)
    drawn = (check.verdicts[:, model] != NOT_DRAWN).sum(axis=1)
    return ObservationSize(min(int(drawn.min()), BATCHES[-1]), is_score=False)


def _quality(columns: LogArrays, rank: Floats, owners: list[int]) -> Floats:
    """Regress the quality of each model on what all checks found, and on products of two."""
    features = rank - 0.5
    if 1 < len(owners) <= _MOST_PRODUCTS:
        pairs = combinations(range(len(owners)), 2)
        # Doubled, so that a product spans as much as its factors.
        products = [2 * features[:, a] * features[:, b] for a, b in pairs]
        features = np.concatenate([features, np.stack(products, axis=1)], axis=1)
    centred = features - columns.mean(features)
    return linear_quality(columns, centred, [*owners, *[-1] * (features.shape[1] - len(owners))])


CHAIN_BINS = 10
CHAIN_PARTICLES = 1_500


def chain_pomdp(columns: LogArrays, max_verdicts: int, seed: int = 0) -> RoutingPOMDP:
    """Build the POMDP of all models, with a check of every answer that the log has checked.

    Args:
        columns: Queries that all models answered, with the same answers checked throughout.
        max_verdicts: Maximum number of verdicts that the policy may draw on one answer; not used
            for scores.
        seed: Seed for the choice of particles, if there are more queries than needed.
    """
    last = len(columns.models) - 1
    checkable = [j for j in range(last) if bool(columns.checked(j).all())]
    rank = np.stack([evidence_rank(columns, j) for j in checkable], axis=1)
    fitted = linear_quality(columns, rank - 0.5, checkable)
    particles = np.arange(len(columns))
    if len(particles) > CHAIN_PARTICLES:
        particles = np.sort(
            np.random.default_rng(seed).permutation(len(particles))[:CHAIN_PARTICLES]
        )
    evidence: list[ObservationModel | None] = [None] * (last + 1)
    for column, j in enumerate(checkable):
        evidence[j] = particle_observation_model(
            columns, j, particles, rank[:, column], max_verdicts
        )
    weight = columns.weight[particles]
    return RoutingPOMDP(
        tuple(range(last + 1)),
        weight / weight.sum(),
        fitted[particles],
        columns.mean(columns.cost),
        tuple(evidence),
    )


def evidence_rank(columns: LogArrays, model: int) -> Floats:
    """Return the rank of what the first check found on each query, in (0, 1)."""
    if columns.is_score(model):
        return ranks(columns.score[:, model], columns.weight)
    return ranks(accept_rate(columns.counts(model)), columns.weight)


def particle_observation_model(
    columns: LogArrays,
    model: int,
    particles: Ints,
    rank: Floats,
    max_verdicts: int,
    *,
    bins: int = CHAIN_BINS,
    coarse: bool = False,
) -> ObservationModel:
    """Return the observation model of the first check of a model's answers on some logged queries.

    Args:
        columns: The log.
        model: Index of the model.
        particles: (particles,): indices of the queries that are particles.
        rank: (n,): rank of what the check found on each query.
        max_verdicts: Maximum number of verdicts that may be drawn; not used for scores.
        bins: Number of bins of a score.
        coarse: Whether to ignore invalid verdicts, and checks longer than `max_verdicts`.
    """
    if not columns.is_score(model):
        counts = columns.counts(model)[particles]
        weight = columns.weight[particles]
        return binned_verdict_model(columns, model, counts, weight, max_verdicts, coarse=coarse)
    score = columns.score[:, model]
    edges = bin_edges(score, min(bins, max(2, len(score) // FEWEST_IN_BIN)))
    bandwidth = out_of_fold_bandwidth(rank, columns.quality, columns.weight)
    kernel = rank_kernel(rank, in_bins(score, edges), len(edges) + 1, bandwidth)
    price = float(columns.mean(columns.fixed_cost[:, model]))
    return score_observation_model(kernel[:, particles], edges, price)


def linear_quality(columns: LogArrays, features: Floats, owners: list[int]) -> Floats:
    """Regress the quality of each model on all confidences, shrunk by empirical Bayes.

    This is Bayesian linear regression (Bishop, "Pattern Recognition and Machine Learning", 2006,
    sections 3.3 and 3.5), averaged over the prior's spread by marginal likelihood. A model's own
    confidence is expected to rise with its quality; if it has several, all of them together are.
    Nothing is expected of other models' confidences.

    Args:
        columns: The log.
        features: (n, features): ranks of what the checks found, or values derived from them, with a
            mean of 0.
        owners: Model whose confidence each feature is; -1 if none.
    """
    fitted = np.empty_like(columns.quality)
    root = np.sqrt(columns.weight)[:, None]
    for j in range(columns.quality.shape[1]):
        prior = np.array([PRIOR_SLOPE / owners.count(j) if k == j else 0.0 for k in owners])
        target = columns.quality[:, j]
        mean = columns.mean(target)
        noise = max(float(columns.mean((target - mean) ** 2)), LEAST_NOISE)
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
