"""One query of a routing log, in the form of a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    field_validator,
    model_validator,
)

# Strict: a text or a truth value is not accepted as a number, nor "yes" as a verdict.
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Cost = Annotated[float, Field(strict=True, ge=0, le=1e15)]

FIRST_CHECK = "first"
"""Name of the first of several checks; no further check may have it."""


def check_name(name: str) -> str:
    """Return the name of a further check.

    Raises:
        ValueError: A policy could not tell it from other things: `verify:4` draws 4 verdicts.
    """
    if not name or name == FIRST_CHECK or name.isdigit() or ":" in name or "," in name:
        raise ValueError(
            f"the name of a check must not be empty, {FIRST_CHECK!r} or a number, nor contain a "
            f"colon or comma: {name!r}"
        )
    return name


CheckName = Annotated[str, AfterValidator(check_name)]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LoggedVerification(_Line):
    """What a check of one answer found, and what it cost."""

    verdicts: tuple[StrictBool | None, ...] | None = Field(default=None, min_length=1)
    """Verdicts in the order drawn; None is an invalid one."""

    score: Share | None = None
    """Confidence of a continuous check; None beside a `cost`: it was made and found nothing."""

    fixed_cost: Cost = 0.0
    """Cost of a sampled check, regardless of the number of its verdicts."""

    sample_cost: Cost = 0.0
    """Cost of each verdict."""

    cost: Cost | None = None
    """Cost of a continuous check."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.verdicts is not None and self.score is not None:
            raise ValueError("give either verdicts or a score")
        if self.verdicts is None and self.score is None and self.cost is None:
            raise ValueError("give either verdicts or a score, or what a check without them cost")
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
    """Check of the answer, the first where there are several; None if it was not checked."""

    checks: Mapping[CheckName, LoggedVerification] = Field(default_factory=dict)
    """Further checks of the answer, by name; one that was not made is not here."""


class LoggedQuery(_Line):
    """One query: the answers of all models, in the order of the models."""

    id: str = Field(min_length=1)
    answers: tuple[LoggedAnswer, ...] = Field(min_length=1)
    currency: str | None = None
    metadata: Mapping[str, Any] | None = None

    @field_validator("metadata")
    @classmethod
    def _can_be_written(cls, metadata: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        waiting: list[Any] = list((metadata or {}).values())
        while waiting:
            value = waiting.pop()
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{value} is not a JSON number")
            if isinstance(value, Mapping):
                waiting.extend(value.values())
            elif isinstance(value, list | tuple):
                waiting.extend(value)
        return metadata
