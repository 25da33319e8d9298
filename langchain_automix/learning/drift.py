"""Notices when the traffic is no longer what the policy was fitted to."""

from __future__ import annotations

import importlib
import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.utils.install import install_hint

Signal = Literal["confidence", "escalations", "agreement", "cost"]

_DELTA = 0.1
"""What ADWIN calls its confidence. Its bound is loose: this raises less than one false alarm in
10,000 values (`make benchmark ARGS="--only learning-drift"`)."""

_LOOK_EVERY = 8
"""Values between two looks. Of shadows there are few: at 2 % of the queries, a look takes 400."""

_LEAST_PART = 20
"""Values, at least, before and after a change: fewer differ by chance."""

_FIRST = 100
"""Costs that set what is usual, before a change of them can be noticed."""

_SPREAD = 2.0
"""Standard deviations from what is usual beyond which a cost counts as no further away."""

_LEAST_DEVIATION = 0.05
"""Of the logarithms of costs: they may all be the same."""

_KEPT = 1_000
"""Values, the latest, among which an alarm looks for the moment of the change."""

_WORDS: dict[Signal, str] = {
    "confidence": "The confidence of the check",
    "escalations": "The share of escalated queries",
    "agreement": "The agreement of the shadowed models",
    "cost": "The cost of a query",
}


@dataclass(frozen=True, slots=True)
class Signals:
    """What one query tells of the traffic; None where it says nothing."""

    version: int
    at: float = 0.0
    """When the query ended, in seconds since 1970."""

    confidence: float | None = None
    """Of the first model's check, in [0, 1]."""

    escalated: bool | None = None
    agreement: float | None = None
    """Of a drawn shadow: how far the first model agrees with the largest, in [0, 1]."""

    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """A signal that has changed."""

    signal: Signal
    before: float
    """Its mean before, of costs the geometric one."""

    after: float
    """Its mean since."""

    unchanged_to: float = 0.0
    """When the last query ended that was as before, as far as that can be told, in seconds since
    1970. A change is noticed some queries after it has begun."""

    def __str__(self) -> str:
        """Say it in one sentence."""
        return f"{_WORDS[self.signal]} has changed from {self.before:.3g} to {self.after:.3g}."


class DriftMonitor:
    """Looks for changes of confidence, escalations, agreement and cost, query by query.

    By ADWIN (Bifet and Gavalda, 2007), of the package `river`: of its detectors it notices small
    changes soonest at the same rate of false alarms (docs/learning.md has the figures). What
    depends on the policy starts anew with each version.
    """

    def __init__(self) -> None:
        self._version: int | None = None
        self._detectors: dict[Signal, _Detector] = {}
        self._reset()

    def _reset(self, *signals: Signal) -> None:
        for signal in signals or ("confidence", "escalations", "agreement", "cost"):
            self._detectors[signal] = _CostDetector() if signal == "cost" else _Detector()

    def update(self, found: Signals) -> Alarm | None:
        """Take in one query; return an alarm where something has changed, and start anew."""
        if found.version != self._version:
            self._version = found.version
            self._reset("escalations", "agreement", "cost")
        values: dict[Signal, float | None] = {
            "cost": found.cost if found.cost and found.cost > 0 else None,
            "confidence": found.confidence,
            "escalations": None if found.escalated is None else float(found.escalated),
            "agreement": found.agreement,
        }
        alarm: Alarm | None = None
        for signal, value in values.items():
            if value is not None and self._detectors[signal].update(value, found.at):
                alarm = alarm or self._detectors[signal].alarm(signal)
        if alarm is not None:
            self._reset()
        return alarm


def load_detectors() -> Any:
    """Return the detectors of river, which is there with the extra only.

    Raises:
        AutoMixError: It is not installed.
    """
    try:
        return importlib.import_module("river.drift")
    except ImportError as error:
        raise AutoMixError(
            f"Learning needs river, which finds drift ({error}): {install_hint('learning')}"
        ) from error


def new_adwin() -> Any:
    """Return the detector of a signal in [0, 1]."""
    return load_detectors().ADWIN(delta=_DELTA, clock=_LOOK_EVERY, min_window_length=_LEAST_PART)


class _Detector:
    """Watches one signal for a change of its mean."""

    def __init__(self) -> None:
        self._adwin = new_adwin()
        self._kept: deque[tuple[float, float]] = deque(maxlen=_KEPT)

    def update(self, value: float, at: float) -> bool:
        """Take in one value and its time; return whether the signal has changed."""
        self._kept.append((value, at))
        self._adwin.update(self.scaled(value))
        return bool(self._adwin.drift_detected)

    def scaled(self, value: float) -> float:
        """Return a value as a number in [0, 1]."""
        return value

    def alarm(self, signal: Signal) -> Alarm:
        """Say what has changed, and when."""
        values = [value for value, _ in self._kept]
        place = _change_point(values)
        before, after = statistics.fmean(values[:place]), statistics.fmean(values[place:])
        return Alarm(signal, before, after, self._kept[place - 1][1])


def _change_point(values: Sequence[float]) -> int:
    """Return the place before which the mean of some values differs most from that after it.

    The most likely one for values of a normal distribution whose mean changes once (Page, 1955).
    """
    count, total = len(values), math.fsum(values)
    best, place, before = -1.0, 1, 0.0
    for k in range(1, count):
        before += values[k - 1]
        if min(k, count - k) < min(_LEAST_PART, count // 2):
            continue
        difference = abs(before / k - (total - before) / (count - k))
        if (likely := difference * math.sqrt(k * (count - k))) > best:
            best, place = likely, k
    return place


class _CostDetector(_Detector):
    """Watches the logarithms of costs, brought into [0, 1] by what is usual of the first."""

    def __init__(self) -> None:
        super().__init__()
        self._first: list[tuple[float, float]] = []
        self._mean, self._deviation = 0.0, 1.0

    @override
    def update(self, value: float, at: float) -> bool:
        cost = math.log(value)
        if len(self._first) == _FIRST:
            return super().update(cost, at)
        self._first.append((cost, at))
        if len(self._first) == _FIRST:
            costs = [each for each, _ in self._first]
            self._mean = statistics.fmean(costs)
            self._deviation = max(statistics.pstdev(costs, self._mean), _LEAST_DEVIATION)
            for first in self._first:
                super().update(*first)
        return False

    @override
    def scaled(self, value: float) -> float:
        away = (value - self._mean) / self._deviation
        return 0.5 + max(-_SPREAD, min(away, _SPREAD)) / (2 * _SPREAD)

    @override
    def alarm(self, signal: Signal) -> Alarm:
        found = super().alarm(signal)
        return replace(found, before=math.exp(found.before), after=math.exp(found.after))
