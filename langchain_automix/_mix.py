"""One query's way through answer, verify, route: the loop, once for every way to call it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, convert_to_messages
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import Runnable
from langsmith import LS_MESSAGE_VIEW_EXCLUDE

from langchain_automix._flow import Call, Flow, Note
from langchain_automix._messages import Told, digest, messages_of, text_of
from langchain_automix._metrics import measure
from langchain_automix._models import quiet
from langchain_automix._record import Ledger, note_of, record_of, unfinished
from langchain_automix.costs import PriceSource
from langchain_automix.errors import AutoMixError
from langchain_automix.routers.base import OPENING, Router
from langchain_automix.types import Decision, RoutingState, Verification, Visit
from langchain_automix.verifiers.attachments import attachments_of
from langchain_automix.verifiers.base import VerifierInput, verifier_for
from langchain_automix.verifiers.free import tool_call_problem
from langchain_automix.verifiers.sampling import Bill, model_call, named
from langchain_automix.verifiers.self_verifier import answer_text, context_text

# LangGraph's message stream leaves out runs with this tag: a draft may yet be rejected.
_NOT_FOR_USERS = "nostream"
_MAX_STEPS = 100
# They make or shape a stream; a draft is asked for in one piece.
_STREAM_ONLY = frozenset({"stream", "stream_options", "stream_usage"})


@dataclass(frozen=True)
class Reply:
    """What one model gave: its message, and what was made of it."""

    message: AIMessage
    payload: Any = None
    """What the caller gets in the message's place, such as a parsed object."""

    problem: str | None = None
    """Why it cannot be used, such as a schema that it does not fit."""


def read_message(output: Any, index: int) -> Reply:
    """Read what a chat model returns.

    Raises:
        AutoMixError: It is no message of an AI.
    """
    if not isinstance(output, AIMessage):
        raise AutoMixError(
            f"Model {index} returned {type(output).__name__}, not an AIMessage: the models of a "
            "mix are chat models; a parser goes after the mix."
        )
    return Reply(output)


@dataclass(frozen=True)
class Mix:
    """What a query's way goes by: who answers, who checks, who decides."""

    names: tuple[str, ...]
    models: Sequence[Runnable[Any, Any]]
    """The chat models as given, which also check."""

    answerers: Sequence[Runnable[Any, Any]]
    """What answers in each model's place: the model with its tools or its format."""

    verifier: Runnable[Any, Any]
    router: Runnable[Any, Any]
    prompt: Runnable[Any, Any] | None = None
    question_key: str = "question"
    context_key: str = "context"
    history_key: str = "history"
    abstention: str = ""
    tools: Sequence[dict[str, Any]] = ()
    """The tools that the answerers have, in OpenAI's format."""

    must_call: bool | str = False
    """Whether an answer must be a tool call; a name: of this tool."""

    always_escalate_tools: frozenset[str] = frozenset()
    retries_if_unusable: int = 0
    verification: bool = True
    forced: int | None = None
    cost_weight: float | None = None
    prices: PriceSource | None = None
    identities: Sequence[tuple[str | None, str | None]] = ()
    """Names and providers of the models, by which they are priced."""

    read: Callable[[Any, int], Reply] = read_message
    read_error: Callable[[Exception], Reply | None] = lambda _: None
    """Reads what a model's own client makes of an answer that does not fit; None: it failed."""

    may_stream: bool = True
    """Whether a message is what the caller gets, and not something made of it."""

    may_be_unusable: bool = False
    """Whether `read` may find that an answer cannot be used: only the last model's is then
    shown as it comes."""

    @cached_property
    def _drafters(self) -> tuple[Runnable[Any, Any], ...]:
        return tuple(quiet(answerer) for answerer in self.answerers)

    @cached_property
    def _checkers(self) -> tuple[Runnable[Any, Any], ...]:
        return tuple(verifier_for(self.verifier, model) for model in self.models)

    def flow(self, input: Any, kwargs: Mapping[str, Any]) -> Flow[Reply]:
        """Take one query from its input to the kept answer."""
        way = yield from self._set_out(input)
        try:
            return (yield from self._on_its_way(way, kwargs))
        except Exception:
            # What was paid for until then is told, though there is no answer to tell it with.
            yield Note(metadata={}, event=unfinished(way.ledger))
            raise

    def _on_its_way(self, way: _Way, kwargs: Mapping[str, Any]) -> Flow[Reply]:
        decision = self.opening(way.query_id)
        for _ in range(_MAX_STEPS):
            if decision.action in ("answer", "abstain"):
                break
            if decision.action == "escalate":
                yield from self._ask(way, decision, kwargs)
                if self._is_settled(way, decision):
                    break
            yield from self._verify(way, decision)
            decision = yield from self._route(way)
        else:
            raise AutoMixError(
                f"The router asked for more than {_MAX_STEPS} steps on one query; it must decide "
                "to answer at some point."
            )
        return (yield from self._arrive(way, decision))

    def opening(self, query_id: str | None = None) -> Decision:
        """Return the step before anything is known of a query.

        Raises:
            AutoMixError: The router cannot decide among this number of models.
        """
        if self.forced is not None:
            why = f"{self.names[self.forced]} was asked for, whatever the evidence (force_model)."
            return Decision(action="escalate", model_index=self.forced, samples=0, why=why)
        if isinstance(self.router, Router):
            opening = self.router.opening(
                len(self.models),
                query_id,
                cost_weight=self.cost_weight,
                checks=self.verification,
            )
        else:
            opening = OPENING
        if self.verification:
            return opening
        why = f"{self.names[opening.model_index]} is asked and not checked: verification is off."
        return opening.model_copy(update={"samples": 0, "why": why})

    def _set_out(self, input: Any) -> Flow[_Way]:
        if self.prompt is None:
            messages = messages_of(input)
            asked: VerifierInput = {"answer": "", "messages": messages}
            return self._way(input, asked, messages)
        if not isinstance(input, Mapping) or self.question_key not in input:
            has = f"the keys {sorted(input)}" if isinstance(input, Mapping) else type(input)
            raise AutoMixError(
                f"With `prompt`, the input is a dict with the key {self.question_key!r}, which "
                f"the check reads (question_key= names another); this input has {has}."
            )
        question = text_of(input[self.question_key])
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
        if attachments := attachments_of(messages_of(prompted)):
            asked["attachments"] = attachments
        said = tuple((message.type, message.content) for message in asked.get("messages", ()))
        return self._way(prompted, asked, (asked.get("context"), question, *said))

    def _way(self, input: Any, asked: VerifierInput, known_by: Any) -> _Way:
        if self.tools:
            asked["tools"] = self.tools
        return _Way(input, asked, digest(known_by), Ledger(self.prices))

    def _ask(self, way: _Way, decision: Decision, kwargs: Mapping[str, Any]) -> Flow[None]:
        index = decision.model_index
        if not 0 <= index < len(self.models) or index in way.replies:
            raise AutoMixError(
                f"The router escalates to model {index}, which "
                + ("has answered already." if index in way.replies else "is not in the mix.")
            )
        streams = self._streams(decision)
        name = "escalate" if way.replies else "draft"
        call = Call(
            (self.answerers if streams else self._drafters)[index],
            way.input,
            run_name=name,
            tags=[f"automix:{self.names[index]}", *([] if streams else [_NOT_FOR_USERS])],
            kwargs=kwargs if streams else {k: kwargs[k] for k in kwargs.keys() - _STREAM_ONLY},
            audience="everyone" if streams else "tracers",
            streams=streams,
        )
        problem = None
        for _ in range(1 + self.retries_if_unusable):
            started = time.perf_counter()
            reply = yield from self._reply(call, index)
            way.ledger.took(name, time.perf_counter() - started)
            way.ledger.asked(index, named(model_call([reply.message]), self.models[index]))
            problem = None if streams else self._problem(index, reply)
            if problem is None:
                break
        way.replies[index] = reply
        way.shown = index if streams else way.shown
        unusable = Verification(problem=problem, usable=False) if problem else None
        way.ledger.visits[index] = Visit(model_index=index, verification=unusable)

    def _reply(self, call: Call, index: int) -> Flow[Reply]:
        try:
            [output] = yield [call]
        except Exception as error:
            if (reply := self.read_error(error)) is None:
                raise
            return reply
        return self.read(output, index)

    def _streams(self, decision: Decision) -> bool:
        """Whether the answer to come is kept whatever it is, and so may be shown as it comes."""
        if not self.may_stream or decision.samples != 0:
            return False
        if self.forced is not None:
            return True
        if not (self.tools or self.may_be_unusable or self.always_escalate_tools):
            return True
        is_last = decision.model_index == len(self.models) - 1
        return is_last and not self.retries_if_unusable

    def _problem(self, index: int, reply: Reply) -> str | None:
        """Say why an answer cannot be used, as far as that can be told without a model."""
        if self.forced is not None:
            return None
        if reply.problem is not None:
            return reply.problem
        if index == 0:
            for call in reply.message.tool_calls:
                if call["name"] in self.always_escalate_tools:
                    return f"the answer calls {call['name']!r}, which only a larger model may call"
        if not self.tools:
            return None
        return tool_call_problem(reply.message, self.tools, must_call=self.must_call)

    def _is_settled(self, way: _Way, decision: Decision) -> bool:
        check = way.ledger.visits[decision.model_index].verification
        return decision.samples == 0 and (check is None or check.usable)

    def _verify(self, way: _Way, decision: Decision) -> Flow[None]:
        index = decision.model_index
        if index not in way.replies:
            raise AutoMixError(f"The router checks model {index}, which has not answered.")
        before = way.ledger.visits[index].verification
        if before is not None and not before.usable:
            return
        found = Verification(problem="the answer is empty")
        message = way.replies[index].message
        if not self.verification:
            found = Verification(problem="verification is off")
        elif answer_text(message):
            request: VerifierInput = {**way.asked, "answer": message}
            if decision.samples is not None:
                request["samples"] = decision.samples
            if before is not None:
                request["drawn"] = len(before.verdicts)
            tags = ["automix:verify", _NOT_FOR_USERS]
            # A check that failed half-way, and was retried or replaced, has been billed too.
            heard = Bill()
            call = Call(
                self._checkers[index],
                request,
                tags=tags,
                metadata={LS_MESSAGE_VIEW_EXCLUDE: True},
                callbacks=[heard],
                audience="tracers",
            )
            started = time.perf_counter()
            try:
                [found] = yield [call]
            except Exception:
                way.ledger.calls.extend(heard.calls)
                raise
            way.ledger.took("verify", time.perf_counter() - started)
            told = len(found.calls) >= len(heard.calls)
            way.ledger.calls.extend(found.calls if told else heard.calls)
        together = found if before is None else before.and_then(found)
        way.ledger.visits[index] = Visit(model_index=index, verification=together)

    def _route(self, way: _Way) -> Flow[Decision]:
        state = RoutingState(
            models=self.names,
            visits=tuple(way.ledger.visits.values()),
            query_id=way.query_id,
            cost_weight=self.cost_weight,
            cost_so_far=way.ledger.cost_so_far,
        )
        # What the check said of a draft may quote it.
        tags = ["automix:route"]
        call = Call(self.router, state, tags=tags, audience="tracers", follows=True)
        started = time.perf_counter()
        [decision] = yield [call]
        way.ledger.took("route", time.perf_counter() - started)
        if not isinstance(decision, Decision):
            raise AutoMixError(f"The router returned {type(decision).__name__}, not a Decision.")
        if decision.action == "escalate" and not self.verification:
            return decision.model_copy(update={"samples": 0})
        return decision

    def _arrive(self, way: _Way, decision: Decision) -> Flow[Reply]:
        index = decision.model_index
        if index not in way.replies:
            raise AutoMixError(f"The router keeps model {index}'s answer, but it gave none.")
        kept = way.replies[index]
        if decision.action == "abstain":  # no draft is shown, in no mode
            kept = Reply(AIMessage(self.abstention, id=f"automix-{uuid4()}"))
        record = record_of(way.ledger, decision, self.names, self.identities)
        label = self.router.label if isinstance(self.router, Router) else self.router.get_name()
        # Not in the record: the same query, asked again, would have another one.
        heard = {**record, "seconds": way.ledger.seconds}
        count = partial(measure, heard, label)
        yield replace(note_of(record, label), event=heard, count=count)
        metadata = {**kept.message.response_metadata, "automix": record}
        message = kept.message.model_copy(update={"response_metadata": metadata})
        if decision.action == "abstain" or way.shown != index:
            told = Told.of(message)
            yield [Call(told, way.input, run_name="answer", audience="readers")]
        return Reply(message, kept.payload, kept.problem)


@dataclass
class _Way:
    """How far one query has come."""

    input: Any
    asked: VerifierInput
    query_id: str
    ledger: Ledger
    replies: dict[int, Reply] = field(default_factory=dict)
    shown: int | None = None
    """Model whose answer was told to everyone while it came."""
