"""Decision tables: the step to take after each observation of an answer's checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations
from typing import Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from langchain_automix.policy.decision.observation import CheckEncoding, Frozen, Observation, Share

CHECKED = ", checked"
"""Suffix of an option to escalate to a model whose answer is then checked."""


class PlannedAction(Frozen):
    """What to do next."""

    action: Literal["answer", "verify", "escalate", "abstain"]

    model: NonNegativeInt
    """Index of the model that is asked or checked, or whose answer is kept."""

    samples: NonNegativeInt | None = None
    """Number of verdicts to draw next. 0 after `escalate` keeps that answer unchecked; None draws
    the verifier's default number."""

    then: NonNegativeInt | None = None
    """Index of the table that reads the check that follows; None if no check follows."""

    check: str | None = None
    """Name of the check that follows, if there are several; None for the first one, or for none."""

    @model_serializer(mode="wrap")
    def _omit_check(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _omit_empty(serialize(self), "check")


def _omit_empty(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """Omit a field that only policies with several checks use, so that others stay version 1."""
    if not fields.get(name):
        fields.pop(name, None)
    return fields


class DecisionRow(Frozen):
    """What to do after one observation, and why."""

    seen: tuple[NonNegativeInt, ...] = Field(min_length=1)
    """Accepts, rejects and invalid verdicts; or the bin of the score, counted from 0. With several
    checks, their `Observation`s one after the other."""

    step: PlannedAction
    chance: Share = 0.0
    """How often the policy reaches this row, once it has reached the table."""

    quality: tuple[float, ...] = ()
    """Expected quality of each model in play."""

    values: dict[str, float] = Field(default_factory=dict)
    """Expected remaining utility of each option."""

    def whole(self) -> DecisionRow:
        """Return the row itself, which is complete."""
        return self


class DecisionTable(Frozen):
    """What to do after each observation of the check or checks of one model's answer."""

    model: NonNegativeInt
    kind: Literal["verdicts", "score", "several"]
    counts_invalid: bool = False
    """Whether invalid verdicts count as evidence; if not, they are ignored."""

    edges: tuple[Share, ...] = ()
    """Boundaries between the bins of the score, in ascending order."""

    rows: tuple[DecisionRow, ...] = Field(min_length=1)
    checks: tuple[CheckEncoding, ...] = ()
    """How each check is read, if there are several or the only one is not the first; else empty."""

    @model_serializer(mode="wrap")
    def _omit_checks(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _omit_empty(serialize(self), "checks")

    @cached_property
    def encodings(self) -> tuple[CheckEncoding, ...]:
        """How each check is read, even if there is only one."""
        if self.checks:
            return self.checks
        most = 0 if self.kind == "score" else max(sum(row.seen) for row in self.rows)
        shape: Any = {"kind": self.kind, "counts_invalid": self.counts_invalid, "edges": self.edges}
        return (CheckEncoding.model_construct(**shape, most=most),)

    @cached_property
    def _by_observations(self) -> dict[tuple[Observation, ...], DecisionRow]:
        return {self.split(row.seen): row for row in self.rows}

    @cached_property
    def _nothing(self) -> tuple[Observation, ...]:
        return tuple(encoding.nothing for encoding in self.encodings)

    def split(self, seen: tuple[int, ...]) -> tuple[Observation, ...]:
        """Split what a row has seen into the observation of each check.

        Raises:
            ValueError: The number of values does not match the checks.
        """
        if not self.checks:
            return ((seen[0] + 1,) if self.kind == "score" else seen,)
        widths = [len(nothing) for nothing in self._nothing]
        if len(seen) != sum(widths):
            raise ValueError("a row of several checks says what each of them found")
        ends = [sum(widths[: i + 1]) for i in range(len(widths))]
        return tuple(seen[end - width : end] for end, width in zip(ends, widths, strict=True))

    def row_for(self, observations: Sequence[Observation]) -> DecisionRow | None:
        """Return the row for what the checks found, or None if there is none.

        If no row matches, checks are ignored until one does: as few as possible, the last ones
        first.
        """
        for read in fewer_findings(observations, self._nothing):
            if (row := self._by_observations.get(read)) is not None:
                return row
        return None

    @model_validator(mode="after")
    def _validate(self) -> Self:
        if (self.kind == "several") != bool(self.checks):
            raise ValueError("a table of several checks says how each of them is read")
        if self.kind == "several":
            self._validate_checks()
        elif self.kind == "score":
            bins = {(i,) for i in range(len(self.edges) + 1)}
            if {row.seen for row in self.rows} != bins or list(self.edges) != sorted(
                set(self.edges)
            ):
                raise ValueError("a score table needs ascending edges and one row a bin")
        elif any(len(row.seen) != 3 for row in self.rows):  # noqa: PLR2004
            raise ValueError("a row of a verdict table says accepts, rejects and invalid")
        if self.kind == "score" and any(row.step.action == "verify" for row in self.rows):
            raise ValueError("a score is not drawn twice")
        if any(row.values and "answer" not in row.values for row in self.rows):
            raise ValueError("the values of a row name the option to answer")
        return self

    def _validate_checks(self) -> None:
        names = [encoding.name for encoding in self.checks]
        if len(set(names)) < len(names):
            raise ValueError("a table reads each check once")
        rows = self._by_observations
        if len(rows) < len(self.rows) or self._nothing not in rows:
            raise ValueError(
                "a table of several checks has one row for nothing found, and a finding"
            )
        for observations, row in rows.items():
            if not all(e.allows(o) for e, o in zip(self.checks, observations, strict=True)):
                raise ValueError("a row of several checks says what each of them found")
            if row.step.action != "verify":
                continue
            if row.step.check not in names:
                raise ValueError("a table is of the checks that its rows ask for")
            checked = names.index(row.step.check)
            if self.checks[checked].kind == "score" and any(observations[checked]):
                raise ValueError("a score is not drawn twice")


def fewer_findings(
    observations: Sequence[Observation], nothing: Sequence[Observation]
) -> Iterator[tuple[Observation, ...]]:
    """Yield what the checks found, then again with the findings of some checks left out.

    As few checks as possible are ignored, the last ones first.

    Args:
        observations: What each check found.
        nothing: For each check, the observation that stands for no finding.
    """
    yield tuple(observations)
    known = [i for i, observation in enumerate(observations) if any(observation)]
    for number in range(len(known) - 1, -1, -1):
        for kept in combinations(known, number):
            yield tuple(o if i in kept else nothing[i] for i, o in enumerate(observations))
