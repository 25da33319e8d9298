"""The observation model of one model's answers: what checks may find, as states and actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_automix.policy.data.arrays import Floats, Ints
from langchain_automix.policy.decision.observation import CheckEncoding, Observation
from langchain_automix.policy.pomdp.likelihood import (
    beta_prior,
    longer_likelihood,
    predictive_likelihood,
    prefix_likelihood,
)

MAX_STATES = 7_000
BATCHES = (1, 2, 4, 8, 16, 32)
"""Numbers of verdicts that a policy may draw at once, besides all of them."""

MAX_RUN_TIME_VERDICTS = 16
"""Number of verdicts on one answer that a policy can read, even if the log has fewer."""

NOVELTY = 0.05
"""Probability that the current query merely resembles a logged one, rather than being one. It gives
a belief even to findings that no logged query can have."""


@dataclass(frozen=True)
class CheckAction:
    """One way to check an answer: how many verdicts, at what price, with which outcomes."""

    samples: int | None
    """Number of verdicts drawn; None for a score."""

    price: float
    """Mean cost of the check, in the log's currency."""

    sources: Ints
    """(s,): states in which it is possible."""

    targets: Ints
    """(s, o): the state after each outcome."""

    ways: Floats
    """(o,): number of orders of verdicts that give the outcome."""

    check: str | None = None
    """Name of the check, if there are several; None for the first."""


@dataclass(frozen=True)
class ObservationModel:
    """Everything that checks of one model's answer can find, as states; state 0 has no findings."""

    factors: tuple[Floats, ...]
    """For each part, (states of the part, particles): probability of its findings, in one
    particular order, on each particle. A single check has one part; with several checks, the states
    are all combinations."""

    draws: tuple[CheckAction, ...]
    """What may be drawn, and from which states."""

    counts: Ints | None = None
    """(states, 3): accepts, rejects, invalid; None for scores."""

    edges: Floats = field(default_factory=lambda: np.empty(0))
    """Boundaries between the states of a score, ascending."""

    counts_invalid: bool = False
    """Whether invalid verdicts count as evidence; if not, they are ignored."""

    @property
    def states(self) -> int:
        """Number of states."""
        return math.prod(len(factor) for factor in self.factors)

    @property
    def likelihood(self) -> Floats:
        """(states, particles): chance of the findings, in one given order, on each particle."""
        return multiply_factors(self.factors)

    @property
    def is_one_score(self) -> bool:
        """Whether it is a score and nothing else."""
        return self.counts is None

    @cached_property
    def observations(self) -> list[tuple[Observation, ...]]:
        """The findings of each check, in each state."""
        if self.counts is None:
            return [((s,),) for s in range(self.states)]
        return [(tuple(counts),) for counts in self.counts.tolist()]

    @cached_property
    def places(self) -> dict[tuple[Observation, ...], int]:
        """Maps the findings of the checks to their state."""
        return {found: state for state, found in enumerate(self.observations)}

    @cached_property
    def readings(self) -> tuple[CheckEncoding, ...]:
        """How a table encodes each check."""
        shape: Any = {
            "kind": "score" if self.counts is None else "verdicts",
            "counts_invalid": self.counts_invalid,
            "edges": tuple(self.edges.tolist()),
            "most": 0 if self.counts is None else int(self.totals.max()),
        }
        return (CheckEncoding.model_construct(**shape),)

    @cached_property
    def backwards(self) -> list[list[tuple[int, Ints, Ints]]]:
        """The possible draws after each number of draws, from the last but one back to none.

        Each entry is the index of an action, its states, and the targets of their outcomes.
        """
        totals, found = self.totals, []
        for total in range(int(totals.max()) - 1, -1, -1):
            steps = []
            for k, draw in enumerate(self.draws):
                rows = np.flatnonzero(totals[draw.sources] == total)
                if len(rows):
                    steps.append((k, draw.sources[rows], draw.targets[rows]))
            found.append(steps)
        return found

    @property
    def totals(self) -> Ints:
        """(states,): number of verdicts drawn in each state; for a score, 1 after state 0."""
        if self.counts is None:
            return np.minimum(np.arange(self.states), 1)
        totals: Ints = self.counts.sum(axis=1)
        return totals


def multiply_factors(factors: Sequence[Floats]) -> Floats:
    """Return the likelihood of all combinations of states, in the order of the factors."""
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, None, :] * factor[None, :, :]).reshape(-1, product.shape[1])
    return product


def verdict_observation_model(
    logged: Ints,
    weight: Floats,
    *,
    max_verdicts: int,
    prices: tuple[float, float],
    batches: Sequence[int],
    coarse: bool = False,
) -> ObservationModel:
    """Build the observation model of checks that draw verdicts.

    Args:
        logged: (particles, 3) accepts, rejects, invalid of each particle.
        weight: (particles,) number of logged queries that each represents.
        max_verdicts: Maximum number of verdicts that a policy may draw on one answer.
        prices: Fixed cost of a check, and cost of a verdict.
        batches: Numbers of verdicts that may be drawn at once.
        coarse: Whether to keep the number of states small: no invalid verdicts, and none beyond
            `max_verdicts`.
    """
    counts_invalid = (
        bool(logged[:, 2].any()) and math.comb(max_verdicts + 3, 3) <= MAX_STATES and not coarse
    )
    if not counts_invalid:
        logged = logged * np.array([1, 1, 0])
    longest = max_verdicts if counts_invalid or coarse else max(max_verdicts, MAX_RUN_TIME_VERDICTS)
    counts = _lattice(longest, counts_invalid)
    prior = beta_prior(logged[:, 0], logged[:, 1], weight)
    like = _beta_binomial_likelihood(counts, logged, weight, prior, counts_invalid)
    own = logged.sum(axis=1)
    pairs = (counts[:, 0], counts[:, 1]), (logged[:, 0], logged[:, 1])
    itself = prefix_likelihood(counts, logged)
    if not counts_invalid:
        beyond = counts.sum(axis=1)[:, None] > own[None, :]
        itself = np.where(beyond, longer_likelihood(*pairs, prior), itself)
    likelihood = (1 - NOVELTY) * itself + NOVELTY * like
    draws = tuple(
        CheckAction(n, prices[0] + n * prices[1], *_moves(longest, n, max_verdicts, counts_invalid))
        for n in sorted({*(b for b in batches if b <= max_verdicts), max_verdicts})
    )
    return ObservationModel((likelihood,), draws, counts=counts, counts_invalid=counts_invalid)


def _beta_binomial_likelihood(
    counts: Ints,
    logged: Ints,
    weight: Floats,
    prior: tuple[float, float],
    counts_invalid: bool,
) -> Floats:
    """Return the Beta-binomial likelihood of verdicts, and of their being valid."""
    accepts, rejects, invalid = counts.T
    like = predictive_likelihood((accepts, rejects), (logged[:, 0], logged[:, 1]), prior)
    if counts_invalid:
        valid = logged[:, 0] + logged[:, 1]
        prior = beta_prior(valid, logged[:, 2], weight)
        like = like * predictive_likelihood(
            (accepts + rejects, invalid), (valid, logged[:, 2]), prior
        )
    return like


def score_observation_model(likelihood: Floats, edges: Floats, price: float) -> ObservationModel:
    """Build the observation model of a check with a score; `likelihood` is (bins, particles)."""
    bins = len(likelihood)
    draw = CheckAction(None, price, np.array([0]), np.arange(1, bins + 1)[None, :], np.ones(bins))
    nothing = np.ones((1, likelihood.shape[1]))
    return ObservationModel((np.concatenate([nothing, likelihood]),), (draw,), edges=edges)


@lru_cache(maxsize=256)
def _lattice(max_verdicts: int, with_invalid: bool) -> Ints:
    return _fixed(
        [
            (accepts, total - accepts - invalid, invalid)
            for total in range(max_verdicts + 1)
            for invalid in range((total if with_invalid else 0) + 1)
            for accepts in range(total - invalid + 1)
        ]
    )


@lru_cache(maxsize=256)
def _moves(longest: int, n: int, most: int, with_invalid: bool) -> tuple[Ints, Ints, Floats]:
    """Return where `n` verdicts may be drawn, the target of each outcome, and its orders.

    The result is the same for every log, and a fit builds dozens of models of one shape.
    """
    counts, outcomes = _lattice(longest, with_invalid), _lattice(n, with_invalid)
    outcomes = outcomes[outcomes.sum(axis=1) == n]
    ways = [math.factorial(n) / math.prod(math.factorial(x) for x in o) for o in outcomes.tolist()]
    sources = np.flatnonzero(counts.sum(axis=1) + n <= most)
    index = {tuple(state): i for i, state in enumerate(counts.tolist())}
    targets = [
        [index[tuple(state)] for state in (counts[source] + outcomes).tolist()]
        for source in sources.tolist()
    ]
    return _fixed(sources), _fixed(targets), _fixed(ways)


def _fixed(values: Any) -> NDArray[Any]:
    """Return a read-only array, since it is shared."""
    array = np.array(values)
    array.setflags(write=False)
    return array
