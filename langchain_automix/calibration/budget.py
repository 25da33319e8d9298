"""How a calibration is getting on: what it has spent, what is left, and when it is to stop."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Literal

from langchain_automix.calibration.examples.examples import Example

Stage = Literal["answer", "check", "grade"]
_FIRST_FAILURES, _LATER_FAILURES = 10, 50
"""Examples that fail one after the other, before anything has worked in this run or later, after
which nothing more is asked."""


_ENDS_EXAMPLES = frozenset({"enough", "max_spend"})
"""Why no example is begun, while those under way are taken to their end."""


class Wait(Enum):
    """Try again in a moment."""

    WAIT = auto()


WAIT = Wait.WAIT
MOMENT = 0.05  # seconds


class Stopped(Exception):  # noqa: N818  (it is wished)
    """No new call is to be made."""


@dataclass(frozen=True)
class Progress:
    """How far a calibration is."""

    examples: int
    """Examples to take."""

    done: int
    """Of these: finished, now or by an earlier run."""

    failed: int
    """Of these: a call failed for good."""

    calls: int
    """Calls made by this run."""

    reused: int
    """Examples that an earlier run had finished."""

    spent: float
    """Cost of all calls in the journal, those of earlier runs too; in `currency`."""

    currency: str
    seconds: float
    """Since the start of this run."""

    seconds_left: float | None
    """Estimate; None at the start."""

    stopped: str | None = None
    """Why it stopped before the end: `max_spend`, `enough`, `interrupted`, `disk full`,
    `nothing works`; None if it did not."""

    words: str = ""
    """What is to be said about that."""


@dataclass
class CalibrationRun:
    """The state that all workers of one run share."""

    examples: int
    currency: str
    spent: float = 0.0
    max_spend: float | None = None
    example_cost: tuple[float, float] = (0.0, 0.0)
    """What one example is likely to cost, from and to, before any has shown it."""

    is_full: Callable[[], bool] = lambda: False
    """Whether the journal can take no more."""

    listener: Callable[[Progress], None] = lambda _: None
    reused: int = 0
    done: int = 0
    failures: int = 0
    calls: int = 0
    stopped: str | None = None
    words: str = ""
    last_error: str = ""
    _lock: Any = field(default_factory=threading.Lock)
    _started: float = field(default_factory=time.monotonic)
    _at_start: float = 0.0
    _running: int = 0
    _in_a_row: int = 0

    def __post_init__(self) -> None:
        self._at_start = self.spent

    def stop(self, why: str, words: str = "") -> None:
        """Make no new call; what is under way ends, and is kept."""
        with self._lock:
            if self.stopped is None:
                self.stopped, self.words = why, words

    def taken(self, examples: Iterator[Example]) -> Example | Wait | None:
        """Return the next example to take; None when there is none, or no more is wanted.

        `WAIT`, where those under way may yet leave enough money for another.
        """
        with self._lock:
            if self.stopped is None and not self._can_pay():
                if self._running:
                    return WAIT
                self.stopped = "max_spend"
            if self.stopped is not None or (example := next(examples, None)) is None:
                return None
            self._running += 1
            return example

    def _can_pay(self) -> bool:
        """Whether those under way and one more are likely to stay below the limit."""
        if self.max_spend is None:
            return True
        finished = self.done - self.reused
        low, high = self.example_cost
        if finished:
            low = high = (self.spent - self._at_start) / finished
        # What those under way have spent already is in `spent`: it is counted twice, to be sure.
        expected = high * (1 + self._running) if self._running else low
        return self.spent + expected <= self.max_spend

    def before(self) -> None:
        """Let a call be made, or raise `Stopped`."""
        if self.is_full():
            self.stop("disk full", "The disk is full.")
        with self._lock:
            over = self.max_spend is not None and self.spent >= self.max_spend
            if over:
                self.stopped = self.stopped or "max_spend"
            if over or (self.stopped is not None and self.stopped not in _ENDS_EXAMPLES):
                raise Stopped
            self.calls += 1

    def after(self, cost: float | None) -> None:
        """Count what a call cost; what is unknown is complained of where it is needed."""
        with self._lock:
            self.spent += cost or 0.0

    def failed(self, stage: Stage, said: str) -> None:
        """Hear of a call that failed for good, and what was said of it."""
        with self._lock:
            self.last_error = f"{stage}: {said}"

    def finished(self, row: dict[str, Any] | None, *, again: bool = False) -> None:
        """Count an example that is through, or was given up (None).

        One that fails `again`, as in an earlier run, says nothing of whether anything still works.
        """
        with self._lock:
            self._running -= 1
            if row is None:
                return
            bad = "failed" in row["metadata"]
            self.done += 1
            self.failures += bad
            self._in_a_row = self._in_a_row + (not again) if bad else 0
            worked = self.done - self.reused > self.failures
            if self._in_a_row >= (_LATER_FAILURES if worked else _FIRST_FAILURES):
                self.stopped = self.stopped or "nothing works"
        self.listener(self.progress())

    def progress(self) -> Progress:
        """Return how far it is."""
        with self._lock:
            seconds = time.monotonic() - self._started
            new = self.done - self.reused
            left = (self.examples - self.done) * seconds / new if new else None
            return Progress(
                examples=self.examples,
                done=self.done,
                failed=self.failures,
                calls=self.calls,
                reused=self.reused,
                spent=self.spent,
                currency=self.currency,
                seconds=seconds,
                seconds_left=left,
                stopped=self.stopped,
                words=self.words,
            )


def in_order(
    examples: Iterable[Example], seed: int | None
) -> Sequence[Example] | Iterable[Example]:
    """Return examples in the order to take them: shuffled where a run may end before the last."""
    if seed is None:
        return examples
    found = list(examples)
    random.Random(seed).shuffle(found)  # noqa: S311  (an order, not a secret)
    return found
