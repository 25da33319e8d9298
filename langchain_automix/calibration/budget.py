"""The state of a running calibration: what it has spent, what is left, and when it stops."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.spending import Kind, Spending

T = TypeVar("T")
_FIRST_FAILURES, _LATER_FAILURES = 10, 50
"""Consecutive failed examples that end a run: before anything has worked in it, and after."""

_FINISHES_EXAMPLES = frozenset({"enough", "max_spend"})
"""Reasons to stop that let the running examples finish."""


class Stopped(Exception):  # noqa: N818  (a request, not an error)
    """The run has stopped: make no further calls."""


@dataclass(frozen=True)
class Progress:
    """Progress of a calibration."""

    examples: int
    """Total number of examples."""

    done: int
    """Examples finished, by this run or an earlier one."""

    failed: int
    """Finished examples in which a call failed for good."""

    calls: int
    """Calls made by this run."""

    reused: int
    """Examples that an earlier run had finished."""

    spent: float
    """Cost of all calls in the journal, including earlier runs, in `currency`. A call of unknown
    cost counts as the most expensive one of its kind."""

    currency: str
    seconds: float
    """Time since this run started."""

    seconds_left: float | None
    """Estimated time to the end; None until the first example is finished."""

    stopped: str | None = None
    """Why it stopped before the end: `max_spend`, `enough`, `interrupted`, `disk full`,
    `nothing works`; None if it did not."""

    words: str = ""
    """The reason as a sentence."""

    lost: int = 0
    """Number of requests that may have been billed without being reported: they were cancelled,
    timed out, or were running when the process was killed."""


@dataclass
class CalibrationRun:
    """The state that all workers of one run share."""

    examples: int
    currency: str
    spending: Spending = field(default_factory=Spending)
    max_spend: float | None = None
    example_cost: tuple[float, float] = (0.0, 0.0)
    """Likely cost of one example, low and high; used until an example has been measured."""

    is_full: Callable[[], bool] = lambda: False
    """Whether the journal cannot grow any more."""

    listener: Callable[[Progress], None] = lambda _: None
    reused: int = 0
    done: int = 0
    failures: int = 0
    calls: int = 0
    stopped: str | None = None
    words: str = ""
    last_error: str = ""
    signal_number: int | None = None
    """The signal that stopped the run; None if no signal did."""

    _changed: threading.Condition = field(default_factory=threading.Condition)
    """Guards the state; notified when an example ends or the run stops."""

    _started: float = field(default_factory=time.monotonic)
    _spent_before: float = 0.0
    _running: int = 0
    _consecutive_failures: int = 0
    _under_way: int = 0
    _reserved: float = 0.0

    def __post_init__(self) -> None:
        self._spent_before = self.spent

    @property
    def spent(self) -> float:
        """Cost of all calls, including earlier runs; see `Progress.spent`."""
        return self.spending.total

    def stop(self, why: str, words: str = "") -> None:
        """Allow no further calls. Running calls end and are kept; the first reason is kept."""
        with self._changed:
            if self.stopped is None:
                self.stopped, self.words = why, words
            self._changed.notify_all()

    def next_example(self, examples: Iterator[T]) -> T | None:
        """Return the next example to run; None if there is none or the run has stopped.

        Waits as long as the running examples may leave enough money for another one.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self.stopped is not None or self._can_pay() or not self._running
            )
            if self.stopped is None and not self._can_pay():
                self.stop("max_spend")
            if self.stopped is not None or (example := next(examples, None)) is None:
                return None
            self._running += 1
            return example

    def wait_for_running(self) -> None:
        """Wait until no example is running."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running)

    def _can_pay(self) -> bool:
        """Return whether the running examples and one more will probably stay below the limit."""
        if self.max_spend is None:
            return True
        finished = self.done - self.reused
        low, high = self.example_cost
        if finished:
            low = high = (self.spent - self._spent_before) / finished
        # What running examples have spent so far is in `spent` too: it counts twice, to be safe.
        expected = high * (1 + self._running) if self._running else low
        return self.spent + expected <= self.max_spend

    def reserve(self, kind: Kind) -> float | None:
        """Clear a call, and return the amount reserved for it; None if the call must wait.

        Under a limit, the running calls and this one must stay below it even if each costs its
        likely maximum. Near the limit, and while no cost of its kind is known, a call is made
        alone, so that the limit is exceeded by one call at most.

        Raises:
            Stopped: The call must not be made.
        """
        if self.is_full():
            self.stop("disk full", "The disk is full.")
        with self._changed:
            if self.stopped is not None and self.stopped not in _FINISHES_EXAMPLES:
                raise Stopped
            reserved = 0.0
            if self.max_spend is not None:
                most = self.spending.most(kind)
                fits = most is not None and self.spent + self._reserved + most <= self.max_spend
                if self._under_way and not fits:
                    return None
                dearest = 0.0 if most is None else self.spending.dearest(kind)
                if self.spent >= self.max_spend or self.spent + dearest > self.max_spend:
                    self.stop("max_spend")
                    raise Stopped
                # No other call is made beside one whose cost cannot be estimated.
                reserved = self.max_spend if most is None else most
            self._under_way += 1
            self._reserved += reserved
            self.calls += 1
            return reserved

    def wait(self, seconds: float) -> None:
        """Wait until a call has ended, but at most `seconds`."""
        with self._changed:
            self._changed.wait(seconds)

    def settle(self, kind: Kind, reserved: float, cost: float | None, *, lost: int = 0) -> None:
        """Add the cost of a call, if known, and release its reservation.

        Args:
            kind: Kind of the call.
            reserved: The amount that `reserve` returned.
            cost: Cost of the requests whose cost is known. None adds nothing; the unknown cost is
                reported where it is needed.
            lost: Number of its requests that may have been billed without being reported.
        """
        with self._changed:
            self._under_way -= 1
            self._reserved = self._reserved - reserved if self._under_way else 0.0
            self.spending.add(kind, cost, lost)
            self._changed.notify_all()

    def failed(self, stage: str, error: str) -> None:
        """Record the error of a call that failed for good."""
        with self._changed:
            self.last_error = f"{stage}: {error}"

    def finished(self, row: dict[str, Any] | None, *, again: bool = False) -> None:
        """Count an example that has ended; `row` is None if it was abandoned.

        If it fails `again`, as in an earlier run, the failure does not show whether anything still
        works.
        """
        with self._changed:
            self._running -= 1
            if row is not None:
                self._count(is_failed="failed" in row["metadata"], again=again)
            self._changed.notify_all()
        if row is not None:
            self.listener(self.progress())

    def _count(self, *, is_failed: bool, again: bool) -> None:
        self.done += 1
        self.failures += is_failed
        self._consecutive_failures = self._consecutive_failures + (not again) if is_failed else 0
        has_worked = self.done - self.reused > self.failures
        if self._consecutive_failures >= (_LATER_FAILURES if has_worked else _FIRST_FAILURES):
            self.stop("nothing works")

    def progress(self) -> Progress:
        """Return the current progress."""
        with self._changed:
            seconds = time.monotonic() - self._started
            new = self.done - self.reused
            return Progress(
                examples=self.examples,
                done=self.done,
                failed=self.failures,
                calls=self.calls,
                reused=self.reused,
                spent=self.spent,
                currency=self.currency,
                seconds=seconds,
                seconds_left=(self.examples - self.done) * seconds / new if new else None,
                stopped=self.stopped,
                words=self.words,
                lost=self.spending.lost.total(),
            )


def in_order(examples: Sequence[Example], seed: int | None) -> Sequence[Example]:
    """Return the examples in their own order, or shuffled if a seed is given."""
    if seed is None:
        return examples
    shuffled = list(examples)
    random.Random(seed).shuffle(shuffled)  # noqa: S311  (an order, not a secret)
    return shuffled
