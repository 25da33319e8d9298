"""Extract the plan for the policy file from a solved POMDP."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from langchain_automix.policy.data.arrays import Ints
from langchain_automix.policy.decision.observation import verify_option
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.table import (
    CHECKED,
    DecisionRow,
    DecisionTable,
    PlannedAction,
)
from langchain_automix.policy.pomdp.backward_induction import (
    Action,
    InformationStates,
    Solution,
    by_simplicity,
)
from langchain_automix.policy.pomdp.combined_observations import JointObservationModel
from langchain_automix.policy.pomdp.observation_model import CheckAction
from langchain_automix.policy.ties import first_best

_DIGITS = 6


@dataclass
class _PlanBuilder:
    """Writes the tables that a policy can reach, from the opening on."""

    solution: Solution
    names: tuple[str, ...]
    whole: bool = True
    tables: list[DecisionTable] = field(default_factory=list)
    waiting: deque[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=deque)
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = field(default_factory=dict)

    def place(self, checked: tuple[int, ...], before: tuple[int, ...]) -> int:
        """Return the number of the table for these checked models and earlier findings."""
        key = (checked, before)
        if key not in self.known:
            self.known[key] = len(self.known)
            self.waiting.append(key)
        return self.known[key]

    def step(
        self, option: Action, level: InformationStates, state: tuple[int, ...]
    ) -> PlannedAction:
        models = self.solution.pomdp.models
        if option.action == "escalate":
            if option.draw is None:
                return PlannedAction(action="escalate", model=models[option.model], samples=0)
            then = self.place((*level.checked, option.model), state)
            return _checking("escalate", models[option.model], option.draw, then)
        if option.action == "verify" and option.draw is not None:
            then = self.place(level.checked, state[:-1])
            return _checking("verify", models[option.model], option.draw, then)
        if option.action == "abstain":
            return PlannedAction(action="abstain", model=models[level.checked[-1]])
        # Of tied answers the latest: it comes from the largest of these models.
        latest_first = level.checked[::-1]
        best = first_best(level.quality[state][list(latest_first)] / max(level.mass[state], 1e-300))
        kept = latest_first[best]
        return PlannedAction(action="answer", model=models[kept])


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


def extract_plan(
    solution: Solution,
    names: tuple[str, ...],
    *,
    label: str,
    cost_weight: float,
    whole: bool = True,
) -> Plan:
    """Return the best plan of a solved POMDP, with the tables that it can reach.

    Args:
        solution: The solved POMDP.
        names: Names of all models of the log.
        label: What kind of rule it is.
        cost_weight: Cost weight that it was solved for.
        whole: Whether the first table covers everything that several checks can find, not only
            what the policy reaches: for use in a mix, where checks may be cut short.
    """
    writer = _PlanBuilder(solution, names, whole)
    pomdp = solution.pomdp
    option, _ = solution.opening
    if option.draw is None:
        index = pomdp.models[option.model]
        opening = PlannedAction(action="escalate", model=index, samples=0)
        return Plan(name=f"always:{names[index]}", opening=opening, plays=(index,))
    first = writer.place((option.model,), ())
    opening = _checking("escalate", pomdp.models[option.model], option.draw, first)
    while writer.waiting:
        checked, before = writer.waiting.popleft()
        writer.tables.append(_table(writer, checked, before, option.draw))
    return Plan(
        name=label,
        opening=opening,
        plays=pomdp.models,
        tables=tuple(writer.tables),
        cost_weight=cost_weight,
    )


def _table(
    writer: _PlanBuilder, checked: tuple[int, ...], before: tuple[int, ...], first: CheckAction
) -> DecisionTable:
    level = writer.solution.levels[checked]
    pomdp = writer.solution.pomdp
    evidence = pomdp.evidence[checked[-1]]
    assert evidence is not None  # noqa: S101  (checked models can be checked)
    best = level.chosen[before]
    chance = _chances(level, before, best, first)
    places = best.tolist()
    states: Sequence[int] = range(1, len(places))
    if isinstance(evidence, JointObservationModel):
        states = _states(writer, level, before, evidence, first)
        shape: dict[str, Any] = {"kind": "several", "checks": evidence.readings}
    else:
        shape = {
            "kind": "score" if evidence.counts is None else "verdicts",
            "counts_invalid": evidence.counts_invalid,
            "edges": tuple(evidence.edges.tolist()),
        }
    rows = tuple(
        _row(writer, level, (*before, s), places[s], chance[s], draft)
        for s, draft in zip(states, _drafts(writer, level, before, states), strict=True)
    )
    return DecisionTable(model=pomdp.models[checked[-1]], rows=rows, **shape)


def _states(
    writer: _PlanBuilder,
    level: InformationStates,
    before: tuple[int, ...],
    evidence: JointObservationModel,
    first: CheckAction,
) -> Sequence[int]:
    """Return the states of several checks that get a row.

    All of them in the table of the first answer that is checked, if the plan is written whole.
    Other tables cover only what the policy can reach, even if some checks find nothing.
    """
    if not before and writer.whole:
        return range(evidence.states)
    values = np.stack([value[before] for value in level.values])
    best, draws = level.chosen[before], [option.draw for option in level.options]
    own = [option.action == "verify" for option in level.options]
    order = by_simplicity(level.options)

    def bought(state: int, failed: frozenset[str | None]) -> CheckAction | None:
        if not failed:
            place = int(best[state])
        else:
            left = [not (o and d and d.check in failed) for o, d in zip(own, draws, strict=True)]
            possible = [place for place in order if left[place]]
            share = values[possible, state] / max(float(level.mass[before][state]), 1e-300)
            place = possible[first_best(share)]
        return draws[place] if own[place] else None

    start = (0, frozenset[str | None]())
    waiting: list[tuple[tuple[int, frozenset[str | None]], CheckAction | None]]
    waiting = [(start, _first_draw(level, first, before))]
    known = {start}
    while waiting:
        (state, failed), draw = waiting.pop()
        if draw is None:
            continue
        after = draw.targets[int(np.searchsorted(draw.sources, state))].tolist()
        for place in [(s, failed) for s in after] + [(state, failed | {draw.check})]:
            if place not in known:
                known.add(place)
                waiting.append((place, bought(*place)))
    return sorted({state for state, _ in known})


def _chances(
    level: InformationStates, before: tuple[int, ...], best: Ints, first: CheckAction
) -> list[float]:
    """Return how often each state is decided in, walking the policy forward."""
    mass = level.mass[before]
    orders = np.zeros(len(mass))  # number of orders of verdicts that lead here under the policy
    batches = {
        place: option.draw
        for place, option in enumerate(level.options)
        if option.action == "verify" and option.draw is not None
    }
    draws = {0: _first_draw(level, first, before)}
    orders[0] = 1.0
    for state in range(len(mass)):
        draw = draws.get(state) if state == 0 else batches.get(int(best[state]))
        if draw is None or orders[state] == 0:
            continue
        row = int(np.searchsorted(draw.sources, state))
        np.add.at(orders, draw.targets[row], orders[state] * draw.ways)
    orders[0] = 0.0
    chances = orders * mass / max(float(mass[0]), 1e-300)
    return [round(min(max(c, 0.0), 1.0), _DIGITS) for c in chances.tolist()]


def _first_draw(
    level: InformationStates, first: CheckAction, before: tuple[int, ...]
) -> CheckAction:
    if not before:
        return first
    state = (*before, 0)
    mass = max(float(level.mass[state]), 1e-300)
    bought = [
        (float(level.values[place][state]) / mass, draw)
        for place in by_simplicity(level.options)
        if level.options[place].action == "verify"
        and (draw := level.options[place].draw) is not None
    ]
    return bought[first_best([value for value, _ in bought])][1]


@dataclass(frozen=True)
class _RowValues:
    """The contents of a row, without the step."""

    seen: tuple[int, ...]
    quality: tuple[float, ...]
    values: dict[str, float]


def _drafts(
    writer: _PlanBuilder, level: InformationStates, before: tuple[int, ...], states: Sequence[int]
) -> list[_RowValues]:
    """Return the drafts of some rows of a table.

    Arrays become lists once: a fit tries hundreds of tables, and most of its time went into
    taking their numbers out one by one.
    """
    evidence = writer.solution.pomdp.evidence[level.checked[-1]]
    assert evidence is not None  # noqa: S101
    seen: Sequence[Sequence[int]]
    if isinstance(evidence, JointObservationModel):
        seen = evidence.findings
    elif evidence.counts is None:
        seen = [[s - 1] for s in range(evidence.states)]
    else:
        seen = evidence.counts.tolist()
    labels = [_label(writer, option) for option in level.options]
    rows = np.array(states)
    masses = np.maximum(level.mass[before][rows], 1e-300)
    qualities = np.clip(level.quality[before][rows] / masses[:, None], 0.0, 1.0).tolist()
    worths = [(value[before][rows] / masses).tolist() for value in level.values]
    found = []
    for i, s in enumerate(states):
        values: dict[str, float] = {}
        for label, worth in zip(labels, worths, strict=True):
            if math.isfinite(worth[i]):
                values[label] = max(values.get(label, worth[i]), worth[i])
        quality = tuple(round(q, _DIGITS) for q in qualities[i])
        rounded = {label: round(worth, _DIGITS) for label, worth in values.items()}
        found.append(_RowValues(tuple(seen[s]), quality, rounded))
    return found


def _row(
    writer: _PlanBuilder,
    level: InformationStates,
    state: tuple[int, ...],
    best: int,
    chance: float,
    draft: _RowValues,
) -> DecisionRow:
    option = level.options[best]
    several = isinstance(writer.solution.pomdp.evidence[level.checked[-1]], JointObservationModel)
    many = several or bool(state[:-1])
    if option.action == "escalate" and option.draw is not None and chance == 0 and many:
        option = _unchecked(level, state)
    return DecisionRow(
        seen=draft.seen,
        step=writer.step(option, level, state),
        chance=chance,
        quality=draft.quality,
        values=draft.values,
    )


def _unchecked(level: InformationStates, state: tuple[int, ...]) -> Action:
    """Return the best action without a further check, for states that the plan never sees.

    Each check of a later model needs its own table, and a deep tree has many such states.
    """
    plain = [place for place in by_simplicity(level.options) if level.options[place].draw is None]
    mass = max(float(level.mass[state]), 1e-300)
    best = first_best([float(level.values[place][state]) / mass for place in plain])
    return level.options[plain[best]]


def _label(writer: _PlanBuilder, option: Action) -> str:
    if option.action in ("answer", "abstain"):
        return option.action
    if option.action == "verify" and option.draw is not None:
        return verify_option(option.draw.check, option.draw.samples)
    name = writer.names[writer.solution.pomdp.models[option.model]]
    return f"escalate:{name}" if option.draw is None else f"escalate:{name}{CHECKED}"
