"""The goal of a fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from langchain_automix.errors import AutoMixError

GOALS = ("cost_weight", "max_cost", "min_quality", "max_loss")


@dataclass(frozen=True)
class Goal:
    """What a policy is fitted for; at most one of the first four.

    Attributes:
        cost_weight: Quality that one unit of the log's cost is worth, at least 0.
        max_cost: Mean cost of a query, in the log's currency, that must not be exceeded.
        min_quality: Expected mean quality, in [0, 1], to reach; expectations are shrunk, so the
            mean on the log may fall a little short.
        max_loss: Expected mean quality, in [0, 1], that may be lost against the single model that
            is best on the log.
        max_risk: Largest chance, in (0, 1), that an answer is given and is wrong.
        abstain_value: Utility of giving no answer; None: an answer is always given.
    """

    cost_weight: float | None = None
    max_cost: float | None = None
    min_quality: float | None = None
    max_loss: float | None = None
    max_risk: float | None = None
    confidence_level: float = 0.95
    abstain_value: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in GOALS if getattr(self, name) is not None]
        if len(given) > 1:
            raise AutoMixError(f"Give one goal, not both {given[0]} and {given[1]}.")
        for one, other in (
            ("max_risk", "max_cost"),
            ("max_risk", "min_quality"),
            ("max_risk", "max_loss"),
            ("abstain_value", "min_quality"),
            ("abstain_value", "max_loss"),
        ):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise AutoMixError(f"{one} and {other} cannot be had together; give one of them.")
        bounds = {
            "cost_weight": (0, np.inf, "a number of at least 0"),
            "max_cost": (0, np.inf, "a cost of at least 0 a query"),
            "min_quality": (0, 1, "a quality in [0, 1]"),
            "max_loss": (0, 1, "a loss of quality in [0, 1]"),
            "max_risk": (1e-9, 1 - 1e-9, "a chance between 0 and 1"),
            "confidence_level": (1e-9, 1 - 1e-9, "a chance between 0 and 1"),
            "abstain_value": (-np.inf, np.inf, "a number"),
        }
        for name, (low, high, what) in bounds.items():
            value = getattr(self, name)
            # Infinity is no weight, and no comparison with NaN holds.
            if value is not None and not (low <= value <= high and np.isfinite(value)):
                raise AutoMixError(f"{name} must be {what}; given: {value!r}.")

    def to_record(self) -> dict[str, float]:
        """Return what was given, for the policy file."""
        names = (*GOALS, "max_risk", "abstain_value")
        found = {n: float(getattr(self, n)) for n in names if getattr(self, n) is not None}
        if self.max_risk is not None:
            found["confidence_level"] = self.confidence_level
        return found
