"""What a deadline leaves out: a check first, then a larger model; an answer that is there never."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_automix.errors import DeadlineError
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.limits.latency import Stage
from langchain_automix.mix.query import QueryState
from langchain_automix.routers.base import Router, next_model, next_or_keep
from langchain_automix.types import Decision, RoutingState, Verification, Visit

NO_TIME = "no time was left for a check"


def fits(mix: MixConfig, way: QueryState, stage: Stage, index: int) -> bool:
    """Whether a call is expected to end in time; one of which nothing is known is."""
    if way.clock is None:
        return True
    expected = mix.pace.expected(stage, index)
    return way.clock.left > (expected or 0.0)


def _check_fits(mix: MixConfig, way: QueryState, index: int) -> bool:
    """Whether a check, and what it may call for, is expected to end in time.

    A check after which no larger model could be asked any more could not change the decision.
    """
    if way.clock is None:
        return True
    later = [
        mix.pace.expected("answer", j) or 0.0
        for j in range(index + 1, len(mix.names))
        if j not in way.ledger.visits
    ]
    # A hedged answer comes while the check is made.
    after = 0.0 if mix.hedge is not None else min(later, default=0.0)
    return way.clock.left > (mix.pace.expected("verify", index) or 0.0) + after


def leave_out_check(mix: MixConfig, way: QueryState, decision: Decision) -> bool:
    """Note that an answer goes unchecked, where its check would not end in time."""
    index = decision.model_index
    check = way.ledger.visits[index].verification
    if not mix.verification or index not in way.usable or _check_fits(mix, way, index):
        return False
    mix.pace.left_out("verify", index)
    for j in range(index + 1, len(mix.names)):
        if not fits(mix, way, "answer", j):  # else it would speak against every check for ever
            mix.pace.left_out("answer", j)
    way.unchecked[index, decision.check] = NO_TIME
    found = Verification(problem=NO_TIME)
    if decision.check is not None:  # it says nothing of the first one
        found = Verification(checks={decision.check: found})
    together = found if check is None else check.and_then(found)
    way.ledger.visits[index] = Visit(model_index=index, verification=together)
    return True


def no_time_and_no_evidence(way: QueryState, last: Decision, found: Verification | None) -> bool:
    """Whether the last check was left out for want of time, and no other one found anything."""
    if found is None or way.unchecked.get((last.model_index, last.check)) != NO_TIME:
        return False
    return all(each.confidence is None for each in (found, *found.checks.values()))


def options(mix: MixConfig, way: QueryState, state: RoutingState) -> RoutingState:
    """Return what is known, with the time that is left and what each option is expected to take."""
    if way.clock is None or way.clock.left <= 0:  # of what is there, the usual is the best
        return state
    here = state.current.model_index
    seconds = {"verify": mix.pace.expected("verify", here)}
    seconds |= {
        f"escalate:{mix.names[j]}": mix.pace.expected("answer", j)
        for j in range(len(mix.names))
        if j not in way.ledger.visits and j not in way.hedged
    }
    known = {option: each for option, each in seconds.items() if each is not None}
    return state.model_copy(update={"time_left": max(0.0, way.clock.left), "seconds": known})


def is_over(mix: MixConfig, way: QueryState, state: RoutingState, last: Decision) -> bool:
    """Whether the time is up, and with it what is known of the answer that is there."""
    if way.clock is None or way.clock.left > 0:
        return False
    found, index = state.current.verification, state.current.model_index
    is_known = found is None or (found.usable and (index, last.check) not in way.unchecked)
    is_hedged = any(isinstance(given, ModelAnswer) for given in way.hedged.values())
    return not isinstance(mix.router, Router) or not (is_known or is_hedged)


def note_left_out(mix: MixConfig, way: QueryState, state: RoutingState, decision: Decision) -> None:
    """Note what a router that knows the time would have done with more of it."""
    router = mix.router
    if way.clock is None or not isinstance(router, Router):
        return
    if all(state.fits(option) for option in state.seconds):
        return
    wanted = router.decide(state.model_copy(update={"time_left": None, "seconds": {}}))
    if (wanted.action, wanted.model_index) == (decision.action, decision.model_index):
        return
    mix.pace.left_out("verify" if wanted.action == "verify" else "answer", wanted.model_index)
    if decision.action == "answer":
        way.degraded = _not_enough(way, decision.model_index, mix.names)
    elif decision.action == "abstain":
        way.degraded = f"{_time(way)} did not suffice for more: no answer is given."


def _time(way: QueryState) -> str:
    return f"The time (max_latency={way.clock.limit:g} s)" if way.clock else "The time"


def _not_enough(way: QueryState, index: int, names: Sequence[str]) -> str:
    return f"{_time(way)} did not suffice for more: the answer of {names[index]} is given."


def without_check(mix: MixConfig, state: RoutingState) -> Decision:
    """Decide where there was no time for a check: by what is known of the models without it."""
    if isinstance(mix.router, Router):
        return mix.router.without_evidence(state, by_means=True)
    return next_or_keep(state)


def in_time(mix: MixConfig, way: QueryState, state: RoutingState, decision: Decision) -> Decision:
    """Return a decision that fits into the time left: the same, or the best that is there.

    Raises:
        DeadlineError: The time is up, and there is no answer that could be given.
    """
    if way.clock is None or decision.action == "abstain":
        return decision
    if way.clock.left <= 0:
        is_there = decision.action == "answer" and decision.model_index in way.usable
        hedged = way.hedged.get(decision.model_index)
        is_there |= decision.action == "escalate" and isinstance(hedged, ModelAnswer)
        return decision if is_there else given(mix, way, decision)
    is_check = decision.action == "verify"
    stage: Stage = "verify" if is_check else "answer"
    index = decision.model_index
    fit = _check_fits(mix, way, index) if is_check else fits(mix, way, stage, index)
    if decision.action == "answer" or not way.usable or fit:
        return decision
    mix.pace.left_out(stage, index)
    later = next_model(state)
    if is_check and later is not None and fits(mix, way, "answer", later):
        why = f"No time is left for another check: {mix.names[later]} is asked."
        return Decision(action="escalate", model_index=later, samples=0, why=why)
    return given(mix, way, decision)


def given(mix: MixConfig, way: QueryState, decision: Decision) -> Decision:
    """Decide for the best answer that can be used; raises where there is none."""
    if not way.usable:
        limit = f"max_latency={way.clock.limit:g} s" if way.clock else "max_latency"
        failed = ", ".join(f"{mix.names[j]} ({type(e).__name__})" for j, e in way.errors.items())
        raise DeadlineError(
            f"No model gave an answer in time ({limit}): {failed or 'none that can be used'}. "
            "Allow more time, or put a faster model first."
        )
    best = way.best(mix.names)
    way.degraded = _not_enough(way, best, mix.names)
    return decision.model_copy(
        update={"action": "answer", "model_index": best, "why": way.degraded, "samples": None}
    )
