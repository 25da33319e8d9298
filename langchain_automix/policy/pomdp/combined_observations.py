"""Combine several checks of one answer into one observation model.

The states are all pairs (or triples, ...) of the checks' own states, and the likelihood of a state
is the product of theirs on each particle. A particle is a logged query, and carries everything that
the checks found on it. Checks that err on the same queries are therefore modelled as such: they are
independent only given the particle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from langchain_automix.policy.data.arrays import Ints
from langchain_automix.policy.decision.observation import CheckEncoding, Observation
from langchain_automix.policy.pomdp.observation_model import CheckAction, ObservationModel

_LADDER = (
    (16, 24),
    (16, 16),
    (8, 12),
    (8, 10),
    (8, 8),
    (8, 6),
    (8, 5),
    (8, 4),
    (4, 6),
    (4, 4),
    (4, 3),
    (3, 3),
    (2, 3),
    (2, 2),
    (1, 2),
)
"""Maximum number of verdicts and of score bins, from fine to coarse."""


@dataclass(frozen=True)
class JointObservationModel(ObservationModel):
    """Everything that several checks of one answer can find, or one check that is not the first."""

    names: tuple[str | None, ...] = ()
    """Names of the checks; None is the first."""

    parts: tuple[ObservationModel, ...] = ()
    """The observation model of each check alone."""

    @property
    def totals(self) -> Ints:
        """(states,): number of verdicts drawn and scores taken in each state."""
        sums = np.zeros((), dtype=np.int64)
        for part in self.parts:
            sums = np.add.outer(sums, part.totals)
        return sums.reshape(-1)

    @property
    def is_one_score(self) -> bool:
        """Return False: even a single score is read by its name here."""
        return False

    @cached_property
    def observations(self) -> list[tuple[Observation, ...]]:
        """The findings of each check, in each state."""
        found: list[tuple[Observation, ...]] = [()]
        for part in self.parts:
            found = [before + more for before in found for more in part.observations]
        return found

    @cached_property
    def readings(self) -> tuple[CheckEncoding, ...]:
        """How a table reads the checks."""
        return tuple(
            CheckEncoding.model_validate({**part.readings[0].model_dump(), "name": name})
            for name, part in zip(self.names, self.parts, strict=True)
        )


def combine(checks: Sequence[tuple[str | None, ObservationModel]]) -> JointObservationModel:
    """Combine several checks of one answer.

    Args:
        checks: Name and observation model of each check, all on the same particles.
    """
    names, parts = zip(*checks, strict=True)
    shape = [part.states for part in parts]
    states_of = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    draws = tuple(
        _among(states_of, axis, replace(draw, check=name))
        for axis, (name, part) in enumerate(checks)
        for draw in part.draws
    )
    factors = tuple(factor for part in parts for factor in part.factors)
    return JointObservationModel(factors, draws, names=names, parts=parts)


def _among(states_of: Ints, axis: int, draw: CheckAction) -> CheckAction:
    """Return the action of one check, for any findings of the others."""
    sources = np.take(states_of, draw.sources, axis=axis).reshape(-1)
    targets = np.take(states_of, draw.targets.T, axis=axis)  # (..., outcomes, sources, ...)
    targets = np.moveaxis(targets, axis, -1).reshape(len(sources), -1)
    order = np.argsort(sources)
    return replace(draw, sources=sources[order], targets=targets[order])


@dataclass(frozen=True)
class ObservationSize:
    """How much one check can find."""

    max_verdicts: int
    """Number of verdicts that may be drawn, or number of values that its score has."""

    is_score: bool

    def states(self, resolution: Resolution) -> int:
        """Return the number of states of the check, including the one without findings."""
        if self.is_score:
            return min(self.max_verdicts, resolution.bins) + 1
        return math.comb(min(self.max_verdicts, resolution.verdicts) + 2, 2)


@dataclass(frozen=True)
class Resolution:
    """How finely several checks are read."""

    verdicts: int
    """Maximum number of verdicts of a sampled check."""

    bins: int
    """Maximum number of bins of a score."""


def choose_resolution(checks: Iterable[ObservationSize], states: float) -> Resolution:
    """Return the finest resolution at which the checks together have few enough states.

    Args:
        checks: The checks.
        states: Maximum number of states; if no resolution complies, the coarsest is returned.
    """
    sizes = list(checks)
    resolutions = [Resolution(*step) for step in _LADDER]
    fine = (g for g in resolutions if math.prod(e.states(g) for e in sizes) <= states)
    return next(fine, resolutions[-1])
