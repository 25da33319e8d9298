"""How a query ends where something went wrong: which answer is given, or which error raised."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_automix.errors import ModelsFailedError
from langchain_automix.mix.answering import reserved_tool_problem
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.query import QueryState
from langchain_automix.models.failures import missing_answer_reason
from langchain_automix.routers.base import findings
from langchain_automix.types import Decision


def decide_without_router(way: QueryState, names: Sequence[str]) -> Decision:
    """Decide by the simplest safe rule: the next model, or where there is none the last answer."""
    later = max(way.ledger.visits) + 1
    if later < len(names):
        way.degraded = f"{way.router_failed}, so that {names[later]} was asked to be safe."
        return Decision(action="escalate", model_index=later, samples=0, why=way.degraded)
    kept = (way.usable or [way.current.model_index])[-1]
    way.degraded = f"{way.router_failed}, so that the last answer, of {names[kept]}, is given."
    return Decision(action="answer", model_index=kept, why=way.degraded)


def final_decision(mix: MixConfig, way: QueryState, decision: Decision) -> Decision:
    """Return the last decision as it can be carried out: what was asked last may have failed.

    Raises:
        Exception: The error of the model that failed; of several, `ModelsFailedError`.
    """
    check = way.current.verification
    if decision.action == "abstain" or check is None or check.usable:
        return decision
    index = way.current.model_index
    is_late = way.clock is not None and way.clock.left <= 0
    if is_late and decision.model_index in way.usable:
        return decision
    if index in way.errors:
        if mix.on_escalation_error == "raise" or not way.usable:
            raise _failure(mix, way)
        return _fall_back_to_best(mix, way, decision, f"The call of {mix.names[index]} failed")
    # No answer at all, unlike one that does not fit, is no reason to show what was not kept.
    message = way.replies[index].message
    nothing = missing_answer_reason(message) is not None
    shows_none = nothing and mix.on_escalation_error == "raise"
    # An agent mends a call that does not fit, as it does with a plain model.
    is_mended = bool(mix.tools and message.tool_calls)
    if decision.model_index == index or not way.usable or shows_none or is_mended:
        if mix.forced is None and (why := reserved_tool_problem(mix, index, way.replies[index])):
            way.degraded = f"{why[0].upper()}{why[1:]}, and none is asked: no answer is given."
            return decision.model_copy(
                update={"action": "abstain", "model_index": index, "why": way.degraded}
            )
        way.degraded = f"The answer of {mix.names[index]} cannot be used, and is given as it is."
        return decision.model_copy(update={"model_index": index})
    return _fall_back_to_best(
        mix, way, decision, f"The answer of {mix.names[index]} cannot be used"
    )


def _fall_back_to_best(
    mix: MixConfig, way: QueryState, decision: Decision, because: str
) -> Decision:
    """Decide for the best of the earlier answers that could be used."""
    best = way.best(mix.names)
    found = way.ledger.visits[best].verification
    error = way.errors.get(way.current.model_index)
    kind = f" ({type(error).__name__})" if error is not None else ""
    given = f"the earlier answer of {mix.names[best]} is given, which was not kept"
    way.degraded = f"{because}{kind}: {given} ({findings(found).lower()})."
    return decision.model_copy(update={"model_index": best, "why": way.degraded})


def _failure(mix: MixConfig, way: QueryState) -> Exception:
    failed = {mix.names[index]: error for index, error in way.errors.items()}
    return ModelsFailedError.of(failed) if len(failed) > 1 else next(iter(failed.values()))
