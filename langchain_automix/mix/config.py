"""`MixConfig`: which models, check and router a mix uses, and within which limits."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_automix.mix.account import MixAccount
from langchain_automix.mix.answer_format import AnswerFormat, MessageFormat
from langchain_automix.mix.limits.circuit_breaker import CircuitBreaker, key_of
from langchain_automix.mix.limits.latency import LatencyEstimator
from langchain_automix.mix.limits.repeated_failures import RepeatedFailures
from langchain_automix.mix.limits.spend_limit import SpendLimit
from langchain_automix.models.identity import identity, lacks_price, model_names
from langchain_automix.models.logprobs import asks_for_logprobs
from langchain_automix.models.prices import PriceSource
from langchain_automix.models.wrappers import as_configured, without_streaming
from langchain_automix.routers.base import Router
from langchain_automix.utils.fingerprints import fingerprint_of, repr_hash, stable_name
from langchain_automix.verifiers.base import (
    Verifier,
    bind_answerer,
    models_of,
    prepare_answerer,
    verifier_for,
)
from langchain_automix.verifiers.default import DefaultVerifier

OnEscalationError = Literal["raise", "answer"]
OnVerificationError = Literal["escalate", "keep", "prior", "raise"]


@dataclass(frozen=True)
class MixConfig:
    """Which models, check and router a mix uses, and within which limits."""

    names: tuple[str, ...]
    models: Sequence[Runnable[Any, Any]]
    """The chat models as given. They answer and, for self-checks, check."""

    verifier: Runnable[Any, Any]
    router: Runnable[Any, Any]
    answer_format: AnswerFormat = field(default_factory=MessageFormat)
    prompt: Runnable[Any, Any] | None = None
    question_key: str = "question"
    context_key: str = "context"
    history_key: str = "history"
    abstention: str = ""
    always_escalate_tools: frozenset[str] = frozenset()
    retries_if_unusable: int = 0
    on_escalation_error: OnEscalationError = "raise"
    on_verification_error: OnVerificationError = "escalate"
    allow_missing_finish_reason: bool = False
    verification: bool = True
    forced: int | None = None
    cost_weight: float | None = None
    spend_limits: Sequence[SpendLimit] = ()
    breaker: CircuitBreaker | None = None
    prices: PriceSource | None = None
    identities: Sequence[tuple[str | None, str | None]] = ()
    """Names and providers of the models, used to look up prices."""

    max_latency: float | None = None
    hedge: float | None = None
    give_up_early: bool = False
    pace: LatencyEstimator = field(default_factory=LatencyEstimator)
    """Estimates how long the mix's calls take."""

    failures: RepeatedFailures = field(default_factory=RepeatedFailures)
    """Failures in earlier queries."""

    account: MixAccount = field(default_factory=MixAccount)
    """Costs of the mix's earlier queries."""

    @cached_property
    def epoch(self) -> str:
        """Short hash of the models, the check, the prompt and the format of the answers.

        Anything learned in one epoch does not apply to queries of another.
        """
        prompt = None if self.prompt is None else stable_name(self.prompt)
        check, shape = fingerprint_of(self.verifier), self.answer_format.digest
        return repr_hash([self.names, check, prompt, shape])

    @cached_property
    def choices(self) -> frozenset[str]:
        """Keys of a run's `configurable` that select models or their settings."""
        return frozenset(spec.id for model in self.models for spec in model.config_specs)

    def named_by(self, run_config: RunnableConfig) -> Self:
        """Return a copy with the names of the models that a run's configuration selects."""
        models = [as_configured(model, run_config) for model in self.models]
        if (names := model_names(models)) == self.names:
            return self
        return replace(self, names=names, identities=[identity(model) for model in models])

    @cached_property
    def unpriced(self) -> tuple[str, ...]:
        """Names of the models without a known price, among those that answer and those that check.

        A model whose name is known only from its answers is not among them.
        """
        answering = zip(self.names, self.models, strict=True)
        checking = ((identity(m)[0] or "the check's model", m) for m in models_of(self.verifier))
        found = [name for name, m in (*answering, *checking) if lacks_price(m, self.prices)]
        return tuple(dict.fromkeys(found))

    @cached_property
    def buys_checks(self) -> bool:
        """Whether the router chooses among the checks of a `DefaultVerifier` by price."""
        router = self.router
        weighs_costs = isinstance(router, Router) and router.weighs_costs
        return weighs_costs and self.verification and self.has_default_check

    @property
    def has_default_check(self) -> bool:
        """Whether the user gave no check, so the mix chooses checks that are worth their price."""
        return isinstance(self.verifier, DefaultVerifier)

    def is_free(self, check: str | None) -> bool:
        """Whether a check makes no request and takes negligible time."""
        return isinstance(self.verifier, Verifier) and self.verifier.is_free(check)

    @cached_property
    def answerers(self) -> tuple[Runnable[Any, Any], ...]:
        """For each model, the Runnable that answers: the model with its tools or its format."""
        return tuple(self.answer_format.answerers(self.models))

    @cached_property
    def answering(self) -> tuple[Runnable[Any, Any], ...]:
        """The answerers, set up to return what the check reads from an answer."""
        return tuple(prepare_answerer(self.verifier, answerer) for answerer in self.answerers)

    @cached_property
    def drafters(self) -> tuple[Runnable[Any, Any], ...]:
        """The answerers without streaming, for answers that may still be rejected."""
        return tuple(without_streaming(answerer) for answerer in self.answering)

    @cached_property
    def _plain_drafters(self) -> tuple[Runnable[Any, Any], ...]:
        return tuple(without_streaming(answerer) for answerer in self.answerers)

    @cached_property
    def adds_logprobs(self) -> tuple[bool, ...]:
        """For each model, whether the mix requests log-probabilities that the user did not."""
        asked = zip(self.models, self.answerers, self.answering, strict=True)
        return tuple(
            plain != ready and not asks_for_logprobs(model) for model, plain, ready in asked
        )

    @cached_property
    def sends_logprobs(self) -> tuple[bool, ...]:
        """For each model, whether log-probabilities are requested, by the user or by the mix."""
        own = map(asks_for_logprobs, self.models)
        return tuple(added or asked for added, asked in zip(self.adds_logprobs, own, strict=True))

    def answerer(self, index: int, *, streams: bool, plain: bool) -> Runnable[Any, Any]:
        """Return the Runnable to call for an answer of a model.

        Args:
            index: The model.
            streams: Whether the answer may be streamed to the user.
            plain: Whether to request the answer alone, without anything that a check reads.
        """
        if streams:
            return (self.answerers if plain else self.answering)[index]
        return (self._plain_drafters if plain else self.drafters)[index]

    @cached_property
    def circuits(self) -> tuple[Hashable, ...]:
        """The circuit breaker's key of each model."""
        return tuple(key_of(model) for model in self.models)

    @cached_property
    def checkers(self) -> tuple[Runnable[Any, Any], ...]:
        """For each model, the Runnable that checks its answers."""
        return tuple(
            verifier_for(bind_answerer(self.verifier, answerer), model)
            for model, answerer in zip(self.models, self.answerers, strict=True)
        )
