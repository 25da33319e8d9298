"""The belief: which logged queries the current one resembles, given what the checks found.

The logged queries are the particles. Their prior weights times the likelihoods of the findings are
the posterior. The means of their qualities under it are the expected qualities of the models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from langchain_automix.policy.data.arrays import Floats
from langchain_automix.policy.pomdp.model import RoutingPOMDP
from langchain_automix.policy.pomdp.observation_model import ObservationModel, multiply_factors


def posterior(pomdp: RoutingPOMDP, checked: Sequence[int]) -> tuple[Floats, Floats]:
    """Return the unnormalised posterior in every state of some checked answers (Bayes' rule).

    Args:
        pomdp: The particles, with their weights and qualities.
        checked: Models whose answers were checked, ascending; at least one.

    Returns:
        The mass of each state, (states of each checked model...,): the probability of its findings
        in one particular order. And mass times expected quality, (..., models): divided by the
        mass, it is the expected quality of each model's answer.
    """
    joint = np.concatenate([pomdp.quality, np.ones((len(pomdp.weight), 1))], axis=1)
    joint = joint * pomdp.weight[:, None]
    evidence = [observation_model_of(pomdp, j) for j in checked]
    factors = [factor for each in evidence for factor in each.factors]
    shape = [each.states for each in evidence]
    table = _sum_over_particles(factors, joint).reshape(*shape, joint.shape[1])
    return table[..., -1], table[..., :-1]


def observation_model_of(pomdp: RoutingPOMDP, model: int) -> ObservationModel:
    """Return the observation model of a model's answers, which must be checkable."""
    evidence = pomdp.evidence[model]
    assert evidence is not None  # noqa: S101  (only checkable models get here)
    return evidence


def _sum_over_particles(factors: Sequence[Floats], joint: Floats) -> Floats:
    """Sum columns over the particles for every combination of states, multiplying likelihoods.

    The factors are multiplied in two halves, and the sum is the product of two matrices. So the
    likelihood of all combinations on all particles, which may take gigabytes, is never computed.

    Args:
        factors: (states, particles) each.
        joint: (particles, columns).

    Returns:
        (combinations, columns).
    """
    halves = min(
        ((factors[:cut], factors[cut:]) for cut in range(1, len(factors))),
        key=lambda pair: sum(math.prod(len(factor) for factor in half) for half in pair),
        default=None,
    )
    if halves is None:
        table: Floats = factors[0] @ joint
        return table
    left, right = (multiply_factors(half) for half in halves)
    columns = [(left * column) @ right.T for column in joint.T]
    return np.stack([column.reshape(-1) for column in columns], axis=-1)
