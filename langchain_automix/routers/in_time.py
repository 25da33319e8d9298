"""The best of a row's options that is expected to end in the time left."""

from __future__ import annotations

from langchain_automix.policy.plan import CHECKED, Plan, Row, Table
from langchain_automix.types import RoutingState


def row_in_time(row: Row, plan: Plan, state: RoutingState, names: tuple[str, ...]) -> Row:
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


def escalating(table: Table) -> tuple[int, float] | None:
    """Return the model that a table most often escalates to, and how often; None: never."""
    chances: dict[int, float] = {}
    for row in table.rows:
        if row.step.action == "escalate":
            chances[row.step.model] = chances.get(row.step.model, 0.0) + row.chance
    if not chances:
        return None
    best = max(chances, key=lambda model: chances[model])
    return best, min(1.0, chances[best])
