"""What a query's way goes by, and how far one query has come."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from langchain_automix._models import quiet
from langchain_automix._pace import Clock, Pace
from langchain_automix._record import Ledger
from langchain_automix._spending import FREELY, Allowance
from langchain_automix.breaker import CircuitBreaker, key_of
from langchain_automix.costs import PriceSource
from langchain_automix.errors import AutoMixError
from langchain_automix.spend import SpendLimit
from langchain_automix.types import RoutingState, Visit
from langchain_automix.verifiers.base import VerifierInput, told_of, verifier_for
from langchain_automix.verifiers.base import answering as set_to_answer

OnEscalationError = Literal["raise", "answer"]
OnVerificationError = Literal["escalate", "keep", "prior", "raise"]


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
class Setup:
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
    on_escalation_error: OnEscalationError = "raise"
    on_verification_error: OnVerificationError = "escalate"
    verification: bool = True
    forced: int | None = None
    cost_weight: float | None = None
    spend_limits: Sequence[SpendLimit] = ()
    breaker: CircuitBreaker | None = None
    prices: PriceSource | None = None
    identities: Sequence[tuple[str | None, str | None]] = ()
    """Names and providers of the models, by which they are priced."""

    read: Callable[[Any, int], Reply] = read_message
    read_error: Callable[[Exception], Reply | None] = lambda _: None
    """Reads what a model's own client makes of an answer that does not fit; None: it failed."""

    max_latency: float | None = None
    hedge: float | None = None
    pace: Pace = field(default_factory=Pace)
    """How long its calls take."""

    may_stream: bool = True
    """Whether a message is what the caller gets, and not something made of it."""

    may_be_unusable: bool = False
    """Whether `read` may find that an answer cannot be used: only the last model's is then
    shown as it comes."""

    @cached_property
    def drafters(self) -> tuple[Runnable[Any, Any], ...]:
        """What answers where the answer may yet be rejected, and so must not be streamed."""
        return tuple(quiet(answerer) for answerer in self.answering)

    @cached_property
    def answering(self) -> tuple[Runnable[Any, Any], ...]:
        """What answers, with what the check reads of it."""
        return tuple(set_to_answer(self.verifier, answerer) for answerer in self.answerers)

    @cached_property
    def circuits(self) -> tuple[Hashable, ...]:
        """What the breaker knows the models by."""
        return tuple(key_of(model) for model in self.models)

    @cached_property
    def checkers(self) -> tuple[Runnable[Any, Any], ...]:
        """What checks the answers of each model."""
        return tuple(
            verifier_for(told_of(self.verifier, answerer), model)
            for model, answerer in zip(self.models, self.answerers, strict=True)
        )


@dataclass
class Way:
    """How far one query has come."""

    input: Any
    asked: VerifierInput
    query_id: str
    ledger: Ledger
    replies: dict[int, Reply] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    """What the answering calls that failed came to, by model, in the order made."""

    unchecked: dict[tuple[int, str | None], str] = field(default_factory=dict)
    """Checks that failed, by model and name of the check, and why: they are not made again."""

    router_failed: str | None = None
    """Why the router is not asked any more, as a sentence without its end."""

    belief: Mapping[str, float] = field(default_factory=dict)
    """What the router last expected of the models, by name."""

    degraded: str | None = None
    """Why the answer is less than it would be, had nothing gone wrong; one sentence."""

    allowance: Allowance = FREELY
    """What it may spend."""

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """What goes to the answering models."""

    hedged: dict[int, Reply | Exception] = field(default_factory=dict)
    """What models gave that were asked before it was known whether they would be needed."""

    hedged_model: str | None = None
    """Name of such a model."""

    clock: Clock | None = None
    """Counts its time; None: it has all of it."""

    shown: int | None = None
    """Model whose answer was told to everyone while it came."""

    recorded: bool = False
    """Whether its record was told: it has come to its end, and nothing more is paid for."""

    @property
    def current(self) -> Visit:
        """The model asked last."""
        return list(self.ledger.visits.values())[-1]

    @property
    def usable(self) -> list[int]:
        """Models whose answer could be used, in the order asked."""
        visits = self.ledger.visits
        checks = {index: visits[index].verification for index in self.replies}
        return [index for index, check in checks.items() if check is None or check.usable]

    def state(self, names: tuple[str, ...]) -> RoutingState:
        """Return what the router is told, but for the time: see `_in_time.options`."""
        return RoutingState(
            models=names,
            visits=tuple(self.ledger.visits.values()),
            query_id=self.query_id,
            cost_weight=self.allowance.cost_weight,
            cost_so_far=self.ledger.cost_so_far,
        )

    def best(self, names: Sequence[str]) -> int:
        """Return which usable answer the router expected most of; the latest, if it said none."""
        known = [self.belief.get(names[index]) for index in self.usable]
        if None in known:
            return self.usable[-1]
        return max(self.usable, key=lambda index: self.belief[names[index]])
