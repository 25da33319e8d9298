"""Ask the next model side by side with a check that will probably call for it."""

from __future__ import annotations

from typing import Any

from langchain_automix.flow.steps import Call
from langchain_automix.mix.answering import answer_call, read_answer
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.limits.circuit_breaker import note_failure
from langchain_automix.mix.query import QueryState
from langchain_automix.models.failures import is_fault
from langchain_automix.models.usage import to_model_call, with_model_name
from langchain_automix.routers.base import Router
from langchain_automix.types import Decision


def hedge_call(mix: MixConfig, way: QueryState, decision: Decision) -> tuple[int, Call] | None:
    """Return the model to ask beside the first check of an answer; None: it is not worth it."""
    first = way.current.verification is None and way.current.model_index == decision.model_index
    if mix.hedge is None or not first or not isinstance(mix.router, Router):
        return None
    if way.allowance.note or way.allowance.cheapest is not None:
        return None  # what may not be needed is not bought while money is short
    found = mix.router.chance_of_escalation(way.state(mix.names))
    if found is None or found[1] < mix.hedge or found[0] in way.ledger.visits:
        return None
    index = found[0]
    if mix.breaker is not None and mix.breaker.state(mix.circuits[index]) != "closed":
        return None
    step = Decision(action="escalate", model_index=index)
    return index, answer_call(mix, way, step, hands_back=True)


def keep_hedged_answer(
    mix: MixConfig, way: QueryState, index: int, output: Any, *, hurried: bool
) -> None:
    """Keep what a model gave in advance, until it is needed; it is paid for in any case.

    Args:
        mix: The mix.
        way: How far the query has come.
        index: The model.
        output: What it gave, or its error.
        hurried: Whether it had so little time that a deadline says nothing of it.

    Raises:
        AutoMixError: It is no message.
    """
    way.hedged_model = mix.names[index]
    circuit = mix.circuits[index]
    try:
        reply = read_answer(mix, index, output)
    except Exception as error:
        if not is_fault(error):
            raise
        if mix.breaker is not None:
            note_failure(mix.breaker, circuit, error, hurried=hurried)
        identity = mix.identities[index]
        way.ledger.failed_to_answer(index, mix.names[index], "escalate", error, identity)
        way.hedged[index] = error
        return
    way.ledger.asked(index, with_model_name(to_model_call([reply.message]), mix.models[index]))
    way.hedged[index] = reply
    if mix.breaker is not None:
        mix.breaker.succeeded(circuit)
