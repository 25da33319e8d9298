"""`QueryState`: the state of one query."""

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
    """The state of one query."""

    input: Any
    """The input of the models."""

    check_input: VerifierInput
    """Information about the query for the check."""

    query_id: str | None = None
    ledger: QueryLedger = field(default_factory=QueryLedger)
    clock: Deadline | None = None
    """Counts its time; None if there is no limit."""

    allowance: SpendAllowance = UNLIMITED
    """How much it may spend."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments for the answering models."""

    answers: dict[int, ModelAnswer] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    """Errors of failed answering calls, by model, in the order in which they occurred."""

    given_up: dict[int, GivenUpDraft] = field(default_factory=dict)
    """Drafts that were given up while being written, by model."""

    hedged: dict[int, ModelAnswer | Exception] = field(default_factory=dict)
    """Outputs of models that were asked before it was known whether they would be needed."""

    hedged_model: str | None = None
    """Name of a model that was asked in advance."""

    unchecked: dict[tuple[int, str | None], str] = field(default_factory=dict)
    """Failed checks, by model and name of the check, with the reason; they are not repeated."""

    outcomes: dict[Attempt, str | None] = field(default_factory=dict)
    """Why an answer, a check or the router failed; None if it succeeded."""

    last: Decision | None = None
    """The last decision carried out."""

    routed: Decision | None = None
    """The router's decision in this step, before any guard; None if it was not asked."""

    router_failed: str | None = None
    """Why the router is no longer asked: a sentence without its full stop."""

    belief: Mapping[str, float] = field(default_factory=dict)
    """The qualities that the router last expected of the models, by name."""

    degraded: str | None = None
    """What went wrong and made the answer worse, in one sentence; None if nothing did."""

    shown: int | None = None
    """The model whose answer was streamed to everyone."""

    is_admitted: bool = False
    """Whether the spend limits have admitted it; nothing is paid before that."""

    record: Mapping[str, Any] | None = None
    """Its record; None until the query ends."""

    prescribed: Decision | None = None
    """The first step, if a learner decides it instead of the router."""

    learning: Mapping[str, Any] | None = None
    """Which version of a learned policy decides it, and why; None if nothing is learned from it."""

    @property
    def current(self) -> Visit:
        """The visit to the model asked last."""
        return list(self.ledger.visits.values())[-1]

    @property
    def usable(self) -> list[int]:
        """Models with a usable answer, in the order in which they were asked."""
        visits = self.ledger.visits
        checks = {index: visits[index].verification for index in self.answers}
        return [index for index, check in checks.items() if check is None or check.usable]

    @property
    def is_late(self) -> bool:
        """Whether its time is up."""
        return self.clock is not None and self.clock.left <= 0

    def state(self, config: MixConfig) -> RoutingState:
        """Return the router's view of the query, with the time left and what each option takes."""
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
            return state  # once late, the usual rule picks among the answers at hand
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
        """Return the usable answer with the highest expected quality, or the latest if unknown."""
        known = [self.belief.get(config.names[index]) for index in self.usable]
        if None in known:
            return self.usable[-1]
        return max(self.usable, key=lambda index: self.belief[config.names[index]])


def read_input(config: MixConfig, query: QueryState) -> Steps[None]:
    """Read the input of a query, and fill in the prompt of the mix.

    Raises:
        AutoMixError: The question is empty, or the input has the wrong type.
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
            # A template can only print documents in full, with their metadata.
            input = {**input, config.context_key: context_text(context)}
    return input, check_input
