"""`QueryState`: how far one query has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import convert_to_messages
from langchain_core.prompts import BasePromptTemplate

from langchain_automix.errors import AutoMixError
from langchain_automix.flow.clock import Deadline
from langchain_automix.flow.steps import Call, Steps, call
from langchain_automix.mix.answer import GivenUpDraft, ModelAnswer
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.expected_costs import expected_costs
from langchain_automix.mix.limits.allowance import UNLIMITED, SpendAllowance
from langchain_automix.mix.limits.repeated_failures import Attempt
from langchain_automix.mix.record import QueryLedger
from langchain_automix.models.attachments import attachments_of
from langchain_automix.models.messages import context_text, query_id, question_text, to_messages
from langchain_automix.types import Decision, RoutingState, Visit
from langchain_automix.verifiers.base import VerifierInput


@dataclass
class QueryState:
    """How far one query has come."""

    input: Any
    """What the models are asked."""

    check_input: VerifierInput
    """What the check is told of the query."""

    query_id: str | None = None
    ledger: QueryLedger = field(default_factory=QueryLedger)
    clock: Deadline | None = None
    """Counts its time; None: there is no limit."""

    allowance: SpendAllowance = UNLIMITED
    """What it may spend."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What goes to the answering models."""

    answers: dict[int, ModelAnswer] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    """Errors of the answering calls that failed, by model, in the order made."""

    given_up: dict[int, GivenUpDraft] = field(default_factory=dict)
    """Drafts that were given up while they were written, by model."""

    hedged: dict[int, ModelAnswer | Exception] = field(default_factory=dict)
    """What models returned that were asked before it was known whether they would be needed."""

    hedged_model: str | None = None
    """Name of such a model."""

    unchecked: dict[tuple[int, str | None], str] = field(default_factory=dict)
    """Checks that failed, by model and name of the check, and why: they are not made again."""

    outcomes: dict[Attempt, str | None] = field(default_factory=dict)
    """Why an answer, a check or the router failed; None where it did not."""

    last: Decision | None = None
    """The decision that was carried out last."""

    routed: Decision | None = None
    """What the router decided in this step, before any guard; None: it was not asked."""

    router_failed: str | None = None
    """Why the router is not asked any more, as a sentence without its end."""

    belief: Mapping[str, float] = field(default_factory=dict)
    """Qualities that the router last expected of the models, by name."""

    degraded: str | None = None
    """Why the answer is less than it would be, had nothing gone wrong; one sentence."""

    shown: int | None = None
    """Model whose answer was shown to everyone while it came."""

    is_admitted: bool = False
    """Whether its spend limits let it in: before that nothing is paid for."""

    record: Mapping[str, Any] | None = None
    """Its record; None: it has not come to its end."""

    prescribed: Decision | None = None
    """The first step, where a learner leaves the router out of it."""

    learning: Mapping[str, Any] | None = None
    """Which version of a learned policy decides it, and why; None: nothing is learned from it."""

    @property
    def current(self) -> Visit:
        """The model asked last."""
        return list(self.ledger.visits.values())[-1]

    @property
    def usable(self) -> list[int]:
        """Models whose answer could be used, in the order asked."""
        visits = self.ledger.visits
        checks = {index: visits[index].verification for index in self.answers}
        return [index for index, check in checks.items() if check is None or check.usable]

    @property
    def is_late(self) -> bool:
        """Whether its time is up."""
        return self.clock is not None and self.clock.left <= 0

    def state(self, config: MixConfig) -> RoutingState:
        """Return what the router is told, with the time left and what each option takes of it."""
        state = RoutingState(
            models=config.names,
            visits=tuple(self.ledger.visits.values()),
            query_id=self.query_id,
            cost_weight=self.allowance.cost_weight,
            cost_so_far=self.ledger.cost_so_far,
            answer_cost=self.ledger.answer_cost(next(reversed(self.ledger.visits), -1)),
        )
        if config.buys_checks:
            last = self.answers.get(self.current.model_index) if self.ledger.visits else None
            message = None if last is None else last.message
            costs, are_nominal = expected_costs(config, self.ledger, self.check_input, message)
            known = {"expected_costs": costs, "costs_are_nominal": are_nominal}
            state = state.model_copy(update=known)
        if self.clock is None or self.is_late or not self.ledger.visits:
            return state  # where it is late, the usual rule picks among what is there
        seconds: dict[str, Any] = {
            "verify": config.pace.expected("verify", self.current.model_index)
        }
        seconds |= {
            f"escalate:{config.names[j]}": config.pace.expected("answer", j)
            for j in range(len(config.names))
            if j not in self.ledger.visits and j not in self.hedged
        }
        left = max(0.0, self.clock.left)
        seconds = {option: each for option, each in seconds.items() if each is not None}
        return state.model_copy(update={"time_left": left, "seconds": seconds})

    def best(self, config: MixConfig) -> int:
        """Return the usable answer that the router expects most of; the latest, if not known."""
        known = [self.belief.get(config.names[index]) for index in self.usable]
        if None in known:
            return self.usable[-1]
        return max(self.usable, key=lambda index: self.belief[config.names[index]])


def read_input(config: MixConfig, query: QueryState) -> Steps[None]:
    """Read the input of a query, and fill in the prompt of the mix.

    Raises:
        AutoMixError: The question is empty, or the input is not of the right kind.
    """
    check_input: VerifierInput
    known_by: Any
    if config.prompt is None:
        prompted = known_by = to_messages(query.input)
        check_input = {"answer": "", "messages": prompted, "request": prompted}
    else:
        filled, check_input = _read_fields(config, query.input)
        prompted = yield from call(Call(config.prompt, filled))
        check_input["request"] = to_messages(prompted)
        if attachments := attachments_of(check_input["request"]):
            check_input["attachments"] = attachments
        history = ((each.type, each.content) for each in check_input.get("messages", ()))
        known_by = (check_input.get("context"), check_input["question"], *history)
    if tools := config.answer_format.tools:
        check_input["tools"] = tools
    query.input, query.check_input, query.query_id = prompted, check_input, query_id(known_by)


def _read_fields(config: MixConfig, input: Any) -> tuple[Mapping[str, Any], VerifierInput]:
    """Return the input of the prompt, and what it tells the check."""
    if not isinstance(input, Mapping) or config.question_key not in input:
        has = f"the keys {sorted(input)}" if isinstance(input, Mapping) else type(input)
        raise AutoMixError(
            f"With `prompt`, the input is a dict with the key {config.question_key!r}, which "
            f"the check reads (question_key= names another); this input has {has}."
        )
    question = question_text(input[config.question_key])
    if not question.strip():
        raise AutoMixError(f"The question is empty (key {config.question_key!r} of the input).")
    check_input: VerifierInput = {"answer": "", "question": question}
    if history := input.get(config.history_key):
        check_input["messages"] = convert_to_messages(history)
    if (context := input.get(config.context_key)) is not None:
        check_input["context"] = context
        if isinstance(config.prompt, BasePromptTemplate):
            # A template can only print documents as they are, with their metadata.
            input = {**input, config.context_key: context_text(context)}
    return input, check_input
