"""A solved POMDP as a rule, which builds the row of a state only when it is read.

A fit tries hundreds of rules, and sends some dozens of queries through each, so most rows of most
tables are never read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np

from langchain_automix.policy.data.arrays import Ints
from langchain_automix.policy.decision.observation import CheckEncoding, Observation, verify_option
from langchain_automix.policy.decision.table import (
    CHECKED,
    DecisionRow,
    PlannedAction,
    fewer_findings,
)
from langchain_automix.policy.pomdp.backward_induction import (
    Action,
    InformationStates,
    Solution,
    by_simplicity,
)
from langchain_automix.policy.pomdp.belief import observation_model_of
from langchain_automix.policy.pomdp.combined_observations import JointObservationModel
from langchain_automix.policy.pomdp.observation_model import CheckAction
from langchain_automix.policy.ties import first_best, tolerances

_DIGITS = 6


class SolvedRule:
    """The best rule of a solved POMDP that opens with a check; builds its tables as it is followed.

    Args:
        solution: The solved POMDP. Its opening makes a check.
        names: Names of all models of the log.
        name: The kind of rule.
        cost_weight: Cost weight that it was solved for.
        whole: Whether the first table covers everything that several checks can find, rather than
            only what the policy reaches. A mix needs this, since its checks may be cut short.

    Attributes:
        tables: The tables known to be reached; a table leads to itself or to later ones.
    """

    def __init__(
        self,
        solution: Solution,
        names: tuple[str, ...],
        *,
        name: str,
        cost_weight: float,
        whole: bool = True,
    ) -> None:
        self.solution, self.names, self.name = solution, names, name
        self.cost_weight, self.whole = cost_weight, whole
        self.plays = solution.pomdp.models
        self.tables: list[SolvedTable] = []
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        option, _ = solution.opening
        assert option.draw is not None  # noqa: S101
        self.first_draw = option.draw
        first = self._place((option.model,), ())
        self.opening = _checking("escalate", self.plays[option.model], option.draw, first)

    def unread(self) -> SolvedRule:
        """Return the same rule, without any row read."""
        return SolvedRule(
            self.solution,
            self.names,
            name=self.name,
            cost_weight=self.cost_weight,
            whole=self.whole,
        )

    @property
    def states(self) -> int:
        """Number of states of the solved tree."""
        return sum(level.mass.size for level in self.solution.levels.values())

    def _place(self, checked: tuple[int, ...], before: tuple[int, ...]) -> int:
        """Return the number of the table for these checked models and earlier findings."""
        key = (checked, before)
        if key not in self._known:
            self._known[key] = len(self.tables)
            self.tables.append(SolvedTable(self, checked, before))
        return self._known[key]

    def step(
        self, option: Action, level: InformationStates, state: tuple[int, ...]
    ) -> PlannedAction:
        """Return what to do in a state, in the form of a table."""
        models = self.plays
        if option.action == "escalate":
            if option.draw is None:
                return PlannedAction(action="escalate", model=models[option.model], samples=0)
            then = self._place((*level.checked, option.model), state)
            return _checking("escalate", models[option.model], option.draw, then)
        if option.action == "verify" and option.draw is not None:
            then = self._place(level.checked, state[:-1])
            return _checking("verify", models[option.model], option.draw, then)
        if option.action == "abstain":
            return PlannedAction(action="abstain", model=models[level.checked[-1]])
        # If answers are tied, the latest is kept, since it comes from the largest of these models.
        latest_first = level.checked[::-1]
        if len(latest_first) == 1:
            return PlannedAction(action="answer", model=models[latest_first[0]])
        best = first_best(level.quality[state][list(latest_first)] / max(level.mass[state], 1e-300))
        return PlannedAction(action="answer", model=models[latest_first[best]])

    def label(self, option: Action) -> str:
        """Return the name of an option in the values of a row."""
        if option.action in ("answer", "abstain"):
            return option.action
        if option.action == "verify" and option.draw is not None:
            return verify_option(option.draw.check, option.draw.samples)
        name = self.names[self.plays[option.model]]
        return f"escalate:{name}" if option.draw is None else f"escalate:{name}{CHECKED}"


def _checking(action: str, model: int, draw: CheckAction, then: int) -> PlannedAction:
    return PlannedAction.model_validate(
        {
            "action": action,
            "model": model,
            "samples": draw.samples,
            "then": then,
            "check": draw.check,
        }
    )


@dataclass(eq=False)
class SolvedTable:
    """What a solved POMDP does after each finding of the checks of one answer."""

    rule: SolvedRule
    checked: tuple[int, ...]
    """Models whose answers have been checked; the table reads the checks of the last one."""

    before: tuple[int, ...]
    """States of the checks of the earlier models."""

    def __post_init__(self) -> None:
        self.level = self.rule.solution.levels[self.checked]
        self.evidence = observation_model_of(self.rule.solution.pomdp, self.checked[-1])
        self.is_of_several = isinstance(self.evidence, JointObservationModel)
        self._rows: dict[int, SolvedRow] = {}
        self._steps: dict[int, PlannedAction] = {}

    @property
    def model(self) -> int:
        """Index of the model whose checks the table reads."""
        return self.rule.plays[self.checked[-1]]

    @property
    def checks(self) -> tuple[CheckEncoding, ...]:
        """The same as in a `DecisionTable`."""
        return self.evidence.readings if self.is_of_several else ()

    @property
    def encodings(self) -> tuple[CheckEncoding, ...]:
        """The same as in a `DecisionTable`."""
        return self.evidence.readings

    def row_for(self, observations: Sequence[Observation]) -> SolvedRow | None:
        """Return the row for what the checks found, in the same way as a `DecisionTable`."""
        nothing = [encoding.nothing for encoding in self.encodings]
        for read in fewer_findings(observations, nothing):
            state = self.evidence.places.get(read)
            if state is not None and state in self._covered:
                if state not in self._rows:
                    self._rows[state] = SolvedRow(self, state)
                return self._rows[state]
        return None

    def row(self, state: int, chance: float = 0.0) -> DecisionRow:
        """Return the row of a state of the last model's checks.

        Args:
            state: The state.
            chance: How often a decision is made in it.
        """
        seen = self.evidence.observations[state]
        return DecisionRow(
            seen=(state - 1,) if self.evidence.is_one_score else tuple(chain.from_iterable(seen)),
            step=self.step(state),
            chance=chance,
            quality=self.quality(state),
            values=self.values(state),
        )

    def step(self, state: int) -> PlannedAction:
        """Return what to do in a state of the last model's checks."""
        level, place = self.level, (*self.before, state)
        best = int(level.chosen[place])
        option = level.options[best]
        is_deep = self.is_of_several or bool(self.before)
        if is_deep and option.action == "escalate" and option.draw and not self.chances[state]:
            return self.rule.step(self._unchecked(place), level, place)
        if option.action in ("answer", "escalate") and (option.draw or len(self.checked) > 1):
            return self.rule.step(option, level, place)
        if best not in self._steps:  # the step is the same in every state
            self._steps[best] = self.rule.step(option, level, place)
        return self._steps[best]

    def quality(self, state: int) -> tuple[float, ...]:
        """Return the expected quality of each model in play."""
        place = (*self.before, state)
        mass = max(float(self.level.mass[place]), 1e-300)
        qualities = self.level.quality[place].tolist()
        return tuple([round(min(max(q / mass, 0.0), 1.0), _DIGITS) for q in qualities])

    def values(self, state: int) -> dict[str, float]:
        """Return the expected remaining utility of each possible option."""
        level, place = self.level, (*self.before, state)
        mass = max(float(level.mass[place]), 1e-300)
        values: dict[str, float] = {}
        for label, value in zip(self._labels, level.values, strict=True):
            worth = float(value[place]) / mass
            if math.isfinite(worth):
                values[label] = max(values.get(label, worth), worth)
        return {label: round(worth, _DIGITS) for label, worth in values.items()}

    @cached_property
    def _labels(self) -> list[str]:
        return [self.rule.label(option) for option in self.level.options]

    def _unchecked(self, state: tuple[int, ...]) -> Action:
        """Return the best action without a further check, for states that the plan never reaches.

        Each check of a later model needs its own table, and a deep tree has many such states.
        """
        level = self.level
        plain = [p for p in by_simplicity(level.options) if level.options[p].draw is None]
        mass = max(float(level.mass[state]), 1e-300)
        best = first_best([float(level.values[place][state]) / mass for place in plain])
        return level.options[plain[best]]

    @cached_property
    def chances(self) -> list[float]:
        """How often a decision is made in each state, by following the policy forward."""
        level, mass = self.level, self.level.mass[self.before]
        best = level.chosen[self.before].tolist()
        orders = np.zeros(len(mass))  # number of orders of verdicts that lead here under the policy
        orders[0] = 1.0
        for state in range(len(mass)):
            draw = self._first_draw if state == 0 else self._draws[best[state]]
            if draw is None or orders[state] == 0:
                continue
            row = int(np.searchsorted(draw.sources, state))
            np.add.at(orders, draw.targets[row], orders[state] * draw.ways)
        orders[0] = 0.0
        chances = orders * mass / max(float(mass[0]), 1e-300)
        return [round(min(max(c, 0.0), 1.0), _DIGITS) for c in chances.tolist()]

    @cached_property
    def _draws(self) -> list[CheckAction | None]:
        """For each option, the check of the same answer that it buys."""
        return [option.draw if option.action == "verify" else None for option in self.level.options]

    @cached_property
    def _first_draw(self) -> CheckAction:
        """The check that follows the answer."""
        if not self.before:
            return self.rule.first_draw
        level, state = self.level, (*self.before, 0)
        mass = max(float(level.mass[state]), 1e-300)
        bought = [
            (float(level.values[place][state]) / mass, draw)
            for place in by_simplicity(level.options)
            if (draw := self._draws[place]) is not None
        ]
        return bought[first_best([value for value, _ in bought])][1]

    @property
    def states(self) -> Sequence[int]:
        """The states that get a row, ascending.

        With several checks, the table of the first checked answer has all states if the plan is
        written whole. Other tables cover only what the policy can reach, even if some checks find
        nothing.
        """
        if not self.is_of_several:
            return range(1, self.evidence.states)
        if not self.before and self.rule.whole:
            return range(self.evidence.states)
        return sorted(self._covered)

    @cached_property
    def _covered(self) -> frozenset[int] | range:
        if self.is_of_several and (self.before or not self.rule.whole):
            return self._reached()
        states = self.states
        assert isinstance(states, range)  # noqa: S101
        return states

    def _reached(self) -> frozenset[int]:
        """Return the states that the policy can reach, even if some checks find nothing."""
        chosen: dict[frozenset[str | None], list[int]] = {}
        start = (0, frozenset[str | None]())
        waiting: list[tuple[tuple[int, frozenset[str | None]], CheckAction | None]]
        waiting = [(start, self._first_draw)]
        known = {start}
        while waiting:
            (state, failed), draw = waiting.pop()
            if draw is None:
                continue
            after = draw.targets[int(np.searchsorted(draw.sources, state))].tolist()
            for place in [(s, failed) for s in after] + [(state, failed | {draw.check})]:
                if place not in known:
                    known.add(place)
                    if place[1] not in chosen:
                        chosen[place[1]] = self._chosen_without(place[1]).tolist()
                    waiting.append((place, self._draws[chosen[place[1]][place[0]]]))
        return frozenset(state for state, _ in known)

    def _chosen_without(self, failed: frozenset[str | None]) -> Ints:
        """Return the best option in each state after some checks failed, without repeating them."""
        if not failed:
            chosen: Ints = self.level.chosen[self.before]
            return chosen
        possible = [
            place
            for place in by_simplicity(self.level.options)
            if (draw := self._draws[place]) is None or draw.check not in failed
        ]
        mass = np.maximum(self.level.mass[self.before], 1e-300)
        share = np.stack([self.level.values[place][self.before] for place in possible]) / mass
        best = share.max(axis=0)
        first: Ints = np.argmax(share >= best - tolerances(best), axis=0)
        without: Ints = np.array(possible)[first]
        return without


@dataclass(eq=False)
class SolvedRow:
    """What a solved POMDP does in one state; what a replay seldom reads is built on demand."""

    table: SolvedTable
    state: int

    def __post_init__(self) -> None:
        self.step = self.table.step(self.state)

    @property
    def quality(self) -> tuple[float, ...]:
        """The same as in a `DecisionRow`."""
        return self.table.quality(self.state)

    @property
    def values(self) -> dict[str, float]:
        """The same as in a `DecisionRow`."""
        return self.table.values(self.state)

    def whole(self) -> DecisionRow:
        """Return the complete row."""
        return self.table.row(self.state)
