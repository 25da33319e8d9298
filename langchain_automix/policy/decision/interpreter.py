"""From what a check, or several checks, of an answer found to the row of a policy's table."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from langchain_automix.policy.decision.observation import CheckEncoding, Observation, check_of
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.table import CHECKED, DecisionRow, DecisionTable
from langchain_automix.types import EMPTY_ANSWER, NO_TEXT, RoutingState, Verification


def find_row(
    plan: Plan,
    table: DecisionTable,
    check: Verification | None,
    answered: Collection[int],
    names: Sequence[str],
) -> DecisionRow | None:
    """Return the row for what was found; None where there is nothing to go by.

    A further check that failed is never asked for again: the row then says the best that is left.

    Args:
        plan: The plan that the table is of.
        table: What is done after each finding.
        check: What was found; None: the answer was not checked.
        answered: Models that have answered.
        names: Of all models of the policy.
    """
    if check is None:
        return None
    if not table.checks:
        return table.find(*_counted(check))
    found: list[Observation] = []
    spent: list[str | None] = []
    for reading in table.checks:
        own = check if reading.name is None else check.checks.get(reading.name)
        found.append(reading.nothing if own is None else reading.place(*_counted(own)))
        if own is not None and _is_spent(own, reading, found[-1]):
            spent.append(reading.name)
    if not any(map(any, found)) and (
        check.problem in (EMPTY_ANSWER, NO_TEXT) or len(spent) == len(table.checks)
    ):
        return None
    row = table.reached(found)
    step = row.instead(answered, plan.plays, names, spent)
    if step is row.step:
        return row
    left = {o: v for o, v in row.values.items() if not _is_of(o, spent)}
    return row.model_copy(update={"step": step, "values": left})


def _is_of(option: str, checks: Sequence[str | None]) -> bool:
    """Whether an option is to make one of some checks."""
    return option.startswith("verify") and check_of(option)[0] in checks


def _counted(check: Verification) -> tuple[int, int, int, float | None]:
    """Return the accepts, rejects and invalid verdicts of a check, and its score."""
    accepts = rejects = invalid = 0
    for verdict in check.verdicts:
        if verdict is None:
            invalid += 1
        elif verdict:
            accepts += 1
        else:
            rejects += 1
    return accepts, rejects, invalid, check.score


def _is_spent(check: Verification, reading: CheckEncoding, found: Observation) -> bool:
    """Whether one of several checks was made, and making it again would not bring more."""
    if check.problem is not None:
        return True
    drawn = len(check.verdicts)
    if reading.name is None and not drawn and check.score is None:
        return False  # what stands there is of the other checks
    # Verdicts that bring nothing to go by must not be drawn for ever.
    is_enough = reading.kind == "score" or drawn + check.invalid >= 2 * reading.most
    return is_enough or not any(found)


def best_row_within(
    row: DecisionRow, plan: Plan, state: RoutingState, names: tuple[str, ...]
) -> DecisionRow:
    """Return the row, with another step where its own would take longer than the time left.

    Of what is left the option with the highest value is taken: what is left out is what loses
    the least expected utility.

    Args:
        row: What the policy does after a finding.
        plan: The plan that the row is from.
        state: What is known, with the time left and what each option takes.
        names: The policy's names of the models, in the order of the state's.
    """
    if state.time_left is None or row.step.action in ("answer", "abstain"):
        return row
    if row.step.action == "verify":
        own = "verify"
    else:
        own = f"escalate:{names[row.step.model]}{'' if row.step.samples == 0 else CHECKED}"
    if _fits(own, state, names):
        return row
    values = {option: v for option, v in row.values.items() if _fits(option, state, names)}
    left = row.model_copy(update={"values": values})
    step = left.settled(state.answered, plan.plays, names)
    return left.model_copy(update={"step": step})


def _fits(option: str, state: RoutingState, names: tuple[str, ...]) -> bool:
    if option.startswith("verify"):
        return state.fits("verify")
    if not option.startswith("escalate:"):
        return True
    index = names.index(option.removeprefix("escalate:").removesuffix(CHECKED))
    return state.fits(f"escalate:{state.models[index]}")


def escalating(table: DecisionTable) -> tuple[int, float] | None:
    """Return the model that a table most often escalates to, and how often; None: never."""
    chances: dict[int, float] = {}
    for row in table.rows:
        if row.step.action == "escalate":
            chances[row.step.model] = chances.get(row.step.model, 0.0) + row.chance
    if not chances:
        return None
    best = max(chances, key=lambda model: chances[model])
    return best, min(1.0, chances[best])
