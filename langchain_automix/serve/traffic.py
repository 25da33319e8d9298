"""`Traffic`: what the queries of an app came to, since its start and in the last minutes."""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_automix.serve.observing import ServedQuery

WINDOWS = (5, 15, 60)
"""Lengths of the windows, in minutes."""

_MINUTE = 60.0
_GROWTH = 1.1
"""Each bucket of times ends so many times later than the one before: a time is known to 5 %."""

_SHORTEST = 1e-4
WHOLE = "whole"
"""The name among the stages for a query from its request to the end of the response."""


class Latencies:
    """How long something took, kept in buckets, so that memory is bounded and windows add up."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Add one time."""
        self._buckets[math.ceil(math.log(max(seconds, _SHORTEST), _GROWTH))] += 1

    def update(self, other: Latencies) -> None:
        """Add those of another one."""
        self._buckets.update(other._buckets)

    def __len__(self) -> int:
        return self._buckets.total()

    def quantile(self, share: float) -> float | None:
        """Return the time, in seconds, that a share of all did not exceed; None without any.

        Args:
            share: In (0, 1].
        """
        left = max(1, math.ceil(share * len(self)))
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return float(_GROWTH ** (bucket - 0.5))
        return None

    def to_json(self) -> dict[str, Any]:
        """Return number, median and 95th percentile, ready for JSON."""
        return {"queries": len(self), "median": self.quantile(0.5), "p95": self.quantile(0.95)}


@dataclass
class Tally:
    """What some queries came to together; unknown costs are counted, and are in no sum."""

    outcomes: Counter[str] = field(default_factory=Counter)
    cost: float = 0.0
    """US dollars, as far as known; those of failed queries are among them."""

    unpriced: int = 0
    """Queries whose cost is unknown."""

    compared: int = 0
    """Answered queries whose cost is known beside that of the largest model alone."""

    compared_cost: float = 0.0
    """US dollars of those."""

    alone: float = 0.0
    """US dollars that the largest model alone cost, or would have cost, for those."""

    estimated: int = 0
    """How many of those have an estimate of the largest model's cost."""

    def add(self, query: ServedQuery) -> None:
        """Add one query."""
        self.outcomes[query.outcome] += 1
        if query.cost is None:
            self.unpriced += 1
            return
        self.cost += float(query.cost)
        if query.is_answered and query.largest_alone is not None:
            self.compared += 1
            self.compared_cost += float(query.cost)
            self.alone += float(query.largest_alone)
            self.estimated += query.is_estimate

    def update(self, other: Tally) -> None:
        """Add those of another one."""
        self.outcomes.update(other.outcomes)
        for name in ("cost", "unpriced", "compared", "compared_cost", "alone", "estimated"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def to_json(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        fields = {k: v for k, v in vars(self).items() if k != "outcomes"}
        return {"queries": self.outcomes.total(), "outcomes": dict(self.outcomes), **fields}


class Span:
    """What the queries of some time came to."""

    def __init__(self) -> None:
        self.total = Tally()
        self._mixes: dict[str, Tally] = {}
        self._latencies: dict[str, Latencies] = {}

    def add(self, query: ServedQuery) -> None:
        """Add one query."""
        self.total.add(query)
        self._mixes.setdefault(query.mix, Tally()).add(query)
        for stage, seconds in ((WHOLE, query.duration), *query.seconds.items()):
            self._latencies.setdefault(stage, Latencies()).add(seconds)

    def update(self, other: Span) -> None:
        """Add those of another one."""
        self.total.update(other.total)
        for mix, tally in other._mixes.items():
            self._mixes.setdefault(mix, Tally()).update(tally)
        for stage, latencies in other._latencies.items():
            self._latencies.setdefault(stage, Latencies()).update(latencies)

    def to_json(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            **self.total.to_json(),
            "mixes": {name: tally.to_json() for name, tally in self._mixes.items()},
            "latency": {stage: each.to_json() for stage, each in self._latencies.items()},
        }


class Traffic:
    """What the queries came to, since the start and by the minute: an hour of them, and no texts.

    Whoever adds and whoever reads may be in threads of their own.
    """

    def __init__(self) -> None:
        self._since_start = Span()
        self._minutes: deque[tuple[int, Span]] = deque(maxlen=max(WINDOWS))
        self._lock = threading.Lock()

    def add(self, query: ServedQuery) -> None:
        """Add one query that has ended."""
        minute = int(query.at // _MINUTE)
        with self._lock:
            self._since_start.add(query)
            # A query may be told a little late. Minutes further ahead show that the clock was set
            # back: when their queries ended is not known, and they are in no window.
            while self._minutes and self._minutes[-1][0] > minute + 1:
                self._minutes.pop()
            if not self._minutes or self._minutes[-1][0] < minute:
                self._minutes.append((minute, Span()))
            self._minutes[-1][1].add(query)

    def to_json(self, now: float) -> dict[str, Any]:
        """Return it ready for JSON.

        Args:
            now: The time, in seconds since 1970, at which the windows end.
        """
        with self._lock:
            minutes = [each for each in self._minutes if each[0] > now // _MINUTE - max(WINDOWS)]
            windows = {str(length): span.to_json() for length, span in _windows(minutes, now)}
            return {
                "windows": {**windows, "start": self._since_start.to_json()},
                "minutes": [_point(minute, span.total) for minute, span in minutes],
            }


def _windows(minutes: Sequence[tuple[int, Span]], now: float) -> Iterator[tuple[int, Span]]:
    """Yield each window: it has the minutes of the one before, and older ones."""
    whole, older = Span(), list(minutes)
    for length in WINDOWS:
        while older and older[-1][0] > now // _MINUTE - length:
            whole.update(older.pop()[1])
        yield length, whole


def _point(minute: int, tally: Tally) -> Mapping[str, Any]:
    return {
        "at": minute * _MINUTE,
        "queries": tally.outcomes.total(),
        "compared": tally.compared,
        "cost": tally.compared_cost,
        "alone": tally.alone,
    }
