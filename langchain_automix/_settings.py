"""What a user sets on a mix, in whichever form it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from langchain_core.runnables import Runnable
from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import override

from langchain_automix._models import chat_model_named
from langchain_automix.costs import checked_prices
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.verifiers.self_verifier import SelfVerifier


class MixSettings(BaseModel):
    """The fields that every form of the mix has."""

    models: list[Runnable[Any, Any]]
    """The chat models, two or more, cheap to expensive; bound, with retries or fallbacks, or
    by name, such as `"openai:gpt-5.4-mini"` (needs `langchain`)."""

    verifier: Runnable[Any, Any] = Field(default_factory=SelfVerifier)
    """Checks an answer: a Runnable from `VerifierInput` to `Verification`. A `SelfVerifier`
    without a model checks with the model that answered."""

    router: Runnable[Any, Any] = Field(default_factory=POMDPRouter)
    """Decides what is done next: a Runnable from `RoutingState` to `Decision`."""

    abstention: str = "No answer: none is likely enough to be right."
    """What is said when the router abstains."""

    always_escalate_tools: list[str] = Field(default_factory=list)
    """Names of tools whose call is never taken from the first model."""

    retries_if_unusable: int = Field(default=0, ge=0)
    """Times that a model is asked again when its answer cannot be used (a tool call or a
    structured output that does not fit its schema), before the next model is."""

    cost_weight: float | None = Field(default=None, ge=0)
    """How much quality one unit of cost is worth, instead of the policy's own weight: what is
    checked stays as fitted, what is kept is decided anew. None: as fitted."""

    force_model: int | str | None = None
    """Place or name of the one model that answers, whatever it says: without a check, also of what
    would cost nothing, and also with a tool of `always_escalate_tools`. None: the router
    decides."""

    verification: bool = True
    """Whether answers are checked. Off: the model that the router starts with, knowing that
    nothing is checked, answers; only an answer that cannot be used leads on."""

    prices: dict[str, dict[str, float]] | Callable[..., Any] | None = None
    """What tokens cost: a table, by model name, of the dollars for a million tokens (`input`,
    `output`; where they differ `cache_read`, `cache_write`, `cache_write_1h`, `input_audio`,
    `output_audio`, `reasoning`), or a function from one request (a `ModelCall`) to its dollars,
    None where it does not know. What they do not know, and everything when this is None, comes
    from `genai-prices` (the extra `prices`). What nothing knows is unknown, never 0."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @field_validator("prices", mode="before")
    @classmethod
    def _priced(cls, prices: Any) -> Any:
        return checked_prices(prices)

    @field_validator("models", mode="before")
    @classmethod
    def _named(cls, models: Any) -> Any:
        if not isinstance(models, Sequence):
            return models
        return [chat_model_named(model) if isinstance(model, str) else model for model in models]

    # What was worked out from the fields goes when a field changes.

    @override
    def model_copy(self, **how: Any) -> Self:
        copy = super().model_copy(**how)
        copy._forget()  # noqa: SLF001  (of its own kind)
        return copy

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self._forget()

    def _forget(self) -> None:
        for name in self.__dict__.keys() - type(self).model_fields.keys():
            self.__dict__.pop(name, None)
