"""What the rows of a log come to, model by model; added up as they are written, none is held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
        goods, bads = self.good.total(), self.bad.total()
        if not goods or not bads:
            return None
        wins, below = 0.0, 0
        for confidence in sorted({*self.good, *self.bad}):
            wins += self.good[confidence] * (below + self.bad[confidence] / 2)
            below += self.bad[confidence]
        return wins / (goods * bads)


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
