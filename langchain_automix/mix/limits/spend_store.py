"""Common behaviour of all stores of a spend limit: deferred steps and warnings."""

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
"""Maximum number of different warnings, since the names of tenants may come from anyone."""

_MAX_DEFERRED = 10_000
"""Maximum number of deferred steps. Each takes some hundred bytes, and a store may be unreachable
for days."""

_SLOW_SECONDS = 0.25

_AT_ONCE = 100
"""How many deferred steps of other queries one query carries out."""

_NEVER = (TypeError, ValueError, LookupError, AttributeError)  # UnicodeError is a ValueError


def never_succeeds(error: Exception) -> bool:
    """Whether a step fails like this every time: the store is up, and rejects the step."""
    if isinstance(error, _NEVER) or "DataError" in {kind.__name__ for kind in type(error).__mro__}:
        return True
    if type(error).__name__ != "ResponseError":  # such as from a server that is still loading
        return False
    # Other codes, such as MISCONF for a full disk, concern the server and not this step.
    code = str(error).partition(" ")[0]
    return code == "WRONGTYPE" or not code.isupper()


class StoreUnreachableError(ConnectionError):
    """The store has not answered, and is left alone for a while."""


class BackOff:
    """How long to leave a store alone that does not answer: 1 second, doubling up to 30.

    After that, one caller tries; others are rejected until the outcome is known.
    """

    FIRST, LONGEST = 1.0, 30.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without knowledge of the store."""
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
            StoreUnreachableError: It is too early to try.
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
                return  # callers that asked at the same time as the first to fail
            self._seconds = min(self.LONGEST, max(self.FIRST, 2 * self._seconds))
            self._until, self._is_tried = self._clock() + self._seconds, False

    def succeeded(self) -> None:
        """Note that the store has answered."""
        with self._lock:
            self._seconds = 0.0


class SpendStore(ABC):
    """Keeps the ledgers of one limit, one per bucket."""

    is_remote: ClassVar[bool] = True
    """Whether a step may take longer than an event loop should be blocked."""

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
        """Take one atomic step, in the same way as `SpendLedger.apply`."""

    def _take(
        self, step: Step, bucket: str, query: str, terms: LimitTerms, settlement: Settlement
    ) -> ReserveResult:
        """Take a step; if the store is slow to fail, leave it alone for a while.

        Raises:
            StoreUnreachableError: The store did not answer recently.
            Exception: The error raised by the store.
        """
        if not self.is_remote:
            return self.step(step, bucket, query, terms, settlement)
        self.back_off.admit()
        started = time.monotonic()
        try:
            result = self.step(step, bucket, query, terms, settlement)
        except Exception as error:
            # A store that fails immediately delays nobody, and may be back for the next query.
            if not never_succeeds(error) and time.monotonic() - started > _SLOW_SECONDS:
                self.back_off.failed()
            raise
        self.back_off.succeeded()
        return result

    def reserve(self, bucket: str, query: str, terms: LimitTerms) -> ReserveResult:
        """Make a reservation for a query, if it may start."""
        return self._take("reserve", bucket, query, terms, NO_COST)

    def renew(self, bucket: str, query: str, terms: LimitTerms) -> None:
        """Renew the reservation of a query that is still in progress."""
        self._take("renew", bucket, query, terms, NO_COST)

    def settle(self, bucket: str, query: str, settlement: Settlement, terms: LimitTerms) -> None:
        """Record the cost of a query and end its reservation."""
        self._take("settle", bucket, query, terms, settlement)

    def release(self, bucket: str, query: str, terms: LimitTerms) -> None:
        """End the reservation of a query that cost nothing."""
        self._take("release", bucket, query, terms, NO_COST)

    def status(self, bucket: str, terms: LimitTerms) -> LimitStatus:
        """Return the status of the limit."""
        return self._take("status", bucket, "", terms, NO_COST).status

    def defer(self, bucket: str, step: Callable[[], None]) -> None:
        """Queue a step that nobody can wait for; it runs before the next query, or now if local.

        Until then, the reservation that the step would end still counts.
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

        At most a hundred are taken, so that no query has to make up for a long outage alone. A step
        that can never succeed is dropped with a warning, so that it does not block those after it.
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
                    # Move the bucket to the end, so that others come first next time.
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
        """Warn that a step of a bucket can never succeed."""
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
