"""End a query: choose the answer to give with its record, or the error to raise."""

from __future__ import annotations

from functools import partial
from uuid import uuid4

from langchain_core.messages import AIMessage

from langchain_automix.errors import ModelsFailedError
from langchain_automix.flow.steps import Call, Report, Steps, call
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.answering import reserved_tool_problem
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.early import given_up_in_record
from langchain_automix.mix.kept_answer import Replay
from langchain_automix.mix.query import QueryState
from langchain_automix.mix.record import (
    build_record,
    policy_version,
    report_of,
    unfinished_record,
)
from langchain_automix.mix.telemetry import measure
from langchain_automix.models.logprobs import without_logprobs
from langchain_automix.routers.base import Router
from langchain_automix.routers.explanations import findings
from langchain_automix.types import Decision
from langchain_automix.verifiers.combined import CombinedVerifier


def finish(config: MixConfig, query: QueryState, decision: Decision) -> Steps[ModelAnswer]:
    """Return the kept answer with the record of its query, and show it to readers."""
    decision = final_decision(config, query, decision)
    index = decision.model_index
    kept = query.answers.get(index)
    if kept is None or decision.action == "abstain":  # a draft is never shown
        kept = ModelAnswer(AIMessage(config.abstention, id=f"automix-{uuid4()}"))
    record = build_record(
        query.ledger,
        decision,
        query.degraded,
        query.hedged_model,
        _leading_check(config),
        query.learning,
        given_up_in_record(query),
    )
    query.record = record
    config.account.add(record)
    given = kept.message
    if config.buys_checks and config.adds_logprobs[index]:
        given = without_logprobs(given)
    metadata = {**given.response_metadata, "automix": record}
    message = given.model_copy(update={"response_metadata": metadata})
    if decision.action == "abstain" or query.shown != index:
        replay = Replay(message, None if decision.action == "abstain" else config.models[index])
        yield from call(Call(replay, query.input, run_name="answer", audience="readers"))
    return ModelAnswer(message, kept.payload, kept.problem)


def _leading_check(config: MixConfig) -> str | None:
    """Return the name of the leading check if there are several, else None."""
    verifier = config.verifier
    return verifier.first if isinstance(verifier, CombinedVerifier) else None


def report_query(config: MixConfig, query: QueryState) -> Report | None:
    """Return the report of a query: its record, or its cost so far if it ended early."""
    if not query.is_admitted:
        return None
    if query.record is None:
        unfinished = unfinished_record(query.ledger, query.learning)
        return Report(metadata=policy_version(unfinished), event=unfinished)
    router = config.router
    label = router.label if isinstance(router, Router) else router.get_name()
    # Not part of the record, which must be the same if the same query is asked again.
    event = {**query.record, "seconds": query.ledger.seconds}
    return report_of(event, label, count=partial(measure, event, label))


def final_decision(config: MixConfig, query: QueryState, decision: Decision) -> Decision:
    """Return the last decision, adapted if the last call failed, so that it can be carried out.

    Raises:
        Exception: The error of the model that failed, or `ModelsFailedError` if several failed.
    """
    check, index = query.current.verification, query.current.model_index
    name = config.names[index]
    is_settled = decision.action == "abstain" or check is None or check.usable
    if is_settled or (query.is_late and decision.model_index in query.usable):
        return decision
    if index in query.errors:
        if config.on_escalation_error == "raise" or not query.usable:
            raise _failure(config, query)
        return _fall_back_to_best(config, query, decision, f"The call of {name} failed")
    answer = query.answers[index]
    # An agent repairs a call that does not fit, as it does with a plain model.
    is_mended = bool(config.answer_format.tools and answer.message.tool_calls)
    if (
        decision.model_index in query.usable and not is_mended
    ):  # a router of the user's own keeps it
        kept = config.names[decision.model_index]
        query.degraded = f"The answer of {name} cannot be used: the router keeps that of {kept}."
        return decision
    # Otherwise a rejected draft is not shown unless asked for, whatever the fault of the later
    # answer.
    if config.on_escalation_error == "answer" and query.usable and not is_mended:
        return _fall_back_to_best(config, query, decision, f"The answer of {name} cannot be used")
    if config.forced is None and (why := reserved_tool_problem(config, index, answer)):
        query.degraded = f"{why[0].upper()}{why[1:]}, and none is asked: no answer is given."
        update = {"action": "abstain", "model_index": index, "why": query.degraded}
        return decision.model_copy(update=update)
    query.degraded = f"The answer of {name} cannot be used, and is given as it is."
    return decision.model_copy(update={"model_index": index})


def _fall_back_to_best(
    config: MixConfig, query: QueryState, decision: Decision, because: str
) -> Decision:
    """Return the decision for the best usable earlier answer."""
    best = query.best(config)
    found = findings(query.ledger.visits[best].verification).lower()
    error = query.errors.get(query.current.model_index)
    kind = f" ({type(error).__name__})" if error is not None else ""
    fallback = f"the earlier answer of {config.names[best]} is given, which was not kept"
    query.degraded = f"{because}{kind}: {fallback} ({found})."
    return decision.model_copy(update={"model_index": best, "why": query.degraded})


def _failure(config: MixConfig, query: QueryState) -> Exception:
    failed = {config.names[index]: error for index, error in query.errors.items()}
    return ModelsFailedError.of(failed) if len(failed) > 1 else next(iter(failed.values()))
