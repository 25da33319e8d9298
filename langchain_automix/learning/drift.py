"""Notices when the traffic is no longer what the policy was fitted to."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from langchain_automix.errors import AutoMixError
from langchain_automix.utils.install import install_hint

if TYPE_CHECKING:
    from river.drift import ADWIN, PageHinkley

Signal = Literal["confidence", "escalations", "agreement", "cost"]

_DELTA = 0.001
"""Chance of a false alarm of ADWIN at one look."""

_FIRST = 100
"""Costs that set what is usual, before a change of them can be noticed."""

_TOLERATED, _THRESHOLD = 0.25, 60.0
"""By how many standard deviations costs may shift unnoticed, and how far the sum of the rest must
go (Page, 1954)."""

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
    """Its mean before the change."""

    after: float

    def __str__(self) -> str:
        """Say it in one sentence."""
        return f"{_WORDS[self.signal]} has changed from {self.before:.3g} to {self.after:.3g}."


class DriftMonitor:
    """Looks for changes of confidence, escalations, agreement and cost, query by query.

    Shares and confidences by ADWIN (Bifet and Gavalda, 2007), costs by the test of Page and
    Hinkley, both of the package `river`. What depends on the policy starts anew with each version.
    """

    def __init__(self) -> None:
        self._version: int | None = None
        self._detectors: dict[Signal, ADWIN] = {}
        self._costs = _CostDetector()
        self._reset()

    def _reset(self, *signals: Signal) -> None:
        for signal in signals or ("confidence", "escalations", "agreement"):
            self._detectors[signal] = _adwin()

    def update(self, found: Signals) -> Alarm | None:
        """Take in one query; return an alarm where something has changed, and start anew."""
        if found.version != self._version:
            self._version = found.version
            self._reset("escalations", "agreement")
            self._costs = _CostDetector()
        values: dict[Signal, float | None] = {
            "confidence": found.confidence,
            "escalations": None if found.escalated is None else float(found.escalated),
            "agreement": found.agreement,
        }
        alarm = self._costs.update(found.cost)
        for signal, value in values.items():
            if value is not None and (changed := self._changed(signal, value)) is not None:
                alarm = alarm or Alarm(signal, *changed)
        if alarm is not None:
            self._reset()
            self._costs = _CostDetector()
        return alarm

    def _changed(self, signal: Signal, value: float) -> tuple[float, float] | None:
        detector: Any = self._detectors[signal]
        before = float(detector.estimation)
        detector.update(value)
        return (before, float(detector.estimation)) if detector.drift_detected else None


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


def _adwin() -> ADWIN:
    make: Any = load_detectors().ADWIN
    found: ADWIN = make(delta=_DELTA)
    return found


class _CostDetector:
    """Page and Hinkley's test on logarithms of costs, in standard deviations from what is usual."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._mean, self._deviation = 0.0, 1.0
        self._test: PageHinkley = load_detectors().PageHinkley(
            min_instances=1, delta=_TOLERATED, threshold=_THRESHOLD, alpha=1.0
        )
        self._recent = 0.0

    def update(self, cost: float | None) -> Alarm | None:
        if cost is None or cost <= 0:
            return None
        value = math.log(cost)
        if len(self._first) < _FIRST:
            self._first.append(value)
            self._mean = sum(self._first) / len(self._first)
            squares = sum((each - self._mean) ** 2 for each in self._first)
            self._deviation = max(math.sqrt(squares / len(self._first)), 0.05)
            return None
        self._recent += 0.05 * (value - (self._recent or value)) if self._recent else value
        test: Any = self._test
        test.update((value - self._mean) / self._deviation)
        if not self._test.drift_detected:
            return None
        return Alarm("cost", math.exp(self._mean), math.exp(self._recent))
