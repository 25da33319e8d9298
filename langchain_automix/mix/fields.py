"""The keyword arguments of the mixes, for completion in editors and for type checkers.

Each is documented at the field of the same name in `MixSettings`, `AutoMixRunnable` or
`ChatAutoMix`. A test compares the names here with those fields.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar, get_type_hints

from langchain_core.callbacks import Callbacks
from langchain_core.runnables import Runnable

from langchain_automix.mix.config import OnEscalationError, OnVerificationError
from langchain_automix.mix.learner import Learner
from langchain_automix.mix.limits.circuit_breaker import CircuitBreaker
from langchain_automix.mix.limits.spend_limit import SpendLimit

F = TypeVar("F", bound=Callable[..., Any])


class CommonFields(TypedDict, total=False):
    """The arguments of every form of mix, besides its models, check and router."""

    abstention: str
    always_escalate_tools: Sequence[str]
    retries_if_unusable: int
    on_escalation_error: OnEscalationError
    on_verification_error: OnVerificationError
    allow_missing_finish_reason: bool
    max_latency: float | None
    hedge: float | None
    give_up_early: bool
    cost_weight: float | None
    force_model: int | str | None
    verification: bool
    prices: Mapping[str, Mapping[str, float]] | Callable[..., Any] | None
    spend_limit: SpendLimit | Sequence[SpendLimit] | None
    circuit_breaker: CircuitBreaker | None
    learning: Learner | None


class MixFields(CommonFields, total=False):
    """The arguments of every form of mix, besides its models."""

    verifier: Runnable[Any, Any] | str
    router: Runnable[Any, Any] | str | Path | float


class _RunnableOnly(TypedDict, total=False):
    name: str | None
    prompt: Runnable[Any, Any] | None
    question_key: str
    context_key: str
    history_key: str


class RunnableFields(MixFields, _RunnableOnly, total=False):
    """The arguments of `AutoMixRunnable`, besides its models."""


class RunnablePolicyFields(CommonFields, _RunnableOnly, total=False):
    """The arguments of `AutoMixRunnable`, besides its models and what a policy defines."""


class _ChatOnly(TypedDict, total=False):
    name: str | None
    temperature: float | None
    max_tokens: int | None
    stop: list[str] | None
    disable_streaming: Any
    callbacks: Callbacks
    tags: list[str] | None
    metadata: dict[str, Any] | None
    verbose: bool
    profile: Any
    custom_get_token_ids: Callable[[str], list[int]] | None


class ChatFields(MixFields, _ChatOnly, total=False):
    """The arguments of `ChatAutoMix`, besides its models."""


class ChatPolicyFields(CommonFields, _ChatOnly, total=False):
    """The arguments of `ChatAutoMix`, besides its models and what a policy defines."""


def names_of(fields: Any) -> frozenset[str]:
    """Return the names in one of the TypedDicts above."""
    return frozenset(fields.__optional_keys__)


def listing(fields: type) -> Callable[[F], F]:
    """Decorate a function with `**fields` so that its signature also lists them at run time.

    Notebooks complete arguments from `inspect.signature`, which does not read a TypedDict.
    """

    def change(function: F) -> F:
        signature = inspect.signature(function)
        named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        given = {parameter.name for parameter in named}
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=..., annotation=hint)
            for name, hint in get_type_hints(fields).items()
            if name not in given
        ]
        listed = signature.replace(parameters=[*named, *more])
        function.__signature__ = listed  # type: ignore[attr-defined]
        return function

    return change
