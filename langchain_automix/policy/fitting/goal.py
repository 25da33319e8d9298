"""The goal of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from langchain_automix.errors import AutoMixError

_RISK_CONFIDENCE = 0.95

_OLD_NAMES = {"confidence_level": "confidence"}
"""Names used in policy files of earlier versions."""

TARGETS = ("max_cost", "min_quality", "max_loss")
"""Goals that bound the mean cost or quality."""

GOALS = ("cost_weight", *TARGETS)


@dataclass(frozen=True)
class Goal:
    """What a policy is fitted for; at most one of the first four.

    Attributes:
        cost_weight: How much quality one unit of the log's cost is worth, at least 0.
        max_cost: Maximum mean cost of a query, in the log's currency.
        min_quality: Minimum expected mean quality, in [0, 1]. Expectations are shrunk, so the mean
            on the log may fall slightly short of it.
        max_loss: Maximum loss of expected mean quality, in [0, 1], against the single model that is
            best on the log.
        max_risk: Maximum probability, in (0, 1), that an answer is given and is wrong.
        confidence: Confidence, in (0, 1), with which `max_cost`, `min_quality`, `max_loss` or
            `max_risk` must hold on new queries. None: it holds in expectation; 0.95 for `max_risk`.
        abstain_value: Utility of giving no answer. None: an answer is always given.
    """

    cost_weight: float | None = None
    max_cost: float | None = None
    min_quality: float | None = None
    max_loss: float | None = None
    max_risk: float | None = None
    confidence: float | None = None
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
            "confidence": (1e-9, 1 - 1e-9, "a chance between 0 and 1"),
            "abstain_value": (-np.inf, np.inf, "a number"),
        }
        for name, (low, high, what) in bounds.items():
            value = getattr(self, name)
            # Infinity is not a valid weight, and comparisons with NaN are never true.
            if value is not None and not (low <= value <= high and np.isfinite(value)):
                raise AutoMixError(f"{name} must be {what}; given: {value!r}.")
        if self.confidence is not None and self.max_risk is None and not self.target:
            raise AutoMixError(
                "confidence says how sure a target must be, and none is given: give max_loss, "
                "min_quality, max_cost or max_risk."
            )

    @classmethod
    def names(cls) -> list[str]:
        """Return the names that a goal may have, including those of earlier versions."""
        return [*(field.name for field in fields(cls)), *_OLD_NAMES]

    @classmethod
    def of_record(cls, record: Mapping[str, float]) -> Self:
        """Read the goal from a policy file, even of an earlier version; other names are ignored.

        Raises:
            AutoMixError: The goal is invalid.
        """
        known = set(cls.names())
        named = {_OLD_NAMES.get(name, name): value for name, value in record.items()}
        return cls(**{name: value for name, value in named.items() if name in known})

    @property
    def target(self) -> dict[str, float]:
        """`max_cost`, `min_quality` or `max_loss` with its value, if one of them is given."""
        given = {name: getattr(self, name) for name in TARGETS}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def risk_confidence(self) -> float:
        """Confidence with which `max_risk` must hold."""
        return _RISK_CONFIDENCE if self.confidence is None else self.confidence

    def to_record(self) -> dict[str, float]:
        """Return the given values, for the policy file."""
        names = (*GOALS, "max_risk", "abstain_value")
        found = {n: float(getattr(self, n)) for n in names if getattr(self, n) is not None}
        if self.max_risk is not None:
            found["confidence"] = self.risk_confidence
        elif self.confidence is not None:
            found["confidence"] = self.confidence
        return found
