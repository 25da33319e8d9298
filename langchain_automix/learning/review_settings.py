"""What a review of the traffic goes by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.decision.score_prior import SHIPPED, ScorePrior


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
        shares = {"share": self.share, "warm_up_share": self.warm_up_share}
        if self.max_loss is not None:
            shares["max_loss"] = self.max_loss
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise AutoMixError(f"{name} must lie in [0, 1]; given: {value!r}.")
        if not 0 < self.confidence < 1:
            raise AutoMixError(
                f"confidence must be a chance between 0 and 1; given: {self.confidence!r}."
            )
        if self.cost_weight is not None and not self.cost_weight >= 0:
            raise AutoMixError(f"cost_weight must be at least 0; given: {self.cost_weight!r}.")

    @property
    def alpha(self) -> float:
        """Chance that any change of an epoch is a bad one."""
        return 1 - self.confidence
