"""One query's way through answer, verify, route: the loop, once for every way to call it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, convert_to_messages
from langchain_core.prompts import BasePromptTemplate

from langchain_automix.errors import AutoMixError
from langchain_automix.flow.clock import Deadline
from langchain_automix.flow.steps import BrokenOff, Call, Note, Steps
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.answering import request_answer
from langchain_automix.mix.checking import decide_without_evidence, run_check
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.deadline_guard import (
    given,
    in_time,
    is_over,
    leave_out_check,
    no_time_and_no_evidence,
    note_left_out,
    options,
)
from langchain_automix.mix.finishing import decide_without_router, final_decision
from langchain_automix.mix.kept_answer import AnswerReplay
from langchain_automix.mix.limits.allowance import SpendAllowance
from langchain_automix.mix.limits.spend_session import SpendSession
from langchain_automix.mix.query import QueryState
from langchain_automix.mix.record import (
    QueryLedger,
    build_record,
    note_of,
    query_cost,
    unfinished_record,
)
from langchain_automix.mix.telemetry import measure
from langchain_automix.models.attachments import attachments_of
from langchain_automix.models.failures import is_fault
from langchain_automix.models.messages import context_text, query_id, question_text, to_messages
from langchain_automix.routers.base import OPENING, Router, keep
from langchain_automix.types import Decision, RoutingState
from langchain_automix.verifiers.base import VerifierInput

_MAX_STEPS = 100


@dataclass(frozen=True)
class QueryLoop(MixConfig):
    """The loop by which a query goes from its input to the kept answer."""

    def flow(self, input: Any, kwargs: Mapping[str, Any]) -> Steps[ModelAnswer]:
        """Take one query from its input to the kept answer."""
        way = yield from self._set_out(input)
        spending = SpendSession(self.spend_limits)
        yield from spending.enter()
        way.allowance = spending.allowance(self, way.query_id)
        way.degraded = way.allowance.cheapest
        cost = partial(query_cost, way.ledger, self.identities)
        flow = self._told(way, kwargs)
        return (yield from spending.through(flow, cost, lambda: way.recorded))

    def _told(self, way: QueryState, kwargs: Mapping[str, Any]) -> Steps[ModelAnswer]:
        try:
            return (yield from self._on_its_way(way, kwargs))
        except (Exception, BrokenOff):
            # What was paid for until then is told, though there is no answer to tell it with.
            if not way.recorded:
                yield Note(metadata={}, event=unfinished_record(way.ledger))
            raise

    def _on_its_way(self, way: QueryState, kwargs: Mapping[str, Any]) -> Steps[ModelAnswer]:
        way.kwargs = kwargs
        decision = self.opening(way.query_id, way.allowance)
        steps = 0
        while decision.action not in ("answer", "abstain"):
            if decision.action == "escalate":
                yield from request_answer(self, way, decision)
                if self._is_settled(way, decision):
                    break
            if not leave_out_check(self, way, decision):
                yield from run_check(self, way, decision)
            steps += 1
            if steps == _MAX_STEPS:
                way.router_failed = f"The router asked for more than {_MAX_STEPS} steps"
            decision = yield from self._route(way, decision)
        return (yield from self._arrive(way, decision))

    def opening(
        self, query_id: str | None = None, allowance: SpendAllowance | None = None
    ) -> Decision:
        """Return the step before anything is known of a query.

        Args:
            query_id: Which query it is.
            allowance: What it may spend; None: whatever it comes to.

        Raises:
            AutoMixError: The router cannot decide among this number of models.
        """
        allowance = allowance or SpendAllowance(self.cost_weight)
        if (why := allowance.cheapest) is not None:
            return Decision(action="escalate", model_index=0, samples=0, why=why)
        if self.forced is not None:
            why = f"{self.names[self.forced]} was asked for, whatever the evidence (force_model)."
            return Decision(action="escalate", model_index=self.forced, samples=0, why=why)
        if isinstance(self.router, Router):
            opening = self.router.opening(
                len(self.models),
                query_id,
                cost_weight=allowance.cost_weight,
                checks=self.verification,
            )
        else:
            opening = OPENING
        if self.verification:
            return allowance.told(opening)
        why = f"{self.names[opening.model_index]} is asked and not checked: verification is off."
        return opening.model_copy(update={"samples": 0, "why": why})

    def _set_out(self, input: Any) -> Steps[QueryState]:
        if self.prompt is None:
            messages = to_messages(input)
            asked: VerifierInput = {"answer": "", "messages": messages, "request": messages}
            return self._way(input, asked, messages)
        if not isinstance(input, Mapping) or self.question_key not in input:
            has = f"the keys {sorted(input)}" if isinstance(input, Mapping) else type(input)
            raise AutoMixError(
                f"With `prompt`, the input is a dict with the key {self.question_key!r}, which "
                f"the check reads (question_key= names another); this input has {has}."
            )
        question = question_text(input[self.question_key])
        if not question.strip():
            raise AutoMixError(f"The question is empty (key {self.question_key!r} of the input).")
        asked = {"answer": "", "question": question}
        if history := input.get(self.history_key):
            asked["messages"] = convert_to_messages(history)
        if (context := input.get(self.context_key)) is not None:
            asked["context"] = context
            if isinstance(self.prompt, BasePromptTemplate):
                # A template can only print documents as they are, with their metadata.
                input = {**input, self.context_key: context_text(context)}
        [prompted] = yield [Call(self.prompt, input)]
        asked["request"] = to_messages(prompted)
        if attachments := attachments_of(asked["request"]):
            asked["attachments"] = attachments
        said = tuple((message.type, message.content) for message in asked.get("messages", ()))
        return self._way(prompted, asked, (asked.get("context"), question, *said))

    def _way(self, input: Any, asked: VerifierInput, known_by: Any) -> QueryState:
        if self.tools:
            asked["tools"] = self.tools
        clock = None if self.max_latency is None else Deadline(self.max_latency)
        return QueryState(input, asked, query_id(known_by), QueryLedger(self.prices), clock=clock)

    def _is_settled(self, way: QueryState, decision: Decision) -> bool:
        check = way.ledger.visits[decision.model_index].verification
        leads_on = check is not None and not check.usable and way.allowance.cheapest is None
        return decision.samples == 0 and not leads_on

    def _route(self, way: QueryState, last: Decision) -> Steps[Decision]:
        state = way.state(self.names)
        if is_over(self, way, state, last):
            return given(self, way, keep(state))
        state = options(self, way, state)
        decision = yield from self._next(way, last, state)
        return in_time(self, way, state, decision)

    def _next(self, way: QueryState, last: Decision, state: RoutingState) -> Steps[Decision]:
        found = state.current.verification
        failed = (state.current.model_index, last.check) in way.unchecked
        nothing = found is not None and found.confidence is None and not found.checks
        others = isinstance(self.router, Router) and self.router.reads_several
        if failed and nothing and not others:
            return decide_without_evidence(self, way, state)
        if no_time_and_no_evidence(way, last, found):  # nor is there time for another check
            return decide_without_evidence(self, way, state)
        decision = None if way.router_failed else (yield from self._decision(way, state))
        if decision is None:
            return decide_without_router(way, self.names)
        checked_again = (decision.model_index, decision.check) in way.unchecked
        if decision.action == "verify" and checked_again:
            return decide_without_evidence(self, way, state)
        way.belief = decision.belief or way.belief
        decision = way.allowance.told(decision)
        if decision.action == "escalate" and not self.verification:
            return decision.model_copy(update={"samples": 0})
        return decision

    def _decision(self, way: QueryState, state: RoutingState) -> Steps[Decision | None]:
        """Ask the router; None: it failed, or what it says cannot be done."""
        # What the check said of a draft may quote it.
        tags = ["automix:route"]
        call = Call(self.router, state, tags=tags, audience="tracers", follows=True)
        started = time.perf_counter()
        try:
            [decision] = yield [call]
        except Exception as error:
            if isinstance(error, AutoMixError) or not is_fault(error):
                raise
            way.ledger.failed_to_route(error)
            way.router_failed = f"The router failed ({type(error).__name__})"
            return None
        finally:
            way.ledger.took("route", time.perf_counter() - started)
        way.router_failed = self._nonsense(way, decision)
        if way.router_failed:
            return None
        made: Decision = decision
        note_left_out(self, way, state, made)
        return made

    def _nonsense(self, way: QueryState, decision: Any) -> str | None:
        """Say why a decision cannot be carried out."""
        if not isinstance(decision, Decision):
            return f"The router returned {type(decision).__name__}, not a Decision"
        index, known = decision.model_index, way.ledger.visits
        if decision.action == "escalate" and index in known:
            return f"The router escalates to model {index}, which has been asked already"
        if decision.action == "escalate" and index >= len(self.models):
            return f"The router escalates to model {index}, which is not in the mix"
        if decision.action == "verify" and index not in way.usable:
            return f"The router checks model {index}, which gave no answer that can be checked"
        return self._kept_in_vain(way, index) if decision.action == "answer" else None

    def _kept_in_vain(self, way: QueryState, index: int) -> str | None:
        """Say why an answer cannot be kept; of the one that came last, `final_decision` decides."""
        # What failed may be kept where there is nothing else: its error is then raised.
        may_keep = index in way.errors and index == len(self.models) - 1
        if index not in way.replies and not may_keep:
            return f"The router keeps model {index}'s answer, but it gave none"
        if index not in (*way.usable, way.current.model_index) and way.usable and not may_keep:
            return f"The router keeps model {index}'s answer, which cannot be used"
        return None

    def _arrive(self, way: QueryState, decision: Decision) -> Steps[ModelAnswer]:
        decision = final_decision(self, way, decision)
        index = decision.model_index
        kept = way.replies.get(index)
        if kept is None or decision.action == "abstain":  # no draft is shown, in no mode
            kept = ModelAnswer(AIMessage(self.abstention, id=f"automix-{uuid4()}"))
        record = build_record(
            way.ledger, decision, self.names, self.identities, way.degraded, way.hedged_model
        )
        label = self.router.label if isinstance(self.router, Router) else self.router.get_name()
        # Not in the record: the same query, asked again, would have another one.
        heard = {**record, "seconds": way.ledger.seconds}
        count = partial(measure, heard, label)
        yield replace(note_of(record, label), event=heard, count=count)
        way.recorded = True
        metadata = {**kept.message.response_metadata, "automix": record}
        message = kept.message.model_copy(update={"response_metadata": metadata})
        if decision.action == "abstain" or way.shown != index:
            told = AnswerReplay.of(message)
            yield [Call(told, way.input, run_name="answer", audience="readers")]
        return ModelAnswer(message, kept.payload, kept.problem)
