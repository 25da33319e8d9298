"""The POMDPs of several checks: of one answer, and of the last model's answers.

As in the chain of `worlds`, the particles are logged queries and their qualities are regressed on
what the checks found; here on products of two findings as well, since what one check is worth
may depend on another: whether two models agree says little where both are sure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from langchain_automix.policy.belief import BATCHES, Evidence
from langchain_automix.policy.columns import NOT_DRAWN, Columns, Floats
from langchain_automix.policy.combined import Extent, Grain, combine, grain_for
from langchain_automix.policy.solver import World
from langchain_automix.policy.worlds import (
    Shape,
    linear_quality,
    pair_worlds,
    particle_evidence,
    place_of,
)

Checks = tuple[str | None, ...]
"""Names of checks of one model's answer; None is the first."""

Grains = Mapping[str | None, Grain]
"""The checks of one model's answer, and how finely each is read."""

JOINT_STATES = 2_500
"""Findings that the checks of one answer may have together."""

CHAIN_STATES = 200_000
"""The same of the checks of all answers: many findings of the first one lead to a table each."""

SINGLE = Grain(16, 10)
"""How finely a check is read that is the only one of its model's answers."""

JOINT_PARTICLES = 800
_MOST_PRODUCTS = 6
"""Checks up to which their products are regressed on, too."""


def pair_worlds_by(
    columns: Columns,
    small: int,
    large: int,
    shapes: tuple[Shape, ...],
    most: int,
    check: str | None,
) -> dict[Shape, World]:
    """Return the POMDPs of two models and one check of the first; see `worlds.pair_worlds`."""
    worlds = pair_worlds(columns.alone(check), small, large, shapes, most)
    if check is None:
        return worlds
    return {
        shape: replace(world, evidence=(_named(world, check), None))
        for shape, world in worlds.items()
    }


def _named(world: World, check: str) -> Evidence:
    [own, _] = world.evidence
    assert own is not None  # noqa: S101  (a pair's first model is checked)
    return combine([(check, own)])


def joint_world(
    columns: Columns, models: Sequence[int], grains: Mapping[int, Grains], seed: int = 0
) -> World:
    """Return the POMDP of some models with several checks of their answers.

    Args:
        columns: Queries that all these models answered, with the same checks throughout.
        models: Indices of the models in play, ascending.
        grains: For each model whose answers are checked, its checks and how to read them.
        seed: For the choice of particles, where there are more queries than needed.
    """
    keys = [(j, name) for j in models for name in grains.get(j, {})]
    alone = {name: columns.alone(name) for _, name in keys}
    place = np.stack([place_of(alone[name], j) for j, name in keys], axis=1)
    fitted = _quality(columns, place, [j for j, _ in keys])
    few = np.arange(len(columns))
    if len(few) > JOINT_PARTICLES:
        few = np.sort(np.random.default_rng(seed).permutation(len(few))[:JOINT_PARTICLES])
    found: dict[int, list[tuple[str | None, Evidence]]] = {}
    for i, (j, name) in enumerate(keys):
        grain, is_plain = grains[j][name], list(grains[j]) == [None]
        own = particle_evidence(
            alone[name],
            j,
            few,
            place[:, i],
            grain.verdicts,
            bins=grain.bins,
            few_states=not is_plain,
        )
        found.setdefault(j, []).append((name, own))
    weight, chosen = columns.weight[few], list(models)
    return World(
        tuple(models),
        weight / weight.sum(),
        fitted[few][:, chosen],
        columns.mean(columns.cost[:, chosen]),
        tuple(_together(found[j]) if j in found else None for j in models),
    )


def _together(checks: list[tuple[str | None, Evidence]]) -> Evidence:
    """Return the evidence of all checks of one answer; of the first one alone as it always was."""
    [(name, first), *others] = checks
    return first if name is None and not others else combine(checks)


def grains_of(columns: Columns, checks: Mapping[int, Checks]) -> dict[int, Grains]:
    """Return how finely each check of each model's answers is read, so that states are few.

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
    found: dict[int, Grains] = {}
    for j, own in extents.items():
        grain = grain_for(own.values(), states) if j in several else SINGLE
        found[j] = {
            name: Grain(min(extent.most, grain.verdicts), grain.bins)
            for name, extent in own.items()
        }
    return found


def _extent(columns: Columns, model: int, name: str | None) -> Extent:
    check = columns.alone(name)
    if check.is_score(model):
        return Extent(len(np.unique(check.score[:, model])), is_score=True)
    drawn = (check.verdicts[:, model] != NOT_DRAWN).sum(axis=1)
    return Extent(min(int(drawn.min()), BATCHES[-1]), is_score=False)


def _quality(columns: Columns, place: Floats, owners: list[int]) -> Floats:
    """Regress the quality of each model on what all checks found, and on products of two."""
    features = place - 0.5
    if 1 < len(owners) <= _MOST_PRODUCTS:
        pairs = combinations(range(len(owners)), 2)
        # Twice, so that a product spans as much as its factors do.
        products = [2 * features[:, a] * features[:, b] for a, b in pairs]
        features = np.concatenate([features, np.stack(products, axis=1)], axis=1)
    centred = features - columns.mean(features)
    return linear_quality(columns, centred, [*owners, *[-1] * (features.shape[1] - len(owners))])
