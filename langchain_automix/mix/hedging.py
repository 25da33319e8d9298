"""Ask the next model while a check runs that will probably lead to it."""

from __future__ import annotations

from typing import Any

from langchain_automix.flow.steps import Call
from langchain_automix.mix.answering import answer_call, read_answer
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.limits.circuit_breaker import note_failure
from langchain_automix.mix.query import QueryState
from langchain_automix.models.failures import is_answer_failure, is_fault
from langchain_automix.models.usage import UsageCollector
from langchain_automix.routers.base import Router
from langchain_automix.types import Decision


def hedge_call(
    config: MixConfig, query: QueryState, decision: Decision, usage: UsageCollector
) -> tuple[int, Call] | None:
    """Return the model to ask during the first check of an answer, or None if it does not pay."""
    current, router = query.current, config.router
    is_first = current.verification is None and current.model_index == decision.model_index
    if config.hedge is None or not is_first or not isinstance(router, Router):
        return None
    if config.is_free(decision.check):
        return None  # the check takes no time in which to ask
    if query.allowance.note or query.allowance.cheapest is not None:
        return None  # while money is short, buy nothing that may not be needed
    found = router.chance_of_escalation(query.state(config))
    if found is None or found[1] < config.hedge or found[0] in query.ledger.visits:
        return None
    index, breaker = found[0], config.breaker
    if breaker is not None and breaker.state(config.circuits[index]) != "closed":
        return None
    step = Decision(action="escalate", model_index=index)
    return index, answer_call(config, query, step, usage)


def keep_hedged_answer(
    config: MixConfig,
    query: QueryState,
    index: int,
    output: Any,
    usage: UsageCollector,
    *,
    hurried: bool,
) -> None:
    """Store the answer that a model gave in advance, until it is needed; it is billed either way.

    Args:
        config: The mix.
        query: The state of the query.
        index: The model.
        output: The model's output, or its error.
        usage: Has collected the requests made by the call.
        hurried: Whether so little time was left that a failure says nothing about the model's
            health.

    Raises:
        AutoMixError: The output contains no message.
    """
    breaker = config.breaker
    query.hedged_model = config.names[index]
    try:
        answer = read_answer(config, index, output)
    except Exception as error:
        if not is_answer_failure(error):
            if is_fault(error):
                query.ledger.add_failed_request(index, "escalate", error, usage)
            raise
        if breaker is not None:
            note_failure(breaker, config.circuits[index], error, hurried=hurried)
        query.ledger.add_failed_request(index, "escalate", error, usage)
        query.hedged[index] = error
        return
    query.ledger.add_reply(index, usage, answer.message, config.models[index])
    query.hedged[index] = answer
    if breaker is not None:
        breaker.succeeded(config.circuits[index])
