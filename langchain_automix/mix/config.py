"""What a query's way goes by: who answers, who checks, who decides."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from langchain_core.runnables import Runnable

from langchain_automix.mix.answer import ModelAnswer, read_message
from langchain_automix.mix.limits.circuit_breaker import CircuitBreaker, key_of
from langchain_automix.mix.limits.latency import LatencyEstimator
from langchain_automix.mix.limits.spend_limit import SpendLimit
from langchain_automix.models.prices import PriceSource
from langchain_automix.models.wrappers import without_streaming
from langchain_automix.verifiers.base import bind_answerer, verifier_for
from langchain_automix.verifiers.base import prepare_answerer as set_to_answer

OnEscalationError = Literal["raise", "answer"]
OnVerificationError = Literal["escalate", "keep", "prior", "raise"]


@dataclass(frozen=True)
class MixConfig:
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

    read: Callable[[Any, int], ModelAnswer] = read_message
    read_error: Callable[[Exception], ModelAnswer | None] = lambda _: None
    """Reads what a model's own client makes of an answer that does not fit; None: it failed."""

    max_latency: float | None = None
    hedge: float | None = None
    pace: LatencyEstimator = field(default_factory=LatencyEstimator)
    """How long its calls take."""

    may_stream: bool = True
    """Whether a message is what the caller gets, and not something made of it."""

    may_be_unusable: bool = False
    """Whether `read` may find that an answer cannot be used: only the last model's is then
    shown as it comes."""

    @cached_property
    def drafters(self) -> tuple[Runnable[Any, Any], ...]:
        """What answers where the answer may yet be rejected, and so must not be streamed."""
        return tuple(without_streaming(answerer) for answerer in self.answering)

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
            verifier_for(bind_answerer(self.verifier, answerer), model)
            for model, answerer in zip(self.models, self.answerers, strict=True)
        )
