"""The belief over logged queries: which of them is the query at hand like?

Every logged query, or group of alike ones, is a particle that carries the qualities of all
models. What a check of a new answer finds weighs the particles by how likely it is to see that
on them; the weighted means of their qualities are the belief. The head of a check of m verdicts is
compared with logged checks of k of them by the hypergeometric likelihood where m <= k, which
has no bias, and by the Beta-binomial one beyond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from langchain_automix.policy.columns import Floats, Ints

MAX_STATES = 7_000
BATCHES = (1, 2, 4, 8, 16, 32)
"""Numbers of verdicts that a policy may draw at once, beside all of them."""

RUN_TIME_MOST = 16
"""Verdicts on one answer that a policy can read, where the log has fewer."""

STRANGER = 0.05
"""Chance that the query at hand is like a logged one, and not such a one itself. It gives
findings that no logged query can have a belief."""

_SIZES = (0.2, 200.0)  # of a Beta prior: no check is surer or more alike than these say


@dataclass(frozen=True)
class Draw:
    """One way to check an answer: how many verdicts, at what price, leading where."""

    samples: int | None
    """Verdicts drawn; None for a score."""

    price: float
    """Mean cost of the check, in the log's currency."""

    sources: Ints
    """(s,): states in which it may be done."""

    targets: Ints
    """(s, o): the state after each outcome."""

    ways: Floats
    """(o,): orders of verdicts that give the outcome."""

    check: str | None = None
    """Which of several checks it is, by name; None: the first."""


@dataclass(frozen=True)
class Evidence:
    """All that checks of one model's answer can find, as states; state 0 is nothing yet."""

    likelihood: Floats
    """(states, particles): chance of the findings, in one given order, on each particle."""

    draws: tuple[Draw, ...]
    """What may be drawn, and from where."""

    counts: Ints | None = None
    """(states, 3): accepts, rejects, invalid; None for scores."""

    edges: Floats = field(default_factory=lambda: np.empty(0))
    """Where one state of a score ends and the next begins, ascending."""

    counts_invalid: bool = False
    """Whether invalid verdicts are evidence; if not, they are left out."""

    @property
    def totals(self) -> Ints:
        """(states,): verdicts drawn in each state; for a score, 1 after state 0."""
        if self.counts is None:
            return np.minimum(np.arange(len(self.likelihood)), 1)
        totals: Ints = self.counts.sum(axis=1)
        return totals


def beta_prior(successes: Ints, failures: Ints, weight: Floats) -> tuple[float, float]:
    """Fit Beta(a, b) to counts by maximum marginal likelihood (empirical Bayes).

    A grid over mean and size a + b that zooms in; the size stays within [0.2, 200], because
    checks that always agree, or vary like one coin, have their optimum at zero or infinity.
    """
    steps, bounds = 12, ((0.01, 0.99), (math.log(_SIZES[0]), math.log(_SIZES[1])))
    spans = bounds
    pairs, inverse = np.unique(np.stack([successes, failures], axis=1), axis=0, return_inverse=True)
    times = np.bincount(inverse.ravel(), weight)
    best = (0.5, 0.0)
    for _ in range(4):
        axes = [np.linspace(*span, steps + 1) for span in spans]
        means, sizes = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
        place = int(_log_marginal(means, np.exp(sizes), pairs, times).argmax())
        best = (float(means[place]), float(sizes[place]))
        spans = tuple(  # type: ignore[assignment]
            (max(b - (s[1] - s[0]) / steps, low), min(b + (s[1] - s[0]) / steps, high))
            for b, s, (low, high) in zip(best, spans, bounds, strict=True)
        )
    mean, size = best[0], math.exp(best[1])
    return mean * size, (1 - mean) * size


def _log_marginal(means: Floats, sizes: Floats, pairs: Ints, times: Floats) -> Floats:
    """Return the log marginal likelihood of the counts, one number a prior."""
    longest = int(pairs.sum(axis=1).max(initial=0))
    one, other, both = (
        _log_rising(x, longest) for x in (means * sizes, (1 - means) * sizes, sizes)
    )
    found: Floats = one[:, pairs[:, 0]] + other[:, pairs[:, 1]] - both[:, pairs.sum(axis=1)]
    return found @ times


def _log_rising(starts: Floats | float, longest: int) -> Floats:
    """Return log(start (start + 1) ... (start + t - 1)) for t = 0 ... longest, in the last axis."""
    first = np.asarray(starts)[..., None]
    sums = np.cumsum(np.log(first + np.arange(longest)), axis=-1)
    return np.concatenate([np.zeros_like(first), sums], axis=-1)


def predictive_likelihood(
    seen: tuple[Ints, Ints], logged: tuple[Ints, Ints], prior: tuple[float, float]
) -> Floats:
    """Return the chance of one order of verdicts from a query that is like logged ones.

    A logged query with x successes and y failures has an unknown rate with the posterior
    Beta(a + x, b + y), so s successes and f failures in a given order have the chance
    B(a + x + s, b + y + f) / B(a + x, b + y): Beta-binomial.

    Args:
        seen: (states,) successes and failures of the new check.
        logged: (particles,) successes and failures in the log.
        prior: a and b.

    Returns:
        (states, particles).
    """
    logs = np.zeros((len(seen[0]), len(logged[0])))
    sums = (seen[0] + seen[1], logged[0] + logged[1])
    for sign, start, new, old in (
        (1, prior[0], seen[0], logged[0]),
        (1, prior[1], seen[1], logged[1]),
        (-1, prior[0] + prior[1], *sums),
    ):
        rising = _log_rising(start, int(new.max(initial=0) + old.max(initial=0)))
        logs += sign * (rising[new[:, None] + old[None, :]] - rising[old][None, :])
    return np.exp(logs)


def prefix_likelihood(seen: Ints, logged: Ints) -> Floats:
    """Return the chance of one order of verdicts at the head of a logged query's own.

    The verdicts of a query come in any order, so a head with counts s of a query with counts
    c has the chance prod (c_i)! / (c_i - s_i)! over (sum c)! / (sum c - sum s)!, which is
    multivariate hypergeometric: what a log says about shorter checks, without bias. 0 for a
    head that the query cannot have.

    Args:
        seen: (states, kinds) counts of the new check.
        logged: (particles, kinds) counts in the log.

    Returns:
        (states, particles).
    """
    factorials = np.concatenate(
        [[0.0], np.cumsum(np.log(np.arange(1, logged.sum(axis=1).max() + 1)))]
    )
    left = logged[None, :, :] - seen[:, None, :]
    possible = (left >= 0).all(axis=2)
    left = np.maximum(left, 0)
    totals = logged.sum(axis=1)
    logs = (factorials[logged].sum(axis=1) - factorials[totals])[None, :]
    logs = logs - factorials[left].sum(axis=2) + factorials[left.sum(axis=2)]
    return np.where(possible, np.exp(logs), 0.0)


def longer_likelihood(
    seen: tuple[Ints, Ints], logged: tuple[Ints, Ints], prior: tuple[float, float]
) -> Floats:
    """Return the chance of one order of more verdicts than a query has in the log.

    Its own x accepts and y rejects are among them; those beyond are Beta-binomial.
    """
    own = logged[0] + logged[1]
    extra = [np.maximum(s[:, None] - c[None, :], 0) for s, c in zip(seen, logged, strict=True)]
    possible = (seen[0][:, None] >= logged[0]) & (seen[1][:, None] >= logged[1])
    most = int((seen[0] + seen[1]).max(initial=0) + own.max(initial=0))
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
    one, other, both = (_log_rising(x, most) for x in (*prior, sum(prior)))
    logs = one[logged[0] + extra[0]] - one[logged[0]] + other[logged[1] + extra[1]]
    logs = logs - other[logged[1]] - both[own + extra[0] + extra[1]] + both[own]
    # Orders of the verdicts beyond, over orders of all of them.
    logs += factorials[extra[0] + extra[1]] - factorials[extra[0]] - factorials[extra[1]]
    total = seen[0] + seen[1]
    logs -= (factorials[total] - factorials[seen[0]] - factorials[seen[1]])[:, None]
    return np.where(possible, np.exp(logs), 0.0)


def verdict_evidence(
    logged: Ints,
    weight: Floats,
    *,
    most: int,
    prices: tuple[float, float],
    batches: Sequence[int],
    few: bool = False,
) -> Evidence:
    """Return the evidence of sampled checks.

    Args:
        logged: (particles, 3) accepts, rejects, invalid of each particle.
        weight: (particles,) how many logged queries each stands for.
        most: Verdicts that a policy may draw on one answer.
        prices: Fixed cost of a check, and cost of a verdict.
        batches: Numbers of verdicts that may be drawn at once.
        few: Whether to keep the states few: no invalid verdicts, and none beyond `most`.
    """
    counts_invalid = bool(logged[:, 2].any()) and math.comb(most + 3, 3) <= MAX_STATES and not few
    if not counts_invalid:
        logged = logged * np.array([1, 1, 0])
    longest = most if counts_invalid or few else max(most, RUN_TIME_MOST)
    counts = _lattice(longest, counts_invalid)
    like = _like(counts, logged, weight, counts_invalid)
    own = logged.sum(axis=1)
    pairs = (counts[:, 0], counts[:, 1]), (logged[:, 0], logged[:, 1])
    itself = prefix_likelihood(counts, logged)
    if not counts_invalid:
        beyond = counts.sum(axis=1)[:, None] > own[None, :]
        prior = beta_prior(logged[:, 0], logged[:, 1], weight)
        itself = np.where(beyond, longer_likelihood(*pairs, prior), itself)
    likelihood = (1 - STRANGER) * itself + STRANGER * like
    draws = tuple(
        _draw(counts, n, most, prices[0] + n * prices[1], counts_invalid)
        for n in sorted({*(b for b in batches if b <= most), most})
    )
    return Evidence(likelihood, draws, counts=counts, counts_invalid=counts_invalid)


def _like(counts: Ints, logged: Ints, weight: Floats, counts_invalid: bool) -> Floats:
    """Return the Beta-binomial likelihood of verdicts, and of their being valid."""
    accepts, rejects, invalid = counts.T
    prior = beta_prior(logged[:, 0], logged[:, 1], weight)
    like = predictive_likelihood((accepts, rejects), (logged[:, 0], logged[:, 1]), prior)
    if counts_invalid:
        valid = logged[:, 0] + logged[:, 1]
        prior = beta_prior(valid, logged[:, 2], weight)
        like = like * predictive_likelihood(
            (accepts + rejects, invalid), (valid, logged[:, 2]), prior
        )
    return like


def score_evidence(likelihood: Floats, edges: Floats, price: float) -> Evidence:
    """Return the evidence of a continuous check; `likelihood` is (bins, particles)."""
    bins = len(likelihood)
    draw = Draw(None, price, np.array([0]), np.arange(1, bins + 1)[None, :], np.ones(bins))
    nothing = np.ones((1, likelihood.shape[1]))
    return Evidence(np.concatenate([nothing, likelihood]), (draw,), edges=edges)


def _lattice(most: int, with_invalid: bool) -> Ints:
    return np.array(
        [
            (accepts, total - accepts - invalid, invalid)
            for total in range(most + 1)
            for invalid in range((total if with_invalid else 0) + 1)
            for accepts in range(total - invalid + 1)
        ]
    )


def _draw(counts: Ints, n: int, most: int, price: float, with_invalid: bool) -> Draw:
    outcomes = _lattice(n, with_invalid)
    outcomes = outcomes[outcomes.sum(axis=1) == n]
    ways = [math.factorial(n) / math.prod(math.factorial(x) for x in o) for o in outcomes.tolist()]
    sources = np.flatnonzero(counts.sum(axis=1) + n <= most)
    place = {tuple(state): i for i, state in enumerate(counts.tolist())}
    targets = [
        [place[tuple(state)] for state in (counts[source] + outcomes).tolist()]
        for source in sources.tolist()
    ]
    return Draw(n, price, sources, np.array(targets), np.array(ways))


def ranks(values: Floats, weight: Floats) -> Floats:
    """Return the middle rank of each value, in (0, 1), ties sharing theirs."""
    order, inverse = np.unique(values, return_inverse=True)
    mass = np.bincount(inverse, weight, minlength=len(order))
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    placed: Floats = middle[inverse]
    return placed


def bin_edges(values: Floats, bins: int) -> Floats:
    """Return the inner edges of bins that hold about as many values each."""
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    edges = np.unique(np.quantile(values, inner, method="higher"))
    kept: Floats = edges[edges > values.min()]
    return kept


def in_bins(values: Floats, edges: Floats) -> Ints:
    """Return the bin of each value; a value on an edge is in the bin above it."""
    return np.searchsorted(edges, values, side="right")


def rank_kernel(place: Floats, bins: Ints, number: int, bandwidth: float) -> Floats:
    """Return how likely each bin is on each particle: a Gaussian kernel on ranks.

    Args:
        place: (particles,) rank of each particle's score, in (0, 1).
        bins: (particles,) bin of each particle's score.
        number: Number of bins.
        bandwidth: Standard deviation of the kernel, in ranks.

    Returns:
        (bins, particles); each column sums to 1.
    """
    mass = np.maximum(np.bincount(bins, minlength=number), 1e-9)
    centre = np.bincount(bins, place, minlength=number) / mass
    squares = ((centre[:, None] - place[None, :]) / bandwidth) ** 2 / 2
    kernel = mass[:, None] * np.exp(squares.min(axis=0) - squares)
    likelihood: Floats = kernel / kernel.sum(axis=0)
    return likelihood


def out_of_fold_bandwidth(place: Floats, quality: Floats, weight: Floats) -> float:
    """Return the kernel bandwidth whose leave-one-out predictions of quality are best.

    Args:
        place: (n,) ranks of the scores; some 300 of them are used, evenly chosen.
        quality: (n, m) what is predicted.
        weight: (n,) how much each counts.
    """
    step = -(-len(place) // 300)
    place, quality, weight = place[::step], quality[::step], weight[::step]
    candidates = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
    if len(place) < 3:  # noqa: PLR2004  (nothing to leave out)
        return candidates[-1]

    squares = (place[:, None] - place[None, :]) ** 2

    def error(bandwidth: float) -> float:
        exponents = squares / (2 * bandwidth**2)
        np.fill_diagonal(exponents, np.inf)
        kernel = np.exp(exponents.min(axis=1, keepdims=True) - exponents) * weight
        predicted = kernel @ quality / np.maximum(kernel.sum(axis=1, keepdims=True), 1e-300)
        return float((weight[:, None] * (predicted - quality) ** 2).sum())

    return min(candidates, key=error)
