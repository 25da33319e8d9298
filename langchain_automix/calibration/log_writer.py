"""Write a routing log from a journal: rows in the order of the examples, with corrected labels."""

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
    """Counts and means of a written log."""

    queries: int = 0
    complete: int = 0
    """Queries that a policy can be fitted to: every model answered, and every answer was graded."""

    labelled: int = 0
    """Queries whose qualities come from references."""

    corrected: int = 0
    """Queries whose qualities come from agreement with the largest model's answer, corrected with
    the help of the labelled queries."""

    failed: int = 0
    """Queries in which a call failed for good. The errors are in the query's `metadata.failed`."""

    failures: tuple[Failure, ...] = ()
    """The first of the failed queries."""

    models: tuple[ModelFigures, ...] = ()
    """The models' answers, cheap to expensive."""

    without_free_check: tuple[str, ...] = ()
    """Models that were asked for the log-probabilities of their answers but sent none."""


class _Tally:
    """Sums up the rows as they are written."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._failures: list[Failure] = []
        self._models: list[ModelTally] = []

    def add(self, row: Row) -> None:
        metadata, answers = row["metadata"], row["answers"]
        is_corrected = metadata["labels"] == "corrected" and not metadata.get("labelled")
        errors = metadata.get("failed")
        self._counts.update(
            queries=1,
            complete=_is_complete(row),
            corrected=is_corrected,
            labelled=metadata["labels"] != "agreement" and not is_corrected,
            failed=errors is not None,
        )
        if errors is not None and len(self._failures) < _SHOWN_FAILURES:
            self._failures.append(Failure(row["id"], errors))
        self._models = self._models or [ModelTally(answer["model"]) for answer in answers]
        for tally, answer in zip(self._models, answers, strict=True):
            tally.add(answer)

    def statistics(self) -> LogStatistics:
        counts: Mapping[str, int] = self._counts
        return LogStatistics(
            queries=counts["queries"],
            complete=counts["complete"],
            labelled=counts["labelled"],
            corrected=counts["corrected"],
            failed=counts["failed"],
            failures=tuple(self._failures),
            models=tuple(tally.figures() for tally in self._models),
        )


def write_log(
    path: Path,
    examples: Iterable[Example],
    find_row: Callable[[Example], Row | None],
    *,
    correct: bool,
    checks: bool = False,
) -> LogStatistics:
    """Write the log of all examples that have a row. A reader never sees a partly written log.

    Args:
        path: Path of the log.
        examples: The examples, in the order of the log.
        find_row: Returns the row of an example, or None.
        correct: Whether to correct agreement with the largest model with the help of the labelled
            examples.
        checks: Whether the rows contain further checks.
    """

    def rows() -> Iterator[Row]:
        return filter(None, map(find_row, examples))

    corrections = _corrections(rows()) if correct else None
    tally = _Tally()

    def counted_rows() -> Iterator[Row]:
        for row in rows():
            if corrections is not None:
                _correct(row, next(corrections))
            tally.add(row)
            yield row

    write_records(path, counted_rows(), checks=checks)
    return tally.statistics()


def _is_complete(row: Row) -> bool:
    answers = row["answers"]
    return all(a["quality"] is not None and a["cost"] is not None for a in answers) and all(
        "verification" in a for a in answers[:-1]
    )


def _corrections(rows: Iterable[Row]) -> Iterator[list[float | None]]:
    """Yield the corrected qualities of each row, in order."""
    import numpy as np  # noqa: PLC0415  (not before a log is written)

    from langchain_automix.calibration.label_correction import correct_labels  # noqa: PLC0415

    agreement, quality = [], []
    for row in rows:
        labelled = row["metadata"]["labels"] == "references"
        unknown = [None] * len(row["answers"])
        agreement.append(row["metadata"].get("agreement") or unknown)
        quality.append([a["quality"] for a in row["answers"]] if labelled else unknown)
    corrected = correct_labels(np.array(agreement, dtype=float), np.array(quality, dtype=float))
    return iter([[None if q != q else q for q in row] for row in corrected.tolist()])  # noqa: PLR0124


def _correct(row: Row, qualities: list[float | None]) -> None:
    if row["metadata"]["labels"] == "references":
        row["metadata"]["labelled"] = True
    else:
        for answer, quality in zip(row["answers"], qualities, strict=True):
            answer["quality"] = quality
    row["metadata"]["labels"] = "corrected"


_GOOD = 0.5
"""Minimum quality of a good answer, as in `evaluate`."""


@dataclass(frozen=True)
class ModelFigures:
    """Results of one model's answers and of their checks; costs are in the log's currency."""

    model: str
    answers: int
    """Number of answers with a known quality."""

    quality: float | None
    """Mean quality of these answers; None if there are none."""

    cost: float | None
    """Mean cost of an answer; None if unknown."""

    checks: int
    check_cost: float | None
    """Mean cost of checking an answer with all checks; None if none was checked."""

    auroc: float | None
    """Probability that the first check is more confident in a good answer (quality of at least 0.5)
    than in another one; ties count half. None without good answers, or without others."""


@dataclass(frozen=True)
class Failure:
    """An example in which a call failed."""

    id: str
    errors: Mapping[str, str]
    """The errors, by model."""


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
    """Sums up the answers of one model."""

    model: str
    quality: _Mean = field(default_factory=_Mean)
    cost: _Mean = field(default_factory=_Mean)
    check_cost: _Mean = field(default_factory=_Mean)
    confidences: list[float] = field(default_factory=list)
    """Confidences in answers with a known quality."""

    is_good: list[bool] = field(default_factory=list)
    """Whether these answers are good."""

    def add(self, answer: Mapping[str, Any]) -> None:
        """Count one answer, given as in a line of a log."""
        quality, check = answer["quality"], answer.get("verification")
        self.quality.add(quality)
        self.cost.add(answer["cost"])
        checks = [*([] if check is None else [check]), *(answer.get("checks") or {}).values()]
        costs = [cost for cost in map(_cost, checks) if cost is not None]
        self.check_cost.add(sum(costs) if checks and len(costs) == len(checks) else None)
        confidence = None if check is None else _confidence(check)
        if quality is not None and confidence is not None:
            self.confidences.append(confidence)
            self.is_good.append(quality >= _GOOD)

    def figures(self) -> ModelFigures:
        """Return the figures of all counted answers."""
        from langchain_automix.policy.statistics import auroc  # noqa: PLC0415  (loads numpy)

        return ModelFigures(
            model=self.model,
            answers=self.quality.count,
            quality=self.quality.value,
            cost=self.cost.value,
            checks=self.check_cost.count,
            check_cost=self.check_cost.value,
            auroc=auroc(self.confidences, self.is_good),
        )


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
