"""Translate a routing state for a plan: what checks found, and what can be done in time."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from langchain_automix.policy.decision.interpreter import mixture, next_action, restrict
from langchain_automix.policy.decision.observation import CheckEncoding, Observation
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.table import (
    CHECKED,
    DecisionRow,
    DecisionTable,
    PlannedAction,
)
from langchain_automix.types import EMPTY_ANSWER, NO_TEXT, RoutingState, Verification


def follow(
    plan: Plan, state: RoutingState, names: Sequence[str]
) -> tuple[DecisionTable | None, DecisionRow | None]:
    """Return the table that reads the current check, and its row; None for both off the plan.

    The names are the policy's, in the order of the state's models.
    """
    step: PlannedAction | None = plan.opening
    table = row = None
    for visit in state.visits:
        if step is None or step.then is None or step.model != visit.model_index:
            return None, None
        table = plan.tables[step.then]
        row = read(plan, table, visit.verification, state.answered, names)
        step = None if row is None else row.step
    return table, row


def read(
    plan: Plan,
    table: DecisionTable,
    check: Verification | None,
    answered: Collection[int],
    names: Sequence[str],
) -> DecisionRow | None:
    """Return the row of a table for what a check found, or None if it gives no evidence."""
    if check is None:
        return None
    rows = []
    for possible in _possible(table, check):
        observations, spent = observe(table, possible)
        rows.append(next_action(plan, table, observations, spent, answered, names))
    return mixture(rows)


def _possible(table: DecisionTable, check: Verification) -> list[Verification]:
    """Return the possible findings of a check: itself or, for a bound, one score per bin below."""
    for encoding in table.encodings:
        found = check if encoding.name is None else check.checks.get(encoding.name)
        if found is None or not found.is_upper_bound or found.score is None:
            continue
        below = [0.0, *(edge for edge in encoding.edges if 0 < edge <= found.score)]
        each = [found.model_copy(update={"score": score}) for score in below]
        if encoding.name is None:
            return each
        checks = [{**check.checks, encoding.name: one} for one in each]
        return [check.model_copy(update={"checks": one}) for one in checks]
    return [check]


def observe(
    table: DecisionTable, verification: Verification
) -> tuple[list[Observation], list[str | None]]:
    """Return the finding of each check that a table reads, and the names of spent checks.

    A check is spent if repeating it would add nothing, as after a failure.
    """
    observations: list[Observation] = []
    spent: list[str | None] = []
    for encoding in table.encodings:
        name = encoding.name
        check = verification if name is None else verification.checks.get(name)
        if check is None:
            observations.append(encoding.nothing)
            continue
        accepts, rejects, invalid = (check.verdicts.count(kind) for kind in (True, False, None))
        observations.append(encoding.encode(accepts, rejects, invalid, check.score))
        if _is_spent(check, encoding, observations[-1], invalid):
            spent.append(name)
    if verification.problem in (EMPTY_ANSWER, NO_TEXT) and not any(map(any, observations)):
        spent = [encoding.name for encoding in table.encodings]
    return observations, spent


def _is_spent(
    check: Verification, encoding: CheckEncoding, observation: Observation, invalid: int
) -> bool:
    if check.problem is not None:
        return True
    if encoding.name is None and not check.verdicts and check.score is None:
        return False  # only other checks were made
    if encoding.kind == "score" or not any(observation):
        return True
    return encoding.is_exhausted(len(check.verdicts), invalid)


def best_row_in_time(
    row: DecisionRow, plan: Plan, state: RoutingState, names: Sequence[str]
) -> DecisionRow:
    """Return the row, or one with the best step that fits into the time left."""
    if state.time_left is None:
        return row

    def fits(option: str) -> bool:
        if not option.startswith("escalate:"):
            return option != "verify" or state.fits(option)
        model = names.index(option.removeprefix("escalate:").removesuffix(CHECKED))
        return state.fits(f"escalate:{state.models[model]}")

    step = row.step
    own = f"escalate:{names[step.model]}" if step.action == "escalate" else step.action
    if fits(own):
        return row
    return restrict(
        row, plan, state.answered, names, lambda o: not o.startswith("verify") and fits(o)
    )
