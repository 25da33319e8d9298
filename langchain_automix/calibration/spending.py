"""The cost of the calls of a calibration, including estimates for unknown costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["answer", "check", "grade"]
Kind = tuple[str, str, str | None]
"""Stage of a call, name of the model, and name of the check if there are several."""

_DOUBT = 10
"""A call may cost up to (1 + 10 / n) times as much as the most expensive of n earlier calls of its
kind."""


@dataclass
class KindCosts:
    """The cost of the calls of one kind."""

    calls: int = 0
    """Number of calls with a known cost."""

    dearest: float = 0.0

    @property
    def most(self) -> float | None:
        """Likely maximum cost of one more call; None if no cost is known."""
        return self.dearest * (1 + _DOUBT / self.calls) if self.calls else None


@dataclass
class Spending:
    """The cost of the calls of a calibration, including earlier runs."""

    known: float = 0.0
    """Total cost of the requests whose cost is known."""

    costs: dict[Kind, KindCosts] = field(default_factory=dict)
    lost: Counter[Kind] = field(default_factory=Counter)
    """Number of requests that may have been billed without being reported: they were cancelled,
    timed out, or were running when the process was killed."""

    def add(self, kind: Kind, cost: float | None, lost: int = 0) -> None:
        """Add a call.

        Args:
            kind: Kind of the call.
            cost: Cost of its requests whose cost is known; None if no cost is known.
            lost: Number of its requests that may have been billed without being reported.
        """
        self.known += cost or 0.0
        if lost:
            self.lost[kind] += lost
        elif cost:
            costs = self.costs.setdefault(kind, KindCosts())
            costs.calls += 1
            costs.dearest = max(costs.dearest, cost)

    @property
    def total(self) -> float:
        """Total cost; a request of unknown cost counts as the most expensive one of its kind."""
        return self.known + sum(number * self.dearest(kind) for kind, number in self.lost.items())

    def dearest(self, kind: Kind) -> float:
        """Return the cost of the most expensive call of a kind, or of any kind if it has none."""
        if kind in self.costs:
            return self.costs[kind].dearest
        return max((each.dearest for each in self.costs.values()), default=0.0)

    def most(self, kind: Kind) -> float | None:
        """Return the likely maximum cost of one more call; None if no cost is known."""
        return self.costs[kind].most if kind in self.costs else None
