"""What every store of a spend limit does: deferred steps, and warnings."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from langchain_automix.mix.limits.ledger import (
    NO_COST,
    LimitStatus,
    LimitTerms,
    ReserveResult,
    Settlement,
    Step,
)
from langchain_automix.mix.limits.renewal import Renewals
from langchain_automix.utils.locks import ProcessLock
from langchain_automix.utils.user_warnings import warn_of_what_is_paid


class SpendWarning(UserWarning):
    """A spend limit cannot count exactly: a cost is unknown, or its store cannot be reached."""


_LONGEST_NAME = 80
_MAX_WARNINGS = 1000
"""Different ones, for the names of tenants may be anybody's."""

_MAX_DEFERRED = 10_000
"""Steps that are put off at once: each is some hundred bytes, and a store may be away for days."""

_SLOW_SECONDS = 0.25

_AT_ONCE = 100
"""Deferred steps that one query takes for the others."""

_NEVER = (TypeError, ValueError, LookupError, AttributeError)  # UnicodeError is a ValueError


def never_succeeds(error: Exception) -> bool:
    """Whether a step that failed so fails whenever it is taken: its store works, and refuses it."""
    if isinstance(error, _NEVER) or "DataError" in {kind.__name__ for kind in type(error).__mro__}:
        return True
    if type(error).__name__ != "ResponseError":  # such as of a server that is still loading
        return False
    # Other codes, such as MISCONF of a full disk, tell of the server and not of this step.
    code = str(error).partition(" ")[0]
    return code == "WRONGTYPE" or not code.isupper()


class StoreUnreachableError(ConnectionError):
    """A store has not answered, and is not asked again for a while."""


class BackOff:
    """How long a store that does not answer is left alone: 1 second, doubled up to 30.

    When that time is up, one caller tries; the others are turned away until it is known how.
    """

    FIRST, LONGEST = 1.0, 30.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with a store of which nothing is known."""
        self._clock = clock
        self._seconds = 0.0
        self._until = 0.0
        self._is_tried = False
        self._lock = ProcessLock()

    def __reduce__(self) -> Any:
        return BackOff, ()

    def admit(self) -> None:
        """Let a caller try.

        Raises:
            StoreUnreachableError: Nobody may yet.
        """
        with self._lock:
            now = self._clock()
            if self._seconds and now < self._until:
                raise StoreUnreachableError(
                    f"the store did not answer, and is not asked for {self._until - now:.1f} s"
                )
            if self._seconds:
                self._until, self._is_tried = now + self._seconds, True

    def failed(self) -> None:
        """Note that the store did not answer."""
        with self._lock:
            if self._seconds and not self._is_tried:
                return  # those who asked together with the first one that failed
            self._seconds = min(self.LONGEST, max(self.FIRST, 2 * self._seconds))
            self._until, self._is_tried = self._clock() + self._seconds, False

    def succeeded(self) -> None:
        """Note that the store has answered."""
        with self._lock:
            self._seconds = 0.0


class SpendStore(ABC):
    """Keeps the ledgers of one limit, one for each bucket."""

    is_remote: ClassVar[bool] = True
    """Whether a step may take longer than an event loop should wait."""

    def __init__(self) -> None:
        self._deferred: dict[str, deque[Callable[[], None]]] = {}
        self._deferred_lock = ProcessLock()
        self.back_off = BackOff()
        self.renewals = Renewals()
        self._warnings: set[str] = set()

    @abstractmethod
    def step(
        self, step: Step, bucket: str, query: str, terms: LimitTerms, settlement: Settlement
    ) -> ReserveResult:
        """Take one atomic step, as `SpendLedger.apply` does."""

    def _take(
        self, step: Step, bucket: str, query: str, terms: LimitTerms, settlement: Settlement
    ) -> ReserveResult:
        """Take a step; a store that takes long to fail is then left alone for a while.

        Raises:
            StoreUnreachableError: It has not answered before.
            Exception: What the store raised.
        """
        if not self.is_remote:
            return self.step(step, bucket, query, terms, settlement)
        self.back_off.admit()
        started = time.monotonic()
        try:
            result = self.step(step, bucket, query, terms, settlement)
        except Exception as error:
            # One that refuses at once holds nobody up, and may be back for the next query.
            if not never_succeeds(error) and time.monotonic() - started > _SLOW_SECONDS:
                self.back_off.failed()
            raise
        self.back_off.succeeded()
        return result

    def reserve(self, bucket: str, query: str, terms: LimitTerms) -> ReserveResult:
        """Make a reservation for a query, if it may start."""
        return self._take("reserve", bucket, query, terms, NO_COST)

    def renew(self, bucket: str, query: str, terms: LimitTerms) -> None:
        """Keep the reservation of a query that is still under way."""
        self._take("renew", bucket, query, terms, NO_COST)

    def settle(self, bucket: str, query: str, settlement: Settlement, terms: LimitTerms) -> None:
        """Count what a query came to, and end its reservation."""
        self._take("settle", bucket, query, terms, settlement)

    def release(self, bucket: str, query: str, terms: LimitTerms) -> None:
        """End the reservation of a query that has cost nothing."""
        self._take("release", bucket, query, terms, NO_COST)

    def status(self, bucket: str, terms: LimitTerms) -> LimitStatus:
        """Return the status of the limit."""
        return self._take("status", bucket, "", terms, NO_COST).status

    def defer(self, bucket: str, step: Callable[[], None]) -> None:
        """Take a step that nobody can wait for: before the next query asks, or at once if local.

        Until then, the reservation that the step would end counts.
        """
        with self._deferred_lock:
            self._deferred.setdefault(bucket, deque()).append(step)
            is_full = sum(map(len, self._deferred.values())) > _MAX_DEFERRED
            if is_full:
                first = next(iter(self._deferred))
                self._deferred[first].popleft()
                if not self._deferred[first]:
                    del self._deferred[first]
        if is_full:
            self.warn_once(
                f"The store of a spend limit cannot be reached, and more than {_MAX_DEFERRED} "
                "queries could not be counted there: the oldest of them are dropped, so that more "
                "was spent than it will say.",
                SpendWarning,
            )
        if not self.is_remote:
            self.catch_up(bucket)

    def catch_up(self, bucket: str | None = None) -> None:
        """Take deferred steps of a bucket, or of all, until one fails in a way that may pass.

        At most a hundred are taken, so that no query has to wait for a long outage's.

        A step that can never be taken is dropped with a warning: it must not stop those after it.
        """
        if bucket is None:
            for each in list(self._deferred)[:_AT_ONCE]:
                self.catch_up(each)
            return
        for _ in range(_AT_ONCE):
            if (step := self._next_deferred(bucket)) is None:
                return
            try:
                step()
            except Exception as error:
                if never_succeeds(error):
                    self.warn_dropped(bucket, error)
                    continue
                with self._deferred_lock:
                    # The bucket goes to the end: next time, others come before it.
                    self._deferred[bucket] = self._deferred.pop(bucket, deque())
                    self._deferred[bucket].appendleft(step)
                raise

    def _next_deferred(self, bucket: str) -> Callable[[], None] | None:
        with self._deferred_lock:
            steps = self._deferred.get(bucket)
            if steps:
                return steps.popleft()
            self._deferred.pop(bucket, None)
            return None

    def warn_dropped(self, bucket: str, error: Exception) -> None:
        """Warn that a step of a bucket can never be taken."""
        name = ascii(bucket.removeprefix("of:"))
        self.warn_once(
            f"A spend limit cannot be kept for {name if len(name) < _LONGEST_NAME else 'a value'}: "
            f"its store refuses it ({type(error).__name__}: {error}). For it alone, the limit "
            "counts as reached, and what a query cost may count as a dearest one only.",
            SpendWarning,
        )

    def warn_once(self, text: str, category: type[UserWarning]) -> None:
        """Warn, unless this store has given the same warning before."""
        if text not in self._warnings and len(self._warnings) < _MAX_WARNINGS:
            self._warnings.add(text)
            warn_of_what_is_paid(text, category)
