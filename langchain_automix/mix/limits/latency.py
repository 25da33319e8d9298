"""Track how long the calls of a mix take."""

from __future__ import annotations

from typing import Any, Literal, Self

from langchain_automix.utils.locks import ProcessLock

Stage = Literal["answer", "verify"]

_SMOOTHING = 0.3  # weight of the latest call
_DECAY = 0.9  # each time an estimate rules out a call, so that it is retried eventually


class LatencyEstimator:
    """Expected seconds of each call of a mix: a moving average shared by copies and threads."""

    def __init__(self) -> None:
        self._means: dict[tuple[Stage, int], float] = {}
        self._lock = ProcessLock()

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def expected(self, stage: Stage, index: int) -> float | None:
        """Return the expected seconds for a model's answer or its check, or None if unknown."""
        with self._lock:
            return self._means.get((stage, index))

    def learn(self, stage: Stage, index: int, seconds: float, *, at_least: bool = False) -> None:
        """Add a call's duration; `at_least` marks a call that was given up before its end."""
        key = (stage, index)
        with self._lock:
            mean = self._means.get(key)
            if mean is None or (at_least and seconds > mean):
                self._means[key] = seconds
            elif not at_least:
                self._means[key] = mean + _SMOOTHING * (seconds - mean)

    def left_out(self, stage: Stage, index: int) -> None:
        """Note that a call was skipped for lack of time, which makes its estimate less certain."""
        key = (stage, index)
        with self._lock:
            if key in self._means:
                self._means[key] *= _DECAY
