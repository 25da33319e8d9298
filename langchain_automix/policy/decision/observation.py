"""How a policy's table reads what a check found; what its options are called."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Price = Annotated[float, Field(ge=0)]
Place = Annotated[int, Field(ge=0)]

Observation = tuple[int, ...]
"""Accepts, rejects and invalid verdicts; or the number of the score's bin."""


class Frozen(BaseModel):
    """Base of what stands in a policy file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CheckEncoding(Frozen):
    """How a table of several checks reads one of them.

    In `Row.seen` a sampled check has three places: accepts, rejects and invalid verdicts. A score
    has one: its bin, counted from 1. A check that found nothing, or was not made, has zeros.
    """

    name: str | None = None
    """Name of the check; None: the first one."""

    kind: Literal["verdicts", "score"]
    counts_invalid: bool = False
    """Whether invalid verdicts are evidence; if not, they are left out."""

    edges: tuple[Share, ...] = ()
    """Where one bin of the score ends and the next begins, ascending."""

    most: Place = 0
    """Most verdicts that the rows know; 0 for a score."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError("the edges of a score's bins ascend")
        if (self.kind == "verdicts") != (self.most > 0):
            raise ValueError("a check reads at least one verdict, or a score")
        return self

    @property
    def nothing(self) -> Observation:
        """What stands in `Row.seen` for nothing found."""
        return (0,) if self.kind == "score" else (0, 0, 0)

    def may_be(self, seen: Observation) -> bool:
        """Whether a row may say this of the check."""
        if self.kind == "score":
            return seen[0] <= len(self.edges) + 1
        return sum(seen) <= self.most and (self.counts_invalid or seen[2] == 0)

    def place(self, accepts: int, rejects: int, invalid: int, score: float | None) -> Observation:
        """Return what stands in `Row.seen` for a finding; zeros where there is nothing to go by."""
        if self.kind == "score":
            return self.nothing if score is None else (bisect.bisect_right(self.edges, score) + 1,)
        return scale_counts(accepts, rejects, invalid if self.counts_invalid else 0, self.most)


def scale_counts(accepts: int, rejects: int, invalid: int, most: int) -> tuple[int, int, int]:
    """Return counts of verdicts, scaled down to the most that a table knows."""
    total = accepts + rejects + invalid
    if total > most:
        accepts = round(accepts * most / total)
        invalid = min(round(invalid * most / total), most - accepts)
        rejects = most - accepts - invalid
    return accepts, rejects, invalid


def verify_option(check: str | None, samples: int | None) -> str:
    """Return the name of the option to check on: `verify:4`, `verify:logprob`, `verify:self:4`."""
    parts = ("verify", check, None if samples is None else str(samples))
    return ":".join(part for part in parts if part is not None)


def check_of(option: str) -> tuple[str | None, int | None]:
    """Return the check and the number of verdicts that an option to check on names."""
    parts: Sequence[str] = option.split(":")[1:]
    samples = int(parts[-1]) if parts and parts[-1].isdigit() else None
    named = parts if samples is None else parts[:-1]
    return (named[0] if named else None), samples
