"""Where the queries of a routing log are kept: in columns, some dozens of bytes an answer."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

NO_CHECK, VERDICTS, SCORE = 0, 1, 2
_CODES: dict[bool | None, int] = {False: 0, True: 1, None: 2}
_VERDICTS: tuple[bool | None, ...] = (False, True, None)
_NAN = float("nan")


@dataclass
class Store:
    """The numbers of a log, answer after answer; NaN stands for null."""

    models: tuple[str, ...] = ()
    currency: str | None = None
    ids: list[str] = field(default_factory=list)
    quality: array[float] = field(default_factory=lambda: array("d"))
    cost: array[float] = field(default_factory=lambda: array("d"))
    kind: bytearray = field(default_factory=bytearray)
    """NO_CHECK, VERDICTS or SCORE."""

    score: array[float] = field(default_factory=lambda: array("d"))
    fixed_cost: array[float] = field(default_factory=lambda: array("d"))
    """Of a check with verdicts; the whole cost of a check with a score."""

    sample_cost: array[float] = field(default_factory=lambda: array("d"))
    verdicts: bytearray = field(default_factory=bytearray)
    """All verdicts, 0 reject, 1 accept, 2 invalid."""

    ends: array[int] = field(default_factory=lambda: array("q"))
    """Where each answer's verdicts end."""

    metadata: dict[int, Any] = field(default_factory=dict)
    """By place, where there is any."""

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
            self.quality.append(_number(answer.quality))
            self.cost.append(_number(answer.cost))
            self._add_check(answer.verification)

    def _add_check(self, check: Any) -> None:
        if check is None:
            self.kind.append(NO_CHECK)
            numbers = (_NAN, 0.0, 0.0)
        elif check.verdicts is None:
            self.kind.append(SCORE)
            numbers = (check.score, _number(check.cost), 0.0)
        else:
            self.kind.append(VERDICTS)
            self.verdicts.extend(_CODES[verdict] for verdict in check.verdicts)
            numbers = (_NAN, check.fixed_cost, check.sample_cost)
        for column, number in zip(
            (self.score, self.fixed_cost, self.sample_cost), numbers, strict=True
        ):
            column.append(number)
        self.ends.append(len(self.verdicts))

    def answer(self, place: int) -> dict[str, Any]:
        """Return an answer by its place among all answers, as a record."""
        found: dict[str, Any] = {
            "model": self.models[place % len(self.models)],
            "quality": _null(self.quality[place]),
            "cost": _null(self.cost[place]),
            "verification": None,
        }
        if self.kind[place] == SCORE:
            found["verification"] = {
                "score": self.score[place],
                "cost": _null(self.fixed_cost[place]),
            }
        elif self.kind[place] == VERDICTS:
            start = self.ends[place - 1] if place else 0
            codes = self.verdicts[start : self.ends[place]]
            found["verification"] = {
                "verdicts": tuple(_VERDICTS[code] for code in codes),
                "fixed_cost": self.fixed_cost[place],
                "sample_cost": self.sample_cost[place],
            }
        return found

    def record(self, place: int) -> dict[str, Any]:
        """Return a query by its place, as a record."""
        width = len(self.models)
        answers = [self.answer(place * width + j) for j in range(width)]
        found: dict[str, Any] = {"id": self.ids[place], "answers": answers}
        if self.currency is not None:
            found["currency"] = self.currency
        if place in self.metadata:
            found["metadata"] = self.metadata[place]
        return found

    def part(self, places: Iterable[int], models: Iterable[int]) -> Store:
        """Return some queries, with some models."""
        chosen = list(models)
        part = Store(tuple(self.models[j] for j in chosen), self.currency)
        width = len(self.models)
        for place in places:
            if place in self.metadata:
                part.metadata[len(part.ids)] = self.metadata[place]
            part.ids.append(self.ids[place])
            for j in chosen:
                part._copy(self, place * width + j)
        return part

    def _copy(self, other: Store, place: int) -> None:
        for name in ("quality", "cost", "kind", "score", "fixed_cost", "sample_cost"):
            getattr(self, name).append(getattr(other, name)[place])
        start = other.ends[place - 1] if place else 0
        self.verdicts.extend(other.verdicts[start : other.ends[place]])
        self.ends.append(len(self.verdicts))


def _number(value: float | None) -> float:
    return _NAN if value is None else value


def _null(value: float) -> float | None:
    return None if value != value else value  # noqa: PLR0124  (NaN is unlike itself)
