"""Look up what a plan does after an observation, for routers and replays alike."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from langchain_automix.policy.decision.observation import (
    CheckEncoding,
    Observation,
    parse_verify_option,
)
from langchain_automix.policy.decision.table import (
    CHECKED,
    DecisionRow,
    DecisionTable,
    PlannedAction,
)


class Row(Protocol):
    """What to do after one observation, and why; a `DecisionRow` is one."""

    @property
    def step(self) -> PlannedAction:
        """What to do."""

    @property
    def quality(self) -> tuple[float, ...]:
        """Expected quality of each model in play."""

    @property
    def values(self) -> Mapping[str, float]:
        """Expected remaining utility of each option."""

    def whole(self) -> DecisionRow:
        """Return the complete row."""


AnyRow_co = TypeVar("AnyRow_co", bound=Row, covariant=True)


class Table(Protocol[AnyRow_co]):
    """What to do after each observation; a `DecisionTable` is one."""

    @property
    def model(self) -> int:
        """Index of the model whose checks it reads."""

    @property
    def checks(self) -> tuple[CheckEncoding, ...]:
        """How each check is read if there are several; else empty."""

    @property
    def encodings(self) -> tuple[CheckEncoding, ...]:
        """How each check is read, even if there is only one."""

    def row_for(self, observations: Sequence[Observation]) -> AnyRow_co | None:
        """Return the row for what the checks found, or None if there is none."""


class Rule(Protocol):
    """Anything that can be followed step by step; a `Plan` is one."""

    @property
    def name(self) -> str:
        """The kind of rule."""

    @property
    def opening(self) -> PlannedAction:
        """The first step."""

    @property
    def plays(self) -> tuple[int, ...]:
        """Indices of the models in play, ascending."""

    @property
    def tables(self) -> Sequence[Table[Row]]:
        """The tables that steps lead to; more may be added while the rule is followed."""

    @property
    def cost_weight(self) -> float:
        """Cost weight that the rule was solved for."""


def next_action(
    plan: Rule,
    table: Table[AnyRow_co],
    observations: Sequence[Observation],
    spent: Collection[str | None],
    answered: Collection[int],
    names: Sequence[str],
) -> AnyRow_co | DecisionRow | None:
    """Return the row for what the checks of an answer found; its step is the next one to take.

    A step that repeats a spent check is replaced by the best option that does not.

    Args:
        plan: The plan.
        table: The plan's table that reads these checks.
        observations: What each check of `table.encodings` found.
        spent: Names of the checks that can tell nothing more; None is the first check.
        answered: Indices of the models that have answered.
        names: Names of all models.

    Returns:
        The row; None if there is no evidence that the table reads (see `next_in_play`).
    """
    if not any(map(any, observations)) and len(spent) >= len(table.checks):
        return None
    row = table.row_for(observations)
    if row is None or row.step.action != "verify" or row.step.check not in spent:
        return row
    left = {encoding.name for encoding in table.encodings} - set(spent)

    def is_possible(option: str) -> bool:
        return not option.startswith("verify") or parse_verify_option(option)[0] in left

    return restrict(row, plan, answered, names, is_possible)


def mixture(rows: Sequence[DecisionRow | None]) -> DecisionRow | None:
    """Return the mean of several rows, weighted by their chances, if only one of them can apply.

    It has the first row's step. If the step is settled, all rows share it.
    """
    first, *others = rows
    if first is None or not others:
        return first
    alike = (first.values.keys(), len(first.quality))
    known = [row for row in rows if row and (row.values.keys(), len(row.quality)) == alike]
    weights = [row.chance for row in known]
    if not any(weights):
        weights = [1.0] * len(known)

    def mean(numbers: Iterable[float]) -> float:
        return math.fsum(map(operator.mul, weights, numbers)) / math.fsum(weights)

    values = {option: mean(row.values[option] for row in known) for option in first.values}
    quality = tuple(mean(column) for column in zip(*(row.quality for row in known), strict=True))
    chance = math.fsum(row.chance for row in known)
    update = {"values": values, "quality": quality, "chance": min(1.0, chance)}
    return first.model_copy(update=update)


def next_in_play(plan: Rule, model: int) -> int | None:
    """Return the model to ask next, without a check, if nothing is known about a model's answer."""
    return next((later for later in plan.plays if later > model), None)


def restrict(
    row: Row,
    plan: Rule,
    answered: Collection[int],
    names: Sequence[str],
    is_possible: Callable[[str], bool],
) -> DecisionRow:
    """Replace the step of a row, which is not possible, by the best of its possible options."""
    values = {option: value for option, value in row.values.items() if is_possible(option)}
    # It is not known here which table would read the check of a later model's answer.
    known = [option for option in values if not option.endswith(CHECKED)]
    best = max(known, key=lambda option: values[option], default="answer")
    step = step_for(best, row, plan, answered, names)
    return row.whole().model_copy(update={"step": step, "values": values})


def step_for(
    option: str, row: Row, plan: Rule, answered: Collection[int], names: Sequence[str]
) -> PlannedAction:
    """Return the step for an option other than the row's own."""
    if option == "abstain":
        return PlannedAction(action="abstain", model=max(answered))
    if option.startswith("escalate:"):
        later = names.index(option.removeprefix("escalate:"))
        return PlannedAction(action="escalate", model=later, samples=0)
    if option.startswith("verify"):
        check, samples = parse_verify_option(option)
        return row.step.model_copy(update={"check": check, "samples": samples})
    return PlannedAction(action="answer", model=best_answer(row, plan, answered))


def best_answer(row: Row, plan: Rule, answered: Collection[int]) -> int:
    """Return the model whose answer, of those given, is expected to be the best."""
    quality = dict(zip(plan.plays, row.quality, strict=False))
    return max(answered, key=lambda model: (quality.get(model, -1.0), model))


def likely_escalation(table: DecisionTable) -> tuple[int, float] | None:
    """Return the model that a table most often escalates to, and how often; None if never."""
    chances: dict[int, float] = {}
    for step, chance in ((row.step, row.chance) for row in table.rows):
        if step.action == "escalate":
            chances[step.model] = chances.get(step.model, 0.0) + chance
    best = max(chances, key=lambda model: chances[model], default=None)
    return None if best is None else (best, min(1.0, chances[best]))
