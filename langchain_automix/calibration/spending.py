"""What the calls of a calibration have cost, and what stands for a cost that is unknown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["answer", "check", "grade"]
Kind = tuple[str, str, str | None]
"""Stage of a call, name of the model, and name of the check where there are several."""

_DOUBT = 10
"""A call may cost this many n-ths more than the dearest of the n calls of its kind before it."""


@dataclass
class KindCosts:
    """What the calls of one kind have cost."""

    calls: int = 0
    """Number of those whose cost is known."""

    dearest: float = 0.0

    @property
    def most(self) -> float | None:
        """What one more is likely to cost at most; None: nothing is known of it."""
        return self.dearest * (1 + _DOUBT / self.calls) if self.calls else None


@dataclass
class Spending:
    """What the calls of a calibration have cost, earlier runs included."""

    known: float = 0.0
    """Cost of the requests whose cost is known."""

    costs: dict[Kind, KindCosts] = field(default_factory=dict)
    lost: Counter[Kind] = field(default_factory=Counter)
    """Requests that may have been billed unseen, for they were cut, timed out, or under way when
    the process was killed."""

    def add(self, kind: Kind, cost: float | None, lost: int = 0) -> None:
        """Add a call.

        Args:
            kind: Its kind.
            cost: Cost of its requests, as far as it is known; None: of none.
            lost: Number of its requests that may have been billed unseen.
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
        """What was spent; a request whose cost is unknown counts as the dearest of its kind."""
        return self.known + sum(number * self.dearest(kind) for kind, number in self.lost.items())

    def dearest(self, kind: Kind) -> float:
        """Return the cost of the dearest call of a kind; of any, where none of it is known."""
        if kind in self.costs:
            return self.costs[kind].dearest
        return max((each.dearest for each in self.costs.values()), default=0.0)

    def most(self, kind: Kind) -> float | None:
        """Return what one more call is likely to cost at most; None: nothing is known of it."""
        return self.costs[kind].most if kind in self.costs else None
