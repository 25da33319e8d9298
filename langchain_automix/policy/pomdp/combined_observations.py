"""Several checks of one answer as one piece of evidence: what each finds, side by side.

The states are all pairs (or triples, ...) of the checks' own states, and the likelihood of a
state is the product of theirs on each particle. A particle is a logged query and carries all
that the checks found on it, so checks that err on the same queries are modelled as
such: they are independent only given the particle.
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
"""Most verdicts and bins of a score, from fine to coarse."""


@dataclass(frozen=True)
class JointObservationModel(ObservationModel):
    """All that several checks of one answer can find, or one check that is not the first."""

    names: tuple[str | None, ...] = ()
    """Of the checks; None is the first."""

    parts: tuple[ObservationModel, ...] = ()
    """What each finds alone."""

    @property
    def totals(self) -> Ints:
        """(states,): verdicts drawn and scores taken in each state."""
        sums = np.zeros((), dtype=np.int64)
        for part in self.parts:
            sums = np.add.outer(sums, part.totals)
        return sums.reshape(-1)

    @property
    def is_one_score(self) -> bool:
        """Whether it is a score, and nothing else: a check that has a name is read by it."""
        return False

    @cached_property
    def observations(self) -> list[tuple[Observation, ...]]:
        """What each check found, in each state."""
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
    """Return the evidence of several checks of one answer.

    Args:
        checks: Name and evidence of each, all on the same particles.
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
    """Verdicts that may be drawn, or values that its score has."""

    is_score: bool

    def states(self, resolution: Resolution) -> int:
        """Return the number of states of its evidence, nothing found among them."""
        if self.is_score:
            return min(self.max_verdicts, resolution.bins) + 1
        return math.comb(min(self.max_verdicts, resolution.verdicts) + 2, 2)


@dataclass(frozen=True)
class Resolution:
    """How finely several checks are read."""

    verdicts: int
    """Most verdicts of a sampled check."""

    bins: int
    """Most bins of a score."""


def choose_resolution(checks: Iterable[ObservationSize], states: float) -> Resolution:
    """Return the finest resolution at which checks have few enough states together.

    Args:
        checks: The checks.
        states: States that they may have; the coarsest resolution where none keeps to it.
    """
    sizes = list(checks)
    resolutions = [Resolution(*step) for step in _LADDER]
    fine = (g for g in resolutions if math.prod(e.states(g) for e in sizes) <= states)
    return next(fine, resolutions[-1])
