"""The fields shared by every form of the mix."""

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
from langchain_automix.routers.threshold import ThresholdRouter
from langchain_automix.utils.install import install_hint
from langchain_automix.utils.user_warnings import warn_user
from langchain_automix.verifiers.base import models_of
from langchain_automix.verifiers.default import DefaultVerifier


class MixSettings(HoldsModels, BaseModel):
    """The fields shared by every form of the mix."""

    models: list[Runnable[Any, Any]]
    """The chat models, two or more, cheap to expensive. A model may have bound arguments, retries
    or fallbacks, or be a name such as `"openai:gpt-5.4-mini"` (needs `langchain`)."""

    verifier: Runnable[Any, Any] = Field(default_factory=DefaultVerifier)
    """Checks an answer: a Runnable from `VerifierInput` to `Verification`, or the name of a check
    as `automix calibrate --check` accepts it, such as `"agreement"`. A `SelfVerifier` without a
    model checks with the model that answered. The default with a policy is the check that it was
    fitted to, if the file names it. With a `POMDPRouter` without a policy, it is a
    `DefaultVerifier`, among whose checks the router buys those that are worth their price. In all
    other cases, it is `SelfVerifier()`."""

    router: Runnable[Any, Any] = Field(default_factory=POMDPRouter)
    """Decides what to do next: a Runnable from `RoutingState` to `Decision`, the path of a policy
    file, or a number in [0, 1], the lowest confidence at which an answer is kept. To take the check
    from a policy as well, use `from_policy`."""

    abstention: str = "No answer: none is likely enough to be right."
    """Text of the answer if the router abstains."""

    always_escalate_tools: list[str] = Field(default_factory=list)
    """Names of tools that the first model may never call; the next model is asked instead."""

    retries_if_unusable: int = Field(default=0, ge=0)
    """How often a model is asked again if its answer cannot be used (a tool call or a structured
    output that does not fit its schema), before the next model is asked."""

    on_escalation_error: OnEscalationError = "raise"
    """What to do if an answer was not kept, and then a larger model fails or gives an unusable
    answer, and no later model answers. `raise`: raise its error, or give its answer as it is, since
    a rejected answer is never shown unless asked for. `answer`: give the best earlier answer,
    except instead of a tool call that an agent can repair; the record's `degraded` says so."""

    on_verification_error: OnVerificationError = "escalate"
    """What to do if a check fails completely. `escalate`: ask the next model, or keep the last
    model's answer. `keep`: keep the answer unchecked. `prior`: decide by the mean qualities in the
    log that the policy was fitted to; for routers that know none, the same as `escalate`. `raise`:
    raise the error."""

    allow_missing_finish_reason: bool = False
    """Whether to accept a stream of OpenAI's protocol that ends with neither a finish reason nor
    usage, as the plain model does; some servers never send either. A broken connection may then go
    unnoticed. If False, such a stream counts as cut (`CutShortError`), and another model is
    asked."""

    max_latency: float | None = Field(default=None, gt=0)
    """Seconds that one query may take; None sets no limit. A call that is not expected to end in
    time, judging by the mix's calls so far, is skipped: a check first, then a larger model. A call
    still running when the time is up is abandoned. The best answer so far is then given, and the
    record's `degraded` says so; if there is none, a `DeadlineError` is raised. An answer that is
    already being shown continues to its end."""

    hedge: float | None = Field(default=None, ge=0, le=1)
    """The least probability, in [0, 1], of a check leading to the next model for that model to be
    asked alongside the check. This is quicker, but is paid for even if the answer turns out not to
    be needed (the record's `hedged` names the model). It needs a fitted policy, and a check that
    makes a request. None: never."""

    give_up_early: bool = False
    """Whether to give up a draft while it is being written, as soon as the check can no longer find
    anything that would keep it. Its stream is closed and the next model is asked: the same answer,
    sooner. It works with a check by log-probabilities with `statistic="min"`, `"first"` or
    `"margin"`; such drafts are requested as streams, and the cost of a closed stream is unknown. It
    has no effect if anything else could keep the draft: with `max_latency`,
    `on_escalation_error="answer"` or `retries_if_unusable`. It cannot be combined with `learning`,
    which learns from whole drafts."""

    cost_weight: float | None = Field(default=None, ge=0)
    """How much quality one unit of cost is worth, instead of the policy's own weight. The checks
    stay as fitted; only the choice of the answer changes. None: as fitted."""

    force_model: int | str | None = None
    """Index or name of the one model that answers. Its answer is kept whatever it says, without any
    check (not even the free ones), and even if it calls a tool of `always_escalate_tools`. None:
    the router decides."""

    verification: bool = True
    """Whether answers are checked. If False, the router picks the model that answers, knowing that
    nothing is checked; only an unusable answer leads to the next model."""

    prices: dict[str, dict[str, float]] | Callable[..., Any] | None = None
    """What tokens cost: a table, by model name, of dollars per million tokens (`input`, `output`
    and, if they differ, `cache_read`, `cache_write`, `cache_write_1h`, `input_audio`,
    `output_audio`, `reasoning`), or a function from one request (a `ModelCall`) to dollars. The
    function returns None for an unknown price; an error counts as None, too (`PriceWarning`).
    Prices missing here come from `genai-prices` (the extra `prices`). A price found nowhere is
    unknown, never 0."""

    spend_limit: SpendLimit | list[SpendLimit] | None = None
    """Limits on what queries may cost together, per period, tag or tenant; see `SpendLimit`.
    Several limits apply at the same time. The price of every model must be known."""

    circuit_breaker: CircuitBreaker | None = None
    """Skips a model that keeps failing, until it answers again; see `CircuitBreaker`. None: every
    model is asked, however often it has failed."""

    learning: Learner | None = None
    """A `Learning`, which learns from the mix's own queries and chooses the policy that decides
    each. Until a policy is proven, the largest model alone answers. None: the router decides."""

    # Shared by mixes of the same models: what one learns applies to all.
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
        """Use a check that is chosen by price only if the router chooses by price.

        The free check is added to a calibrated check if its policy expects it.
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
            # Raise this package's own message directly, not inside pydantic's report.
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
        """Reject models that are not ordered cheap to expensive, as far as their prices are known.

        Raises:
            AutoMixError: There are fewer than two models, or one costs more than the one after it.
        """
        if len(names) < 2:  # noqa: PLR2004
            raise AutoMixError(
                f"A mix needs two or more models, cheap to expensive; given: {len(names)}."
            )
        prices = [list_prices(model) for model in self.models]
        for i, (this, following) in enumerate(itertools.pairwise(prices)):
            if this and following and this != following and _at_least(this, following):
                raise AutoMixError(
                    f"The models go cheap to expensive, but {names[i]} costs ${this[0]:g} in and "
                    f"${this[1]:g} out for a million tokens, more than {names[i + 1]} after it "
                    f"(${following[0]:g} and ${following[1]:g}): swap them."
                )

    def _warn_of_router(self) -> None:
        """Warn of settings that the router ignores, and of a check that it was not fitted to."""
        if self.cost_weight is not None and isinstance(self.router, ThresholdRouter):
            warn_user("A ThresholdRouter knows no cost: cost_weight has no effect.")
        if isinstance(self.router, POMDPRouter):
            self.router.warn_of_verifier(self.verifier)

    def _check_limits(self, names: Sequence[str]) -> None:
        """Reject models whose spending a limit could not count, or would count twice.

        Raises:
            AutoMixError: A model has no known price, or is a mix with the same limit.
        """
        if not (limits := limits_of(self.spend_limit)):
            return
        checking = models_of(self.verifier) if self.verification else []
        # A Runnable that is not a chat model, such as a decision model, names itself only in its
        # answers.
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

    # Values derived from the fields are dropped when a field changes.

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
