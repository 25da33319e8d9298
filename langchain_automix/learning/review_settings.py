"""What a review of the traffic goes by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.decision.score_prior import SHIPPED, ScorePrior

_LEAST_CONFIDENCE = 0.5


@dataclass(frozen=True)
class ReviewSettings:
    """What a review of the traffic goes by; see `Learning` for what users set of it."""

    max_loss: float | None = 0.01
    """Mean quality that may be lost against the largest model; None where `cost_weight` is set."""

    cost_weight: float | None = None
    """Quality that a dollar is worth: a policy is better if it has more utility."""

    confidence: float = 0.95
    """How sure a change must be to be a good one, over all changes of an epoch together."""

    share: float = 0.02
    """Share of the queries that are shadowed while a policy decides."""

    warm_up_share: float = 1.0
    """Share of the queries that are shadowed until there is a policy, while more could help."""

    promote: Literal["auto", "ask"] = "auto"
    on_drift: Literal["shadow", "safe"] = "shadow"
    seed: int = 0
    prior: ScorePrior | None = SHIPPED
    """What a score says before any label; None: nothing."""

    def __post_init__(self) -> None:
        if (self.max_loss is None) == (self.cost_weight is None):
            raise AutoMixError(
                "Learning goes by one goal: max_loss, the quality that may be lost, or "
                "cost_weight, the quality that a dollar is worth."
            )
        check_numbers(vars(self))

    @property
    def alpha(self) -> float:
        """Chance that any change of an epoch is a bad one."""
        return 1 - self.confidence


def check_numbers(given: Mapping[str, Any]) -> None:
    """Check those of a user's numbers that are given, by their names.

    Raises:
        AutoMixError: One is none, or lies outside its bounds.
    """
    for name in ("share", "warm_up_share", "max_loss"):
        if given[name] is not None and not (_is_number(given[name]) and 0 <= given[name] <= 1):
            raise AutoMixError(f"{name} must lie in [0, 1]; given: {given[name]!r}.")
    confidence = given["confidence"]
    if not (_is_number(confidence) and _LEAST_CONFIDENCE <= confidence < 1):
        raise AutoMixError(
            f"confidence must be a chance of at least {_LEAST_CONFIDENCE} and below 1; given: "
            f"{confidence!r}."
        )
    for name in ("cost_weight", "keep_days", "keep_queries"):
        value = given.get(name)
        if value is not None and not (_is_number(value) and 0 <= value < math.inf):
            raise AutoMixError(f"{name} must be a number of at least 0; given: {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
