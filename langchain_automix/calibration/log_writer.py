"""From a journal to a routing log: the rows in the order of the examples, labels corrected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_automix.calibration.examples.examples import Example
from langchain_automix.policy.data.log import write_records

Row = dict[str, Any]
_SHOWN_FAILURES = 5


@dataclass(frozen=True)
class LogStatistics:
    """What a log came to."""

    queries: int = 0
    complete: int = 0
    """Queries that a policy can be fitted to: every model answered, and was graded."""

    labelled: int = 0
    """Queries whose qualities are by references."""

    corrected: int = 0
    """Queries whose qualities are by agreement with the largest model's answer, corrected by what
    the labelled ones show."""

    failed: int = 0
    """Queries in which a call failed for good; each has it in its `metadata.failed`."""

    failures: tuple[Failure, ...] = ()
    """The first of these."""

    models: tuple[ModelFigures, ...] = ()
    """What the models' answers come to, cheap to expensive."""


@dataclass
class _Count:
    """Counts the rows as they are written."""

    queries: int = 0
    complete: int = 0
    labelled: int = 0
    corrected: int = 0
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    models: list[ModelTally] = field(default_factory=list)

    def add(self, row: Row) -> None:
        metadata, answers = row["metadata"], row["answers"]
        by_agreement = metadata["labels"] == "corrected" and not metadata.get("labelled")
        self.queries += 1
        self.complete += _is_complete(row)
        self.corrected += by_agreement
        self.labelled += metadata["labels"] != "agreement" and not by_agreement
        if (errors := metadata.get("failed")) is not None:
            self.failed += 1
            if len(self.failures) < _SHOWN_FAILURES:
                self.failures.append(Failure(row["id"], errors))
        self.models = self.models or [ModelTally(answer["model"]) for answer in answers]
        for tally, answer in zip(self.models, answers, strict=True):
            tally.add(answer)

    def written(self) -> LogStatistics:
        return LogStatistics(
            queries=self.queries,
            complete=self.complete,
            labelled=self.labelled,
            corrected=self.corrected,
            failed=self.failed,
            failures=tuple(self.failures),
            models=tuple(tally.figures() for tally in self.models),
        )


def write_log(
    path: Path,
    examples: Iterable[Example],
    row_of: Callable[[Example], Row | None],
    *,
    correct: bool,
    checks: bool = False,
) -> LogStatistics:
    """Write the log of all examples that have a row; a reader never sees half of it.

    Args:
        path: Where it goes.
        examples: The examples, in the order of the log.
        row_of: Returns an example's row, None if it has none.
        correct: Whether to correct what agreement says by what the labelled examples show.
        checks: Whether the rows have further checks.
    """

    def rows() -> Iterator[Row]:
        return filter(None, map(row_of, examples))

    corrections = _corrections(rows()) if correct else None
    count = _Count()

    def counting() -> Iterator[Row]:
        for row in rows():
            if corrections is not None:
                _correct(row, next(corrections))
            count.add(row)
            yield row

    write_records(path, counting(), checks=checks)
    return count.written()


def _is_complete(row: Row) -> bool:
    answers = row["answers"]
    return all(a["quality"] is not None and a["cost"] is not None for a in answers) and all(
        "verification" in a for a in answers[:-1]
    )


def _corrections(rows: Iterable[Row]) -> Iterator[list[float | None]]:
    """Yield the corrected qualities of each row, in order."""
    import numpy as np  # noqa: PLC0415  (seconds, for those who calibrate with labels)

    from langchain_automix.calibration.label_correction import correct_labels  # noqa: PLC0415

    agreement, quality = [], []
    for row in rows:
        labelled = row["metadata"]["labels"] == "references"
        agreement.append(row["metadata"]["agreement"])
        unknown = [None] * len(row["answers"])
        quality.append([a["quality"] for a in row["answers"]] if labelled else unknown)
    found = correct_labels(np.array(agreement, dtype=float), np.array(quality, dtype=float))
    return iter([[None if q != q else q for q in row] for row in found.tolist()])  # noqa: PLR0124


def _correct(row: Row, qualities: list[float | None]) -> None:
    if row["metadata"]["labels"] == "references":
        row["metadata"]["labelled"] = True
    else:
        for answer, quality in zip(row["answers"], qualities, strict=True):
            answer["quality"] = quality
    row["metadata"]["labels"] = "corrected"


_GOOD = 0.5
"""Quality from which an answer counts as good, as in `evaluate`."""

_DIGITS = 4
"""Of a confidence, so that even scores that are all different take little room."""


@dataclass(frozen=True)
class ModelFigures:
    """One model's answers, and the checks of them; costs in the log's currency."""

    model: str
    answers: int
    """Answers with a known quality."""

    quality: float | None
    """Mean over these; None if there are none."""

    cost: float | None
    """Mean cost of an answer; None if none is known."""

    checks: int
    check_cost: float | None
    """Mean cost of a check, of all together where there are several; None if there was none."""

    auroc: float | None
    """Chance that a good answer (a quality of at least 0.5) has a higher confidence than another
    one, ties counting half, by the first check; None without good ones, or without others."""


@dataclass(frozen=True)
class Failure:
    """An example that a call failed in."""

    id: str
    errors: Mapping[str, str]
    """By model: what the call failed of."""


@dataclass
class _Mean:
    count: int = 0
    total: float = 0.0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.count += 1
            self.total += value

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass
class ModelTally:
    """Adds up one model's answers."""

    model: str
    quality: _Mean = field(default_factory=_Mean)
    cost: _Mean = field(default_factory=_Mean)
    check_cost: _Mean = field(default_factory=_Mean)
    good: Counter[float] = field(default_factory=Counter)
    """How many good answers had a confidence; `bad` likewise."""

    bad: Counter[float] = field(default_factory=Counter)

    def add(self, answer: Mapping[str, Any]) -> None:
        """Count one answer, as a line of a log holds it."""
        quality, check = answer["quality"], answer.get("verification")
        self.quality.add(quality)
        self.cost.add(answer["cost"])
        made = [*([] if check is None else [check]), *(answer.get("checks") or {}).values()]
        costs = [_cost(each) for each in made]
        known = [cost for cost in costs if cost is not None]
        self.check_cost.add(sum(known) if made and len(known) == len(costs) else None)
        confidence = None if check is None else _confidence(check)
        if quality is not None and confidence is not None:
            (self.good if quality >= _GOOD else self.bad)[round(confidence, _DIGITS)] += 1

    def figures(self) -> ModelFigures:
        """Return what it comes to."""
        return ModelFigures(
            model=self.model,
            answers=self.quality.count,
            quality=self.quality.value,
            cost=self.cost.value,
            checks=self.check_cost.count,
            check_cost=self.check_cost.value,
            auroc=self._auroc(),
        )

    def _auroc(self) -> float | None:
        from langchain_automix.policy.statistics import auroc  # noqa: PLC0415  (loads numpy)

        good = [True] * self.good.total() + [False] * self.bad.total()
        return auroc([*self.good.elements(), *self.bad.elements()], good)


def _cost(check: Mapping[str, Any]) -> float | None:
    if "verdicts" not in check:
        cost: float | None = check.get("cost")
        return cost
    return float(check["fixed_cost"] + check["sample_cost"] * len(check["verdicts"]))


def _confidence(check: Mapping[str, Any]) -> float | None:
    verdicts: Sequence[bool | None] | None = check.get("verdicts")
    if verdicts is None:
        score: float | None = check.get("score")
        return score
    valid = [verdict for verdict in verdicts if verdict is not None]
    return sum(valid) / len(valid) if valid else None
