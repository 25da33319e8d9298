"""The routing POMDP: particles, qualities, costs, observation models."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_automix.policy.data.arrays import Floats
from langchain_automix.policy.pomdp.observation_model import ObservationModel


@dataclass(frozen=True)
class RoutingPOMDP:
    """A POMDP to solve: particles, what checks tell about them, and prices."""

    models: tuple[int, ...]
    """Indices, in the log, of the models in play, ascending."""

    weight: Floats
    """(particles,): prior probability of each, summing to 1."""

    quality: Floats
    """(particles, models in play): quality of each answer."""

    cost: Floats
    """(models in play,): mean cost of an answer."""

    evidence: tuple[ObservationModel | None, ...]
    """The observation model of each model in play; None if its answers cannot be checked."""
