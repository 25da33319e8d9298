"""Time: how much of a query's is left, and how long the calls of a mix take."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Literal, Self
from weakref import WeakValueDictionary

Stage = Literal["answer", "verify"]

_WEIGHT = 0.3
"""Of the latest call in the estimate: the last few count."""

_FORGOTTEN = 0.9
"""What is left of an estimate each time that it speaks against a call: it is tried again."""


class LatencyEstimator:
    """Expected seconds of each call of a mix: a moving average of its own past calls.

    One is shared by all mixes of the same models, such as the copies of a mix, and by all threads.
    """

    def __init__(self) -> None:
        self._means: dict[tuple[Stage, int], float] = {}
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def expected(self, stage: Stage, index: int) -> float | None:
        """Return how long an answer of a model, or a check of it, takes; None: not known."""
        with self._lock:
            return self._means.get((stage, index))

    def learn(self, stage: Stage, index: int, seconds: float, *, at_least: bool = False) -> None:
        """Add a call.

        Args:
            stage: What kind of call it was.
            index: Whose answer it was, or of whose answer a check.
            seconds: What it took.
            at_least: Whether it was given up, and would have taken longer.
        """
        key = (stage, index)
        with self._lock:
            mean = self._means.get(key)
            if mean is None or (at_least and seconds > mean):
                self._means[key] = seconds
            elif not at_least:
                self._means[key] = mean + _WEIGHT * (seconds - mean)

    def left_out(self, stage: Stage, index: int) -> None:
        """Note that a call was not made for lack of time: what is known of it grows old."""
        key = (stage, index)
        with self._lock:
            if key in self._means:
                self._means[key] *= _FORGOTTEN


_LOCK = threading.Lock()
# A pace lives as long as a mix that has it, whose models live as long: none has another's id.
_OF_MODELS: WeakValueDictionary[tuple[int, ...], LatencyEstimator] = WeakValueDictionary()


def latency_of(models: Sequence[Any], verifier: Any) -> LatencyEstimator:
    """Return how long the calls of some models take, and those of what checks them.

    `configurable_fields`, for one, makes a mix anew for every query, which must not forget it.
    """
    with _LOCK:
        return _OF_MODELS.setdefault((*map(id, models), id(verifier)), LatencyEstimator())
