"""What a plan does, and the tables from what checks found to what is done."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Sequence
from functools import cached_property
from itertools import combinations
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from langchain_automix.policy.decision.observation import (
    CheckEncoding,
    Frozen,
    Observation,
    Place,
    Share,
    check_of,
    scale_counts,
)

CHECKED = ", checked"
"""Ends the name of an option whose answer is checked in turn."""


class PlannedAction(Frozen):
    """What is done next."""

    action: Literal["answer", "verify", "escalate", "abstain"]

    model: Place
    """Index of the model that is asked or checked, or whose answer is kept."""

    samples: Place | None = None
    """Verdicts to draw next; 0 after `escalate`: keep that answer unchecked; None: as many as
    the verifier draws by itself."""

    then: Place | None = None
    """Table that reads the check that follows; None where none follows."""

    check: str | None = None
    """Name of the check that follows, where there are several; None: the first one, or none."""

    @model_serializer(mode="wrap")
    def _as_before(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(written(self), "check", self.check)


def _without(written: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    """Leave out a field that policies of one check do not have, so that they stay as they were."""
    if not value:
        written.pop(name, None)
    return written


class DecisionRow(Frozen):
    """What is done after one finding, and why."""

    seen: tuple[Place, ...] = Field(min_length=1)
    """Accepts, rejects and invalid verdicts; or the one number of the score's bin. Where there
    are several checks: what `CheckEncoding` says of each, one after the other."""

    step: PlannedAction
    chance: Share = 0.0
    """How often this finding turns up under the policy, when it comes to this table."""

    quality: tuple[float, ...] = ()
    """Expected quality of each model in play."""

    values: dict[str, float] = Field(default_factory=dict)
    """Expected utility still to come, of each option."""

    def kept(self, answered: Collection[int], plays: Sequence[int]) -> int:
        """Return the model whose answer is the best so far: what the value of `answer` is of.

        Args:
            answered: Models that have answered, at least one.
            plays: The plan's models in play.
        """
        quality = dict(zip(plays, self.quality, strict=False))
        return max(answered, key=lambda model: (quality.get(model, -1.0), model))

    def settled(
        self, answered: Collection[int], plays: Sequence[int], names: Sequence[str]
    ) -> PlannedAction:
        """Return the best that the values offer without another check of the latest answer.

        Args:
            answered: Models that have answered.
            plays: The plan's models in play.
            names: Of all models.
        """
        left = [option for option in self.values if not option.startswith("verify")]
        return self._best(answered, plays, names, left)

    def instead(
        self,
        answered: Collection[int],
        plays: Sequence[int],
        names: Sequence[str],
        spent: Collection[str | None],
    ) -> PlannedAction:
        """Return what is done if some checks of the latest answer cannot be made any more.

        Args:
            answered: Models that have answered.
            plays: The plan's models in play.
            names: Of all models.
            spent: The checks, by name; None is the first.
        """
        if self.step.action != "verify" or self.step.check not in spent:
            return self.step
        left = [
            option
            for option in self.values
            if not option.startswith("verify") or check_of(option)[0] not in spent
        ]
        return self._best(answered, plays, names, left)

    def _best(
        self,
        answered: Collection[int],
        plays: Sequence[int],
        names: Sequence[str],
        options: Sequence[str],
    ) -> PlannedAction:
        # Where a later answer's check leads is not known here, but for the row's own step.
        plain = [option for option in options if not option.endswith(CHECKED)]
        best = max(plain, key=lambda option: self.values[option], default="answer")
        if best == "abstain":
            return PlannedAction(action="abstain", model=max(answered))
        if best.startswith("escalate:"):
            later = names.index(best.removeprefix("escalate:"))
            return PlannedAction(action="escalate", model=later, samples=0)
        if best.startswith("verify"):
            check, samples = check_of(best)
            return self.step.model_copy(update={"check": check, "samples": samples})
        return PlannedAction(action="answer", model=self.kept(answered, plays))


class DecisionTable(Frozen):
    """What is done after each finding of the check, or checks, of one model's answer."""

    model: Place
    kind: Literal["verdicts", "score", "several"]
    counts_invalid: bool = False
    """Whether invalid verdicts are evidence; if not, they are left out."""

    edges: tuple[Share, ...] = ()
    """Where one bin of the score ends and the next begins, ascending."""

    rows: tuple[DecisionRow, ...] = Field(min_length=1)
    checks: tuple[CheckEncoding, ...] = ()
    """How each of several checks is read, or one that is not the first; else empty."""

    @model_serializer(mode="wrap")
    def _as_before(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(written(self), "checks", self.checks)

    @cached_property
    def by_finding(self) -> dict[tuple[int, ...], DecisionRow]:
        """The rows by what was found, so that a decision is one look-up."""
        return {row.seen: row for row in self.rows}

    @cached_property
    def most(self) -> int:
        """Most verdicts that the rows know."""
        return max(sum(row.seen) for row in self.rows)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kind == "several") != bool(self.checks):
            raise ValueError("a table of several checks says how each of them is read")
        if self.kind == "several":
            self._fits_the_checks()
        elif self.kind == "score":
            wanted = {(i,) for i in range(len(self.edges) + 1)}
            if set(self.by_finding) != wanted or list(self.edges) != sorted(set(self.edges)):
                raise ValueError("a score table needs ascending edges and one row a bin")
        elif any(len(row.seen) != 3 for row in self.rows):  # noqa: PLR2004
            raise ValueError("a row of a verdict table says accepts, rejects and invalid")
        if self.kind == "score" and any(row.step.action == "verify" for row in self.rows):
            raise ValueError("a score is not drawn twice")
        if any(row.values and "answer" not in row.values for row in self.rows):
            raise ValueError("the values of a row name the option to answer")
        return self

    def _fits_the_checks(self) -> None:
        names = [reading.name for reading in self.checks]
        if len(set(names)) < len(names):
            raise ValueError("a table reads each check once")
        if len(self.by_finding) < len(self.rows) or self._key(self._nothing) not in self.by_finding:
            raise ValueError(
                "a table of several checks has one row for nothing found, and a finding"
            )
        for row in self.rows:
            parts = self.parts(row.seen)
            if not all(r.may_be(p) for r, p in zip(self.checks, parts, strict=True)):
                raise ValueError("a row of several checks says what each of them found")
            if row.step.action != "verify":
                continue
            if row.step.check not in names:
                raise ValueError("a table is of the checks that its rows ask for")
            place = names.index(row.step.check)
            if self.checks[place].kind == "score" and any(parts[place]):
                raise ValueError("a score is not drawn twice")

    @cached_property
    def _nothing(self) -> tuple[Observation, ...]:
        return tuple(reading.nothing for reading in self.checks)

    @staticmethod
    def _key(parts: Sequence[Observation]) -> Observation:
        return tuple(number for part in parts for number in part)

    def parts(self, seen: Observation) -> tuple[Observation, ...]:
        """Return what a row of several checks says of each.

        Raises:
            ValueError: It says too little or too much.
        """
        widths = [len(nothing) for nothing in self._nothing]
        if len(seen) != sum(widths):
            raise ValueError("a row of several checks says what each of them found")
        ends = [sum(widths[: i + 1]) for i in range(len(widths))]
        return tuple(seen[end - width : end] for end, width in zip(ends, widths, strict=True))

    def reached(self, parts: Sequence[Observation]) -> DecisionRow:
        """Return the row for what several checks found.

        A policy knows what it can come to. Of findings that it does not, those of as few checks
        as possible, the later ones first, count as not made.
        """
        found = self.by_finding.get(self._key(parts))
        known = [i for i, part in enumerate(parts) if any(part)]
        for number in range(len(known) - 1, -1, -1):
            if found is not None:
                break
            for kept in combinations(known, number):
                some = [p if i in kept else self._nothing[i] for i, p in enumerate(parts)]
                found = found or self.by_finding.get(self._key(some))
        return found or self.by_finding[self._key(self._nothing)]

    def at(self, seen: tuple[int, ...]) -> DecisionRow | None:
        """Return the row for a finding, as a row writes it; None if there is none."""
        return self.by_finding.get(seen)

    def find(
        self, accepts: int, rejects: int, invalid: int, score: float | None
    ) -> DecisionRow | None:
        """Return the row for what a check found; None if it found nothing to go by.

        More verdicts than the table knows are scaled down to the most that it knows.
        """
        if self.kind == "score":
            if score is None:
                return None
            return self.by_finding[bisect.bisect_right(self.edges, score),]
        if not self.counts_invalid:
            invalid = 0
        if accepts + rejects + invalid == 0:
            return None
        return self.by_finding.get(scale_counts(accepts, rejects, invalid, self.most))
