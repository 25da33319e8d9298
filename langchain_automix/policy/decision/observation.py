"""How a decision table encodes what a check found, and how its options are named."""

from __future__ import annotations

import bisect
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

Share = Annotated[float, Field(ge=0, le=1)]

Observation = tuple[int, ...]
"""Accepts, rejects and invalid verdicts; or the bin of a score, counted from 1. All zeros if a
check found nothing or was not made."""


class Frozen(BaseModel):
    """Base of everything in a policy file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CheckEncoding(Frozen):
    """How a decision table reads one check."""

    name: str | None = None
    """Name of the check; None for the first one."""

    kind: Literal["verdicts", "score"]
    counts_invalid: bool = False
    """Whether invalid verdicts count as evidence; if not, they are ignored."""

    edges: tuple[Share, ...] = ()
    """Boundaries between the bins of the score, in ascending order."""

    most: NonNegativeInt = 0
    """Maximum number of verdicts that the rows cover; 0 for a score."""

    @model_validator(mode="after")
    def _validate(self) -> Self:
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError("the edges of a score's bins ascend")
        if (self.kind == "verdicts") != (self.most > 0):
            raise ValueError("a check reads at least one verdict, or a score")
        return self

    @property
    def nothing(self) -> Observation:
        """The observation of a check that found nothing."""
        return (0,) if self.kind == "score" else (0, 0, 0)

    def allows(self, observation: Observation) -> bool:
        """Whether the check can lead to this observation."""
        if self.kind == "score":
            return observation[0] <= len(self.edges) + 1
        return sum(observation) <= self.most and (self.counts_invalid or observation[2] == 0)

    def encode(self, accepts: int, rejects: int, invalid: int, score: float | None) -> Observation:
        """Return the observation; counts beyond what the rows cover are scaled down."""
        if self.kind == "score":
            return (0,) if score is None else (bisect.bisect_right(self.edges, score) + 1,)
        invalid = invalid if self.counts_invalid else 0
        total = accepts + rejects + invalid
        if total > self.most:
            accepts = round(accepts * self.most / total)
            invalid = min(round(invalid * self.most / total), self.most - accepts)
            rejects = self.most - accepts - invalid
        return accepts, rejects, invalid

    def is_exhausted(self, drawn: int, invalid: int) -> bool:
        """Whether enough verdicts were drawn, so that invalid ones are not replaced endlessly."""
        return drawn + invalid >= 2 * self.most


def verify_option(check: str | None, samples: int | None) -> str:
    """Return the name of an option to verify: `verify:4`, `verify:logprob`, `verify:self:4`."""
    parts = ("verify", check, None if samples is None else str(samples))
    return ":".join(part for part in parts if part is not None)


def parse_verify_option(option: str) -> tuple[str | None, int | None]:
    """Return the check and the number of verdicts that an option to verify names."""
    parts = option.split(":")[1:]
    samples = int(parts.pop()) if parts and parts[-1].isdigit() else None
    return (parts[0] if parts else None), samples
