"""One query of a routing log, as it stands in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

# Strict, so that no text and no truth value passes for a number, nor "yes" for a verdict.
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Cost = Annotated[float, Field(strict=True, ge=0, le=1e15)]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LoggedVerification(_Line):
    """What a check of one answer found, and what it cost."""

    verdicts: tuple[StrictBool | None, ...] | None = Field(default=None, min_length=1)
    """Verdicts in the order drawn; None is an invalid one."""

    score: Share | None = None
    """Confidence of a continuous check."""

    fixed_cost: Cost = 0.0
    """Cost of a sampled check, whatever the number of its verdicts."""

    sample_cost: Cost = 0.0
    """Cost of each verdict."""

    cost: Cost | None = None
    """Cost of a continuous check."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.verdicts is None) == (self.score is None):
            raise ValueError("give either verdicts or a score")
        return self

    @property
    def accepts(self) -> int:
        """Number of verdicts that accept the answer."""
        return sum(verdict is True for verdict in self.verdicts or ())

    @property
    def rejects(self) -> int:
        """Number of verdicts that reject the answer."""
        return sum(verdict is False for verdict in self.verdicts or ())

    @property
    def total_cost(self) -> float:
        """Cost of the whole check."""
        if self.verdicts is None:
            return self.cost or 0.0
        return self.fixed_cost + len(self.verdicts) * self.sample_cost

    @property
    def confidence(self) -> float | None:
        """Share of accepts among the valid verdicts, or the score; None if unknown."""
        valid = self.accepts + self.rejects
        return self.accepts / valid if valid else self.score


class LoggedAnswer(_Line):
    """What one model did with one query."""

    model: str = Field(min_length=1)
    """Name of the model."""

    quality: Share | None
    """How good the answer is, in [0, 1]; None if the model was not run."""

    cost: Cost | None = None
    """Cost of the answer; None if the model was not run."""

    verification: LoggedVerification | None = None
    """Check of the answer; None if it was not checked."""


class LoggedQuery(_Line):
    """One query: the answers of all models, in the order of the models."""

    id: str = Field(min_length=1)
    answers: tuple[LoggedAnswer, ...] = Field(min_length=1)
    currency: str | None = None
    metadata: Mapping[str, Any] | None = None
