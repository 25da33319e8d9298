"""The fields of a mix, in every form of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Self

from langchain_core.runnables import Runnable
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.mix.account import MixAccount
from langchain_automix.mix.by_name import to_router, to_verifier
from langchain_automix.mix.config import OnEscalationError, OnVerificationError
from langchain_automix.mix.from_policy import check_for, with_free_check
from langchain_automix.mix.learner import Learner
from langchain_automix.mix.limits.circuit_breaker import CircuitBreaker
from langchain_automix.mix.limits.latency import LatencyEstimator
from langchain_automix.mix.limits.repeated_failures import RepeatedFailures
from langchain_automix.mix.limits.spend_limit import SpendLimit, limits_of
from langchain_automix.models.identity import identity, list_prices, open_models
from langchain_automix.models.pickling import HoldsModels
from langchain_automix.models.prices import checked_prices, is_priced, nearest_priced
from langchain_automix.models.wrappers import chat_model_of
from langchain_automix.routers.base import Router
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.utils.install import install_hint
from langchain_automix.verifiers.base import models_of
from langchain_automix.verifiers.default import DefaultVerifier


class MixSettings(HoldsModels, BaseModel):
    """The fields that every form of the mix has."""

    models: list[Runnable[Any, Any]]
    """The chat models, two or more, cheap to expensive; bound, with retries or fallbacks, or
    by name, such as `"openai:gpt-5.4-mini"` (needs `langchain`)."""

    verifier: Runnable[Any, Any] = Field(default_factory=DefaultVerifier)
    """Checks an answer: a Runnable from `VerifierInput` to `Verification`, or the name of a check
    as `automix calibrate --check` takes it, such as `"agreement"`. A `SelfVerifier` without a model
    checks with the model that answered. Default: a `DefaultVerifier`, among whose checks a
    `POMDPRouter` without a policy buys what is worth its price; with a policy, the check that it
    was fitted to, if the file says which; else `SelfVerifier()`."""

    router: Runnable[Any, Any] = Field(default_factory=POMDPRouter)
    """Decides what is done next: a Runnable from `RoutingState` to `Decision`; the path of a policy
    file; or a number in [0, 1], the least confidence at which an answer is kept. `from_policy`
    takes the check of a policy, too."""

    abstention: str = "No answer: none is likely enough to be right."
    """Text of the answer when the router abstains."""

    always_escalate_tools: list[str] = Field(default_factory=list)
    """Names of tools that the first model may never call: the next model is asked."""

    retries_if_unusable: int = Field(default=0, ge=0)
    """How often a model is asked again when its answer cannot be used (a tool call or a structured
    output that does not fit its schema), before the next model is asked."""

    on_escalation_error: OnEscalationError = "raise"
    """What to do when a larger model fails, or gives what cannot be used, after an answer was not
    kept, and no model after it answers. `raise`: raise its error, or give its answer as it is,
    since an answer that was not kept is never shown unasked. `answer`: give the best earlier
    answer, except before a tool call that an agent can mend; the record's `degraded` says so."""

    on_verification_error: OnVerificationError = "escalate"
    """What to do when a check fails as a whole. `escalate`: ask the next model, or keep the last
    one's answer. `keep`: keep the answer unchecked. `prior`: decide from the mean qualities on the
    log that the policy was fitted to; as `escalate` with routers that know none. `raise`."""

    allow_missing_finish_reason: bool = False
    """Whether a stream of OpenAI's protocol that ends with neither a finish reason nor usage is an
    answer, as it is to the plain model: some servers never send either. That a connection broke may
    then go unseen. If not, it was cut (`CutShortError`), and another model is asked."""

    max_latency: float | None = Field(default=None, gt=0)
    """Seconds that one query may take. A call that is not expected to end in time, going by how
    long this mix's calls have taken so far, is left out: a check first, then a larger model. A call
    still running when the time is up is abandoned: the best answer so far is given, and the
    record's `degraded` says so; if there is none, a `DeadlineError` is raised. An answer that is
    already being shown goes on to its end. None: no limit."""

    hedge: float | None = Field(default=None, ge=0, le=1)
    """If the fitted policy gives at least this probability that a check will lead to the next
    model, that model is asked alongside the check: quicker, but paid for even when it turns out not
    to be needed (the record's `hedged` names it). Not beside a check that makes no request. None,
    or a router without a policy: never."""

    give_up_early: bool = False
    """Whether a draft is given up while it is being written, as soon as the check cannot find
    anything any more that would keep it: its stream is closed, and the next model asked. The answer
    is the same, sooner. For a check by log-probabilities with `statistic="min"`, `"first"` or
    `"margin"`; such drafts are asked for as streams, and what a closed one cost is unknown. Never
    where anything else could keep the draft: with `max_latency`, `on_escalation_error="answer"` or
    `retries_if_unusable`. Not together with `learning`, which learns from whole drafts."""

    cost_weight: float | None = Field(default=None, ge=0)
    """How much quality one unit of cost is worth, instead of the policy's own weight: what is
    checked stays as fitted, what is kept is decided anew. None: as fitted."""

    force_model: int | str | None = None
    """Index or name of the one model that answers. Its answer is kept whatever it says: without any
    check, the free ones included, and even if it calls a tool of `always_escalate_tools`. None: the
    router decides."""

    verification: bool = True
    """Whether answers are checked. If not, the router picks the model that answers, knowing that
    nothing is checked; only an answer that cannot be used leads on to the next model."""

    prices: dict[str, dict[str, float]] | Callable[..., Any] | None = None
    """What tokens cost: a table, by model name, of dollars per million tokens (`input`, `output`;
    where they differ `cache_read`, `cache_write`, `cache_write_1h`, `input_audio`, `output_audio`,
    `reasoning`), or a function from one request (a `ModelCall`) to its dollars, or None if it does
    not know, which is also assumed if it fails (`PriceWarning`). Any price that they do not know
    comes from `genai-prices` (the extra `prices`). A price that nothing knows is unknown, never
    0."""

    spend_limit: SpendLimit | list[SpendLimit] | None = None
    """Limits on what queries may cost together: in a period, with a tag, of a tenant; see
    `SpendLimit`. Several hold side by side. Every model's price must be known."""

    circuit_breaker: CircuitBreaker | None = None
    """Skips a model that keeps failing, until it answers again: see `CircuitBreaker`. None: every
    model is asked, however often it has failed."""

    learning: Learner | None = None
    """A `Learning`: what learns from the mix's own queries, and decides by which policy each is
    answered. Until one is proven, that is the largest model alone. None: the router decides."""

    # Shared by mixes of the same models: what one learns holds for all.
    _pace: LatencyEstimator = PrivateAttr(default_factory=LatencyEstimator)
    _account: MixAccount = PrivateAttr(default_factory=MixAccount)
    _failures: RepeatedFailures = PrivateAttr(default_factory=RepeatedFailures)

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @field_validator("prices", mode="before")
    @classmethod
    def _check_prices(cls, prices: Any) -> Any:
        return checked_prices(prices)

    @field_validator("spend_limit")
    @classmethod
    def _check_names_of_limits(cls, limits: Any) -> Any:
        limits_of(limits)
        return limits

    @field_validator("learning", mode="before")
    @classmethod
    def _check_learner(cls, learning: Any) -> Any:
        if learning is not None and not isinstance(learning, Learner):
            raise AutoMixError(
                f"learning is {type(learning).__name__}, but must be a Learning, such as "
                "Learning('sqlite:///automix.db')."
            )
        return learning

    @model_validator(mode="after")
    def _settle_check(self) -> Self:
        """Have a check that is chosen by price only where something chooses it.

        A check that was calibrated has the free one beside it, as its policy knows it.
        """
        router = self.router
        chooses = isinstance(router, Router) and router.weighs_costs
        if isinstance(self.verifier, DefaultVerifier) and not chooses:
            self.verifier = check_for(router, self.models)
        elif (check := with_free_check(router, self.verifier)) is not self.verifier:
            self.verifier = check
        return self

    def __init__(self, *args: Any, **values: Any) -> None:
        try:
            super().__init__(*args, **values)
        except ValidationError as error:
            # What this package says of a value is said as it is, not inside pydantic's report.
            causes = ((each.get("ctx") or {}).get("error") for each in error.errors())
            ours = next((cause for cause in causes if isinstance(cause, AutoMixError)), None)
            if ours is None:
                raise
            raise ours from None

    @field_validator("models", mode="before")
    @classmethod
    def _load_by_name(cls, models: Any) -> Any:
        return open_models(models) if isinstance(models, Sequence) else models

    @field_validator("verifier", mode="before")
    @classmethod
    def _verifier_by_name(cls, verifier: Any, info: ValidationInfo) -> Any:
        return to_verifier(verifier, info.data.get("models") or ())

    @field_validator("router", mode="before")
    @classmethod
    def _router_by_name(cls, router: Any) -> Any:
        return to_router(router)

    def _check_order(self, names: Sequence[str]) -> None:
        """Refuse models that are not given cheap to expensive, as far as their prices are known.

        Raises:
            AutoMixError: A model is dearer than the one after it.
        """
        prices = [list_prices(model) for model in self.models]
        for i, (this, following) in enumerate(itertools.pairwise(prices)):
            if this and following and this != following and _at_least(this, following):
                raise AutoMixError(
                    f"The models go cheap to expensive, but {names[i]} costs ${this[0]:g} in and "
                    f"${this[1]:g} out for a million tokens, more than {names[i + 1]} after it "
                    f"(${following[0]:g} and ${following[1]:g}): swap them."
                )

    def _check_limits(self, names: Sequence[str]) -> None:
        """Refuse models whose spending a limit could not count, or would count twice.

        Raises:
            AutoMixError: A model has no known price, or is a mix with the same limit.
        """
        if not (limits := limits_of(self.spend_limit)):
            return
        checking = models_of(self.verifier) if self.verification else []
        # What is no chat model tells its name with each answer only, such as a decision model.
        named = [(identity(model)[0], model) for model in checking if chat_model_of(model)]
        asked = [
            *zip(names, self.models, strict=True),
            *((f"{name or 'the model'}, which checks,", model) for name, model in named),
        ]
        for name, model in asked:
            inner = chat_model_of(model) or model
            if not isinstance(inner, MixSettings):
                if not is_priced(*identity(model), self.prices):
                    raise AutoMixError(
                        f"A spend limit needs the price of every model, and that of {name} is not "
                        f"known.{nearest_priced(*identity(model), self.prices)} Give it in "
                        f"prices=, or run {install_hint('prices')}"
                    )
            elif any(a.shares_ledger_with(b) for a in limits for b in limits_of(inner.spend_limit)):
                raise AutoMixError(
                    f"{name} is a mix with the same spend limit, which would count every query "
                    "twice: set it on the outer mix only."
                )

    # What was worked out from the fields goes when a field changes.

    @override
    def model_copy(self, **how: Any) -> Self:
        copy = super().model_copy(**how)
        copy._drop_cached()  # noqa: SLF001  (of its own kind)
        return copy

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self._drop_cached()

    def _drop_cached(self) -> None:
        for name in self.__dict__.keys() - type(self).model_fields.keys():
            self.__dict__.pop(name, None)


def _at_least(costs: tuple[Any, Any], others: tuple[Any, Any]) -> bool:
    return all(cost >= other for cost, other in zip(costs, others, strict=True))
