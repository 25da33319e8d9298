"""How soon detectors of drift notice a change of a size, and how often they are wrong.

Values are the confidence of a check, and the agreement with the largest model, as in public logs;
a change draws queries of the same log with other weights, so that the mean moves by so much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from langchain_automix.learning.drift import load_detectors, new_adwin
from langchain_automix.policy.data.arrays import Floats
from langchain_automix.policy.fitting.baselines import confidences
from tests.benchmarks.learning import pairs
from tests.benchmarks.quality import slope

SIZES = (0.03, 0.05, 0.1, 0.2)
QUIET, STREAMS = 10_000, 4
"""Queries of a stream without a change, and such streams of each pair of models."""

RIVER: Any = load_detectors()
BEFORE, AFTER = 1_000, 2_000
SEEDS = 2
IN_TIME = 1_000
"""Queries after a change within which a notice counts as one."""

_USUAL = 100
"""Values from which a test that needs one learns a mean and a deviation."""

HEADS = (
    "detector",
    "false alarms in 10,000, confidence",
    "agreement",
    *(f"{size:g}: queries (noticed)" for size in SIZES),
)


class Detector(Protocol):
    """What all detectors of river have."""

    drift_detected: bool

    def update(self, x: float) -> Any:
        """Take in one value."""


class Standardised:
    """The test of Page and Hinkley on deviations from what is usual of the first values."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._test: Any = RIVER.PageHinkley(min_instances=1, delta=0.25, threshold=60.0, alpha=1.0)
        self.drift_detected = False

    def update(self, x: float) -> None:
        """Take in one value."""
        if len(self._first) < _USUAL:
            self._first.append(x)
            return
        deviation = max(float(np.std(self._first)), 0.05)
        self._test.update((x - float(np.mean(self._first))) / deviation)
        self.drift_detected = self._test.drift_detected


DETECTORS: dict[str, Callable[[], Any]] = {
    "ADWIN, as in `learning`": new_adwin,
    "ADWIN, delta 0.001 (before)": lambda: RIVER.ADWIN(delta=0.001),
    "Page-Hinkley, standardised": Standardised,
    "HDDM-A, 1e-4, both sides": lambda: RIVER.binary.HDDMA(
        drift_confidence=1e-4, two_sided_test=True
    ),
}


def table() -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return a row for each detector."""
    signals = list(_signals())
    return HEADS, [_row(name, make, signals) for name, make in DETECTORS.items()]


def _signals() -> Iterator[tuple[Floats, Floats]]:
    """Yield the confidences of each pair of models, and the agreement of the two."""
    for _, _, pair, _ in pairs(test=False):
        if slope(pair) > 0:
            found = confidences(pair, 0)
            agreement = 1 - np.abs(pair.quality[:, 0] - pair.quality[:, -1])
            yield found[~np.isnan(found)], agreement


def _row(
    name: str, make: Callable[[], Detector], signals: list[tuple[Floats, Floats]]
) -> tuple[str, ...]:
    false = np.zeros(2)
    for i, kinds in enumerate(signals):
        for j, values in enumerate(kinds):
            for seed in range(STREAMS):
                stream = np.random.default_rng([i, j, seed]).choice(values, QUIET)
                false[j] += len(_alarms(make, stream))
    rates = false / (QUIET * STREAMS * len(signals)) * 10_000
    cells = [_delays(make, [found for found, _ in signals], size) for size in SIZES]
    return name, f"{rates[0]:.2f}", f"{rates[1]:.2f}", *cells


def _alarms(make: Callable[[], Detector], stream: Floats) -> list[int]:
    found, detector = [], make()
    for i, value in enumerate(stream.tolist()):
        detector.update(value)
        if detector.drift_detected:
            found.append(i)
            detector = make()
    return found


def _delays(make: Callable[[], Detector], signals: list[Floats], size: float) -> str:
    """Return the median of the queries until a change of a size is noticed, and how often it is."""
    delays = []
    for i, values in enumerate(signals):
        for way in (size, -size):
            weights = tilted(values, way)
            for seed in range(SEEDS if weights is not None else 0):
                rng = np.random.default_rng([i, seed])
                parts = rng.choice(values, BEFORE), rng.choice(values, AFTER, p=weights)
                alarms = _alarms(make, np.concatenate(parts))
                delays.append(next((a - BEFORE for a in alarms if a >= BEFORE), AFTER))
    in_time = np.mean(np.array(delays) < IN_TIME)
    middle = float(np.median(delays))
    return f"{middle:.0f} ({in_time:.0%})" if middle < AFTER else f"- ({in_time:.0%})"


def tilted(values: Floats, size: float) -> Floats | None:
    """Return weights by which the mean of values moves by a size; None where it cannot."""
    wanted, middle = values.mean() + size, values - values.mean()
    low, high = -50.0, 50.0
    for _ in range(60):
        strength = (low + high) / 2
        weights = np.exp(strength * middle)
        weights /= weights.sum()
        low, high = (strength, high) if weights @ values < wanted else (low, strength)
    found: Floats = weights
    return found if abs(float(weights @ values) - wanted) < abs(size) / 10 else None
