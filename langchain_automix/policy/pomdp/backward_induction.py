"""Solve the POMDP by backward induction over everything that checks can find.

The state of knowledge consists of the models that have answered and the findings of the checks of
their answers so far. It determines the belief, so the tree of beliefs is a finite table that is
worked through from its leaves (AutoMix, appendix A.3; stopping as in section 4 of Wald, "Sequential
Analysis"). Values are kept unnormalised, as sums over particles, so that nothing is ever divided by
a small probability.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np

from langchain_automix.policy.data.arrays import Floats, Ints
from langchain_automix.policy.pomdp.belief import posterior
from langchain_automix.policy.pomdp.model import RoutingPOMDP
from langchain_automix.policy.pomdp.observation_model import (
    CheckAction,
)
from langchain_automix.policy.ties import TIE, first_best

TREE_LIMIT = 2_000_000
"""Maximum number of states in one solution; beyond it, fewer answers of a query are checked."""


@dataclass(frozen=True)
class Action:
    """One possible action in a state."""

    action: Literal["answer", "verify", "escalate", "abstain"]
    model: int = -1
    """Index, among the models in play, of the model that is asked or whose answer is checked."""

    draw: CheckAction | None = None
    """The check that is bought; None if none is."""

    @property
    def complexity(self) -> tuple[int, int]:
        """Verdicts drawn at once, where a score counts as one, then further models asked."""
        verdicts = 0 if self.draw is None else (self.draw.samples or 1)
        return verdicts, int(self.action == "escalate")


@dataclass
class InformationStates:
    """The states in which the answers of `checked` models have been checked."""

    checked: tuple[int, ...]
    mass: Floats
    """(states of each checked model...,): probability of each, in one particular order of
    verdicts."""

    quality: Floats
    """(..., models): mass times expected quality."""

    options: list[Action] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    """Mass times expected remaining utility of each action; -inf if it is not possible."""

    best: Floats = field(default_factory=lambda: np.empty(0))
    """(...): mass times the best of the values."""

    @cached_property
    def chosen(self) -> Ints:
        """(...): index of the best action; the simplest one if tied."""
        best = np.max(self.values, axis=0)
        least = best - TIE * np.maximum(self.mass, np.abs(best))
        chosen = np.zeros(self.mass.shape, dtype=np.int64)
        for index in reversed(by_simplicity(self.options)):
            chosen[self.values[index] >= least] = index
        return chosen


@dataclass(frozen=True)
class Solution:
    """A solved POMDP."""

    pomdp: RoutingPOMDP
    levels: dict[tuple[int, ...], InformationStates]
    openings: tuple[tuple[Action, float], ...]
    """First steps and their expected utility."""

    depth: int
    """Maximum number of a query's answers that are checked."""

    @property
    def opening(self) -> tuple[Action, float]:
        """The best first step; the simplest one if tied."""
        order = by_simplicity([action for action, _ in self.openings])
        best = first_best([self.openings[index][1] for index in order])
        return self.openings[order[best]]


def by_simplicity(actions: Sequence[Action]) -> list[int]:
    """Return the indices of actions, the simplest first; ties keep their order."""
    return sorted(range(len(actions)), key=lambda index: actions[index].complexity)


def solve(
    pomdp: RoutingPOMDP,
    cost_weight: float,
    *,
    abstain_value: float | None = None,
    limit: int = TREE_LIMIT,
) -> Solution:
    """Solve a POMDP exactly, if its tree has at most `limit` states.

    A larger tree is cut: the search is limited to policies that check the answers of at most
    `depth` models per query. Within this limit it is exact, with the largest depth that fits.

    Args:
        pomdp: The POMDP.
        cost_weight: How much quality one unit of cost is worth, at least 0.
        abstain_value: Utility of giving no answer. None: abstaining is not allowed.
        limit: Maximum number of states in the tree.
    """
    depth = _depth(pomdp, limit)
    levels: dict[tuple[int, ...], InformationStates] = {}
    checkable = [j for j, evidence in enumerate(pomdp.evidence) if evidence is not None]
    for size in range(depth, 0, -1):
        for checked in combinations(checkable, size):
            level = _stop_options(pomdp, checked, cost_weight, abstain_value)
            _escalate_with_check(pomdp, level, levels, cost_weight)
            _verify_options(pomdp, level, cost_weight)
            levels[checked] = level
    return Solution(pomdp, levels, tuple(_first_actions(pomdp, levels, cost_weight)), depth)


def _depth(pomdp: RoutingPOMDP, limit: int) -> int:
    sizes = sorted((e.states for e in pomdp.evidence if e is not None), reverse=True)
    depth = len(sizes)
    while depth > 1 and math.prod(sizes[:depth]) > limit:
        depth -= 1
    return depth


def _stop_options(
    pomdp: RoutingPOMDP, checked: tuple[int, ...], cost_weight: float, abstain_value: float | None
) -> InformationStates:
    """Value the actions without a further check: keep, abstain, or ask a model unchecked."""
    mass, quality = posterior(pomdp, checked)
    level = InformationStates(checked, mass=mass, quality=quality)
    level.options.append(Action("answer"))
    level.values.append(level.quality[..., list(checked)].max(axis=-1))
    if abstain_value is not None:
        level.options.append(Action("abstain"))
        level.values.append(abstain_value * level.mass)
    for j in range(checked[-1] + 1, len(pomdp.models)):
        level.options.append(Action("escalate", j))
        level.values.append(level.quality[..., j] - cost_weight * pomdp.cost[j] * level.mass)
    return level


def _escalate_with_check(
    pomdp: RoutingPOMDP,
    level: InformationStates,
    levels: dict[tuple[int, ...], InformationStates],
    cost_weight: float,
) -> None:
    for j in range(level.checked[-1] + 1, len(pomdp.models)):
        following = levels.get((*level.checked, j))
        if following is None:
            continue
        # State 0 of the last model: it has answered, and the first check is about to be bought.
        for option, value in _first_checks(following, j):
            level.options.append(option)
            level.values.append(value - cost_weight * pomdp.cost[j] * level.mass)


def _first_checks(level: InformationStates, model: int) -> Iterator[tuple[Action, Floats]]:
    for option, value in zip(level.options, level.values, strict=True):
        if option.action == "verify":
            yield Action("escalate", model, option.draw), value[..., 0]


def _verify_options(pomdp: RoutingPOMDP, level: InformationStates, cost_weight: float) -> None:
    """Value further verdicts on the latest answer, from the most drawn back to none."""
    last = level.checked[-1]
    evidence = pomdp.evidence[last]
    assert evidence is not None  # noqa: S101
    level.best = best = np.max(level.values, axis=0)
    further = [np.full_like(level.mass, -np.inf) for _ in evidence.draws]
    for steps in evidence.backwards:
        for k, sources, targets in steps:
            draw = evidence.draws[k]
            price = cost_weight * draw.price * level.mass.take(sources, axis=-1)
            value = best.take(targets, axis=-1) @ draw.ways - price
            further[k][..., sources] = value
            # Each draw leads to a state with more draws, so no draw of this step reads a new value.
            best[..., sources] = np.maximum(best.take(sources, axis=-1), value)
    for draw, value in zip(evidence.draws, further, strict=True):
        level.options.append(Action("verify", last, draw))
        level.values.append(value)


def _first_actions(
    pomdp: RoutingPOMDP, levels: dict[tuple[int, ...], InformationStates], cost_weight: float
) -> Iterator[tuple[Action, float]]:
    means = pomdp.weight @ pomdp.quality
    for j in range(len(pomdp.models)):
        price = cost_weight * float(pomdp.cost[j])
        yield Action("escalate", j), float(means[j]) - price
        if (j,) in levels:
            for option, value in _first_checks(levels[j,], j):
                yield option, float(value) - price
