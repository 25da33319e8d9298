"""Columns that hold the queries of a routing log, in some dozens of bytes an answer."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from langchain_automix.policy.data.facts import QueryFacts
from langchain_automix.policy.data.records import FIRST_CHECK

NO_CHECK, VERDICTS, SCORE = 0, 1, 2
_CODES: dict[bool | None, int] = {False: 0, True: 1, None: 2}
_VERDICTS: tuple[bool | None, ...] = (False, True, None)
_NAN = float("nan")


@dataclass
class CheckColumns:
    """The findings of one check, answer after answer."""

    kind: bytearray = field(default_factory=bytearray)
    """NO_CHECK, VERDICTS or SCORE."""

    score: array[float] = field(default_factory=lambda: array("d"))
    fixed_cost: array[float] = field(default_factory=lambda: array("d"))
    """Of a check with verdicts; the whole cost of a check with a score, NaN where not known."""

    sample_cost: array[float] = field(default_factory=lambda: array("d"))
    verdicts: bytearray = field(default_factory=bytearray)
    """All verdicts, 0 reject, 1 accept, 2 invalid."""

    ends: array[int] = field(default_factory=lambda: array("q"))
    """Where each answer's verdicts end."""

    def add_check(self, check: Any) -> None:
        """Append a `LoggedVerification`, or None."""
        if check is None:
            self.kind.append(NO_CHECK)
            numbers = (_NAN, 0.0, 0.0)
        elif check.verdicts is None:
            self.kind.append(SCORE)
            numbers = (_number(check.score), _number(check.cost), 0.0)
        else:
            self.kind.append(VERDICTS)
            self.verdicts.extend(_CODES[verdict] for verdict in check.verdicts)
            numbers = (_NAN, check.fixed_cost, check.sample_cost)
        for column, number in zip(
            (self.score, self.fixed_cost, self.sample_cost), numbers, strict=True
        ):
            column.append(number)
        self.ends.append(len(self.verdicts))

    def check(self, place: int) -> dict[str, Any] | None:
        """Return what was found on an answer, as a record."""
        if place >= len(self.kind) or self.kind[place] == NO_CHECK:
            return None
        if self.kind[place] == SCORE:
            return {"score": _null(self.score[place]), "cost": _null(self.fixed_cost[place])}
        start = self.ends[place - 1] if place else 0
        codes = self.verdicts[start : self.ends[place]]
        return {
            "verdicts": tuple(_VERDICTS[code] for code in codes),
            "fixed_cost": self.fixed_cost[place],
            "sample_cost": self.sample_cost[place],
        }

    def copy_check(self, other: CheckColumns, place: int) -> None:
        """Append what another one holds at an index."""
        if place >= len(other.kind):
            self.add_check(None)
            return
        for name in ("kind", "score", "fixed_cost", "sample_cost"):
            getattr(self, name).append(getattr(other, name)[place])
        start = other.ends[place - 1] if place else 0
        self.verdicts.extend(other.verdicts[start : other.ends[place]])
        self.ends.append(len(self.verdicts))

    def append_checks(self, other: CheckColumns) -> None:
        """Append all that another one holds."""
        drawn = len(self.verdicts)
        self.kind.extend(other.kind)
        self.verdicts.extend(other.verdicts)
        for name in ("score", "fixed_cost", "sample_cost"):
            getattr(self, name).extend(getattr(other, name))
        self.ends.extend(array("q", (end + drawn for end in other.ends)))

    def fill(self, number: int) -> None:
        """Mark every answer up to this number that has no entry as not checked."""
        for _ in range(number - len(self.kind)):
            self.add_check(None)


@dataclass
class LogColumns(CheckColumns):
    """The numbers of a log, answer after answer, with its first check; NaN stands for null."""

    models: tuple[str, ...] = ()
    currency: str | None = None
    ids: list[str] = field(default_factory=list)
    quality: array[float] = field(default_factory=lambda: array("d"))
    cost: array[float] = field(default_factory=lambda: array("d"))
    further: dict[str, CheckColumns] = field(default_factory=dict)
    """Further checks by name, as long as the others once all queries are in."""

    metadata: MutableMapping[int, Any] = field(default_factory=dict)
    """By index, where there is any."""

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, query: Any) -> None:
        """Append a `LoggedQuery`."""
        if not self.ids:
            self.models = tuple(answer.model for answer in query.answers)
            self.currency = query.currency
        if query.metadata is not None:
            self.metadata[len(self.ids)] = query.metadata
        self.ids.append(query.id)
        for answer in query.answers:
            for name, check in answer.checks.items():
                further = self.further.setdefault(name, CheckColumns())
                further.fill(len(self.quality))
                further.add_check(check)
            self.quality.append(_number(answer.quality))
            self.cost.append(_number(answer.cost))
            self.add_check(answer.verification)

    def append(self, other: LogColumns) -> None:
        """Append the queries of another store of the same models and currency."""
        for name in {**self.further, **other.further}:
            further = self.further.setdefault(name, CheckColumns())
            further.fill(len(self.quality))
            further.append_checks(other.further.get(name, CheckColumns()))
            further.fill(len(self.quality) + len(other.quality))
        if isinstance(self.metadata, QueryFacts) and isinstance(other.metadata, QueryFacts):
            self.metadata.append(other.metadata, len(self))
        else:
            for place, metadata in other.metadata.items():
                self.metadata[len(self) + place] = metadata
        self.ids.extend(other.ids)
        self.quality.extend(other.quality)
        self.cost.extend(other.cost)
        self.append_checks(other)

    def answer(self, place: int) -> dict[str, Any]:
        """Return an answer by its index among all answers, as a record."""
        found: dict[str, Any] = {
            "model": self.models[place % len(self.models)],
            "quality": _null(self.quality[place]),
            "cost": _null(self.cost[place]),
            "verification": self.check(place),
        }
        further = {name: check.check(place) for name, check in self.further.items()}
        if known := {name: check for name, check in further.items() if check is not None}:
            found["checks"] = known
        return found

    def record(self, place: int) -> dict[str, Any]:
        """Return a query by its index, as a record."""
        width = len(self.models)
        answers = [self.answer(place * width + j) for j in range(width)]
        found: dict[str, Any] = {"id": self.ids[place], "answers": answers}
        if self.currency is not None:
            found["currency"] = self.currency
        if place in self.metadata:
            found["metadata"] = self.metadata[place]
        return found

    def part(
        self, places: Iterable[int], models: Iterable[int], check: str | None = None
    ) -> LogColumns:
        """Return some queries, with some models; with all checks, or with this one alone."""
        chosen = list(models)
        part = LogColumns(models=tuple(self.models[j] for j in chosen), currency=self.currency)
        first: CheckColumns = self if check in (None, FIRST_CHECK) else self.further[check or ""]
        if check is None:
            part.further = {name: CheckColumns() for name in self.further}
        width = len(self.models)
        for place in places:
            said = self.metadata.get(place)
            if check is not None and self.further:
                said = _of_one(said, check)
            if said is not None:
                part.metadata[len(part.ids)] = said
            part.ids.append(self.ids[place])
            for j in chosen:
                at = place * width + j
                part.quality.append(self.quality[at])
                part.cost.append(self.cost[at])
                part.copy_check(first, at)
                for name, further in part.further.items():
                    further.copy_check(self.further[name], at)
        part.further = {name: found for name, found in part.further.items() if any(found.kind)}
        return part


def _of_one(metadata: Any, check: str) -> Any:
    """Return a query's metadata for a log that keeps only one of several checks."""
    said = dict(metadata or {})
    further = said.pop("check_replies", None)
    said.pop("verifier", None)  # the fingerprint of all of them together
    spec = _spec_of_one(said.pop("check_spec", None), check)
    if spec is not None:
        said["check_spec"], said["verifier"] = spec, spec["fingerprint"]
    if check != FIRST_CHECK:
        said["check"] = check
        replies = further.get(check) if isinstance(further, Mapping) else None
        said.pop("replies", None)
        if replies is not None:
            said["replies"] = replies
    return said or metadata


def _spec_of_one(spec: Any, check: str) -> dict[str, Any] | None:
    """Return how one of several checks is rebuilt; None where the metadata does not say."""
    checks = spec.get("checks") if isinstance(spec, Mapping) else None
    if not isinstance(checks, Mapping) or not checks:
        return None
    found = next(iter(checks.values())) if check == FIRST_CHECK else checks.get(check)
    if not isinstance(found, Mapping) or not isinstance(found.get("fingerprint"), str):
        return None
    return dict(found)


def _number(value: float | None) -> float:
    return _NAN if value is None else value


def _null(value: float) -> float | None:
    return None if value != value else value  # noqa: PLR0124  (NaN is unlike itself)
