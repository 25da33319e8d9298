"""Check one answer. A failed check is billed, but never costs the user the answer."""

from __future__ import annotations

import time
from typing import Any

from langsmith import LS_MESSAGE_VIEW_EXCLUDE

from langchain_automix.errors import DeadlineError
from langchain_automix.flow.steps import Call, Steps, call, gather
from langchain_automix.mix.answering import NOT_FOR_USERS, is_hurried
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.hedging import hedge_call, keep_hedged_answer
from langchain_automix.mix.limits.repeated_failures import Attempt
from langchain_automix.mix.query import QueryState
from langchain_automix.models.failures import is_fault
from langchain_automix.models.messages import answer_text
from langchain_automix.models.usage import UsageCollector
from langchain_automix.types import NO_TEXT, Decision, Verification, Visit
from langchain_automix.verifiers.base import VerifierInput


def run_check(config: MixConfig, query: QueryState, decision: Decision) -> Steps[None]:
    """Check the answer that a decision names, and combine the findings with earlier ones."""
    index = decision.model_index
    before = query.ledger.visits[index].verification
    if index in query.given_up or (before is not None and not before.usable):
        return
    if not config.verification:
        found = Verification(problem="verification is off")
    elif not answer_text(query.answers[index].message):
        found = Verification(problem=NO_TEXT)
    else:
        found = yield from _verify(config, query, decision)
    found = _mark_missing_check(found, decision.check)
    together = found if before is None else before.and_then(found)
    query.ledger.visits[index] = Visit(model_index=index, verification=together)


def _verify(config: MixConfig, query: QueryState, decision: Decision) -> Steps[Verification]:
    index, ledger = decision.model_index, query.ledger
    is_free = config.is_free(decision.check)
    # A check that failed midway and was retried or replaced has been billed, too.
    usage = UsageCollector()
    check = Call(
        config.checkers[index],
        _verifier_input(query, decision),
        tags=["automix:verify", NOT_FOR_USERS],
        metadata={LS_MESSAGE_VIEW_EXCLUDE: True},
        callbacks=[usage],
        audience="tracers",
        is_timed=not is_free,
        is_instant=is_free,
    )
    started = time.perf_counter()
    try:
        found = _read_verification((yield from _call_with_hedge(config, query, decision, check)))
    except GeneratorExit:
        ledger.calls.extend([*usage.calls, *usage.unfinished])
        raise
    except Exception as error:
        if given_up := isinstance(error, DeadlineError):
            config.pace.learn("verify", index, time.perf_counter() - started, at_least=True)
        ledger.calls.extend([*usage.calls, *(usage.unfinished if given_up else ())])
        ledger.add_failed_check(index, usage.failed or [(None, error)])
        is_raised = config.on_verification_error == "raise" and not given_up
        if is_raised or not is_fault(error):
            raise
        return _failed_check(config, query, decision, type(error).__name__)
    finally:
        ledger.add_seconds("verify", time.perf_counter() - started)
    if query.hedged_model is None and not is_free:  # else it includes the hedged call
        config.pace.learn("verify", index, time.perf_counter() - started)
    query.outcomes[Attempt("check", config.names[index])] = _nothing_found(found)
    ledger.calls.extend(found.calls if len(found.calls) >= len(usage.calls) else usage.calls)
    if found.undrawn is not None:
        ledger.add_failed_check(index, usage.failed)
    return found


def _failed_check(
    config: MixConfig, query: QueryState, decision: Decision, kind: str
) -> Verification:
    """Record a failed check by the type of its error, and return a verification that says so."""
    index, name = decision.model_index, decision.check
    query.outcomes[Attempt("check", config.names[index])] = kind
    query.unchecked[index, name] = problem = f"the check failed ({kind})"
    failed = Verification(problem=problem)
    # The failure of an additional check says nothing about the first one.
    return failed if name is None else Verification(checks={name: failed})


def _call_with_hedge(
    config: MixConfig, query: QueryState, decision: Decision, check: Call
) -> Steps[Any]:
    """Make the check, and ask the next model at the same time if that is worthwhile."""
    usage = UsageCollector(mends=False)
    if (hedge := hedge_call(config, query, decision, usage)) is None:
        return (yield from call(check))
    index, ahead = hedge
    hurried = is_hurried(query)
    try:
        found, answer = yield from gather(check, ahead)
    except GeneratorExit:
        if ahead.started:
            query.ledger.add_lost_request(index, usage)
        raise
    keep_hedged_answer(config, query, index, answer, usage, hurried=hurried)
    if isinstance(found, Exception):
        raise found
    return found


def _nothing_found(found: Verification) -> str | None:
    """Say why a paid check told nothing about an answer; None if it found something."""
    if any(each.confidence is not None for each in (found, *found.checks.values())):
        return None
    if found.verdicts:
        return "none of its replies holds a verdict"
    return found.undrawn and "no verdict could be drawn"


def _read_verification(output: Any) -> Verification:
    if not isinstance(output, Verification):
        raise TypeError(f"The verifier returned {type(output).__name__}, not a Verification.")
    return output


def _mark_missing_check(found: Verification, name: str | None) -> Verification:
    """Record that a check requested by name was not made.

    Otherwise the router would not know that it was tried, and would keep asking for it.
    """
    if name is None or name in found.checks:
        return found
    missing = Verification(problem=found.problem or f"the verifier made no check {name!r}")
    return found.model_copy(update={"checks": {**found.checks, name: missing}})


def _verifier_input(query: QueryState, decision: Decision) -> VerifierInput:
    index, answers = decision.model_index, query.answers
    message = answers[index].message
    request: VerifierInput = {**query.check_input, "answer": message, "check": decision.check}
    request["earlier"] = [answers[j].message for j in answers if j != index]
    if decision.samples is not None:
        request["samples"] = decision.samples
    if (before := query.ledger.visits[index].verification) is not None:
        same = before if decision.check is None else before.checks.get(decision.check)
        request["drawn"] = 0 if same is None else len(same.verdicts)
    return request
