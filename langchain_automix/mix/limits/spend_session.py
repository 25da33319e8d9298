"""Run one query under its spend limits: reserve, save if needed, and settle."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_automix.errors import DeadlineError, SpendLimitReachedError
from langchain_automix.flow.clock import Deadline
from langchain_automix.flow.steps import Call, Steps, call
from langchain_automix.mix.limits.allowance import SpendAllowance
from langchain_automix.mix.limits.ledger import Admission, Settlement, nanos
from langchain_automix.mix.limits.spend_limit import SpendLimit
from langchain_automix.mix.limits.spend_store import (
    SpendWarning,
    StoreUnreachableError,
    never_succeeds,
)
from langchain_automix.mix.limits.store_step import StoreStep, StoreWork
from langchain_automix.mix.record import QueryCost
from langchain_automix.routers.base import Router
from langchain_automix.utils.fingerprints import uniform

T = TypeVar("T")
CostSource = Callable[[], QueryCost]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25

_STORE_SECONDS = 2.0
"""Longest wait, in seconds, for the stores of the limits; with `max_latency`, a quarter of it."""

_SHORTEST_WAIT = 0.05
_TELLING_WAIT = 10.0
"""Seconds that a query waits for others before it warns."""

_SEED = 6  # differs from the seed by which a policy mixes two plans


class _Account(NamedTuple):
    """A limit that applies to a query, and the query's bucket."""

    limit: SpendLimit
    bucket: str

    def attempt(self, step: Callable[[], None]) -> Exception | None:
        """Take a step with the store and return its error, if any; defer it if that may pass."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  (the answer is there, and paid for)
            self.defer_unless_hopeless(step, error)
            return error
        return None

    def defer_unless_hopeless(self, step: Callable[[], None], error: Exception) -> None:
        if not never_succeeds(error):
            self.limit.books.defer(self.bucket, step)

    def release(self, query: str) -> Callable[[], None]:
        return partial(self.limit.books.release, self.bucket, query, self.limit.terms)

    def settle(self, query: str, settlement: Settlement) -> Callable[[], None]:
        return partial(self.limit.books.settle, self.bucket, query, settlement, self.limit.terms)

    def renewing(self, query: str) -> contextlib.AbstractContextManager[None]:
        books, terms = self.limit.books, self.limit.terms
        renew = partial(books.renew, self.bucket, query, terms)
        return books.renewals.keeping(renew, terms.lease / 1000)

    def warn_unreachable(self, error: Exception | None) -> None:
        if error is None:
            return
        if never_succeeds(error):
            self.limit.books.warn_dropped(self.bucket, error)
            return
        self.limit.books.warn_once(
            f"The store of the spend limit of {self.limit.describe()} cannot be reached "
            f"({type(error).__name__}): until it can, the limit counts as reached.",
            SpendWarning,
        )

    def warn_waiting(self, seconds: float) -> None:
        limit = self.limit
        self.limit.books.warn_once(
            f"A query has waited {seconds:.0f} seconds for others under the spend limit of "
            f"{limit.describe()}: until a cost is known, and near the limit, queries run one after "
            "the other. A process that was killed in a query keeps its place until the lease is "
            f"over ({limit.lease}); `lease=` sets that, and `query_cost=` lets several start at "
            "once.",
            SpendWarning,
        )

    def warn_unknown(self, *, is_lost: bool) -> None:
        limit = self.limit.describe()
        self.limit.books.warn_once(
            "A query was cancelled, or a request of it failed or timed out: its cost is unknown, "
            f"and the spend limit of {limit} counts it as the dearest query, as soon as one is "
            "known."
            if is_lost
            else f"The cost of a query is unknown, so the spend limit of {limit} counts it as the "
            "dearest query, and while no cost is known as the whole limit. See `unpriced` in its "
            "record: a model without a price needs prices=, and one that reports no tokens must "
            "be made to report them (such as by stream_usage=True).",
            SpendWarning,
        )


class SpendSession:
    """The reservations of one query, and what its limits allow it."""

    def __init__(self, limits: Sequence[SpendLimit], clock: Deadline | None = None) -> None:
        """Start without reservations.

        Args:
            limits: The limits that may apply to the query.
            clock: Counts the query's time; None if it has no deadline.
        """
        self._limits = limits
        self._clock = clock
        self._query = ""
        self._accounts: list[_Account] = []
        self._granted: list[_Account] = []  # hold a reservation once the query may start
        self._pressure = 0.0  # how much to save: 0 up to the soft share, 1 at the limit
        self._reached: SpendLimit | None = None  # allows only the cheapest model
        self._unanswered: SpendLimit | None = None  # a limit whose store has not answered
        self._is_closed = False  # cancelled while reserving
        self._lock = threading.Lock()

    def reserve(self) -> Steps[None]:
        """Ask every limit for a reservation, until all are granted.

        Raises:
            SpendLimitReachedError: A limit with `when_spent="raise"` is reached.
        """
        pause, waited = 0.0, 0.0
        while self._limits:
            started = time.monotonic()
            try:
                with self._clock.running() if self._clock else contextlib.nullcontext():
                    may_start = yield from call(self._call(self._reserve_all, pause))
            except StoreUnreachableError as error:
                self._go_on_without(error)
                return
            except GeneratorExit:
                self._is_closed = True  # a thread that is still reserving then releases
                for account in self._accounts:
                    account.limit.books.defer(account.bucket, account.release(self._query))
                raise
            if may_start:
                return
            pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * pause))
            waited += time.monotonic() - started
            self._check_waiting(waited)

    def _check_waiting(self, waited: float) -> None:
        """Warn of a long wait, and end it when the time is up.

        Raises:
            DeadlineError: The query's time is up.
        """
        if waited > _TELLING_WAIT and self._accounts:
            self._accounts[0].warn_waiting(waited)
        if self._clock is not None and self._clock.left <= 0:
            raise DeadlineError(
                f"The query waited for others under its spend limit until its time was up "
                f"(max_latency={self._clock.limit:g} s); nothing was paid for it."
            )

    def _go_on_without(self, error: Exception) -> None:
        """Continue without stores that have not answered in time, treating them as unreachable.

        Raises:
            SpendLimitReachedError: Such a limit has `when_spent="raise"`.
        """
        self._is_closed = True  # the thread still waiting for them then releases
        for account in self._accounts or ():
            limit = account.limit
            if not limit.books.is_remote:
                continue
            limit.books.back_off.failed()
            account.warn_unreachable(error)
            self._unanswered = self._reached = limit
            if limit.when_spent == "raise":
                raise _cannot_look_up(limit, error) from error

    def run_and_settle(self, flow: Steps[T], cost: CostSource) -> Steps[T]:
        """Run the query's flow and settle whatever the outcome; `cost` returns the cost so far."""
        try:
            with self._renewing():
                reply = yield from flow
        except Exception:
            yield from self._settle(cost)
            raise
        except BaseException:  # no further call is possible
            self._settle_later(cost)
            raise
        yield from self._settle(cost)
        return reply

    @contextlib.contextmanager
    def _renewing(self) -> Iterator[None]:
        """Keep the reservations for as long as the query is in progress."""
        with contextlib.ExitStack() as stack:
            for account in self._granted:
                stack.enter_context(account.renewing(self._query))
            yield

    def allowance(
        self,
        names: Sequence[str],
        router: Runnable[Any, Any] | None,
        forced: int | None,
        cost_weight: float | None,
        query_id: str | None,
    ) -> SpendAllowance:
        """Return what the query may spend, once its reservations are granted.

        Near a limit, the cost weight rises. With a router that does not weigh costs, only a
        shrinking share of the queries, chosen by id, may be checked and escalated. Without a
        router, or with a `forced` model, there is nothing to decide.
        """
        if self._unanswered is not None:
            limit = self._unanswered.describe()
            return SpendAllowance(
                cheapest=f"The spend limit of {limit} cannot be looked up, for its store does not "
                f"answer: {names[0]} is asked, and not checked."
            )
        if self._reached is not None:
            limit = self._reached.describe()
            return SpendAllowance(
                cheapest=f"The spend limit of {limit} is reached: {names[0]} is asked, and not "
                "checked."
            )
        if not self._pressure or forced is not None:
            return SpendAllowance(cost_weight)
        if isinstance(router, Router):
            weight = router.cost_weight_under_pressure(self._pressure, cost_weight)
            if weight is not None:
                note = f"(The spend limit is near: the cost weight is raised to {weight:.3g}.)"
                return SpendAllowance(weight, note=note)
        if uniform(query_id or "", _SEED) >= self._pressure:
            return SpendAllowance(cost_weight)
        return SpendAllowance(
            cheapest=f"The spend limit is near: {1 - self._pressure:.0%} of the queries may be "
            f"checked and escalated; for this one {names[0]} is asked, and not checked."
        )

    @property
    def is_near(self) -> bool:
        """Whether a limit is so near that the mix saves, or its store cannot be reached."""
        return bool(self._pressure) or self._reached is not None or self._unanswered is not None

    def _call(self, work: StoreWork, pause: float = 0.0, seconds: float | None = None) -> Call:
        is_remote = any(limit.books.is_remote for limit in self._limits)
        if seconds is None:
            seconds = _STORE_SECONDS
            if self._clock is not None:
                seconds = min(seconds, self._clock.limit / 4)
        step = StoreStep(work, pause, seconds if is_remote else None)
        return Call(step, None, audience="tracers")

    def _reserve_all(self, config: RunnableConfig | None) -> bool:
        """Ask every limit for a reservation; return whether the query may start."""
        buckets = ((limit, limit.bucket(config)) for limit in self._limits)
        self._accounts = [_Account(limit, b) for limit, b in buckets if b is not None]
        # A new id each time, so that a deferred release of an earlier try cannot end this
        # reservation.
        self._query = uuid4().hex
        self._pressure, self._reached, self._unanswered = 0.0, None, None
        granted: list[_Account] = []
        is_busy = False
        try:
            for account in self._accounts:
                admission = self._reserve_one(account)
                if admission == "granted":
                    granted.append(account)
                elif admission == "spent":
                    self._reached = self._reached or account.limit
                else:
                    is_busy = True
            if may_start := not is_busy and not self._is_closed:
                self._granted, granted = granted, []
            return may_start
        finally:
            for account in granted:
                account.warn_unreachable(account.attempt(account.release(self._query)))

    def _reserve_one(self, account: _Account) -> Admission:
        limit, bucket = account
        try:
            limit.books.catch_up(bucket)
            admission, status = limit.books.reserve(bucket, self._query, limit.terms)
        except Exception as error:
            # The reservation may have been made although the reply was lost.
            account.defer_unless_hopeless(account.release(self._query), error)
            account.warn_unreachable(error)
            if limit.when_spent == "raise":
                raise _cannot_look_up(limit, error) from error
            if not never_succeeds(error):
                self._unanswered = limit
            return "spent"
        with contextlib.suppress(Exception):  # other queries' steps do not concern this one
            limit.books.catch_up()
        share = status.spent / limit.terms.limit
        self._pressure = max(self._pressure, min(1.0, (share - limit.soft) / (1 - limit.soft)))
        if admission == "spent" and limit.when_spent == "raise":
            raise SpendLimitReachedError(
                f"The spend limit of {limit.describe()} is reached"
                + (f" for {bucket[3:]!r}" if bucket.startswith("of:") else "")
                + ": nothing was paid for this query. "
                + ("Raise the limit." if limit.per is None else "Wait, or raise the limit.")
            )
        # Past the soft share, using the cheapest model now beats waiting for a larger one.
        saves = limit.when_spent == "cheapest" and status.max_cost and share >= limit.soft
        return "spent" if admission == "busy" and saves else admission

    def _settle(self, cost: CostSource) -> Steps[None]:
        if not self._accounts:
            return
        query_cost = _cost_or_unknown(cost)
        settlement = self._settlement(query_cost)
        seconds = _STORE_SECONDS
        if self._clock is not None:
            seconds = min(self._clock.limit / 4, max(_SHORTEST_WAIT, self._clock.left))
        try:
            yield from call(self._call(settlement, seconds=seconds))
        except StoreUnreachableError as error:  # the thread goes on, and defers if it fails
            for account in self._accounts:
                if account.limit.books.is_remote:
                    account.limit.books.back_off.failed()
                    account.warn_unreachable(error)
        except GeneratorExit:
            self._defer(settlement)
            raise
        self._warn_if_unknown(query_cost)

    def _settle_later(self, cost: CostSource) -> None:
        """Settle a cancelled query; its cost is unknown if a paid call was in progress."""
        if not self._accounts:
            return
        query_cost = _cost_or_unknown(cost)
        self._defer(self._settlement(query_cost))
        with contextlib.suppress(SpendWarning):  # as an error, it would hide the cancellation
            self._warn_if_unknown(query_cost)

    def _warn_if_unknown(self, query_cost: QueryCost) -> None:
        for account in self._accounts if query_cost.cost is None else ():
            account.warn_unknown(is_lost=query_cost.is_lost)

    def _defer(self, settlement: StoreWork) -> None:
        # A local store would settle at once, and then wait for the remote ones.
        remote = (account for account in self._accounts if account.limit.books.is_remote)
        account = next(remote, self._accounts[0])
        account.limit.books.defer(account.bucket, partial(settlement, None))

    def _settlement(self, query_cost: QueryCost) -> StoreWork:
        cost = None if query_cost.cost is None else nanos(query_cost.cost)
        amounts = Settlement(cost, nanos(query_cost.may or Decimal(0)), query_cost.is_lost)
        unsettled = list(self._accounts)

        def settle(_: RunnableConfig | None) -> None:
            with self._lock:  # may be deferred while a thread is settling
                while unsettled:
                    error = unsettled[0].attempt(unsettled[0].settle(self._query, amounts))
                    unsettled.pop(0).warn_unreachable(error)

        return settle


def _cost_or_unknown(cost: CostSource) -> QueryCost:
    try:
        return cost()
    except Exception:  # noqa: BLE001  (invalid prices, which the query's record reports)
        return QueryCost(None, None)  # the reservation must end in any case


def _cannot_look_up(limit: SpendLimit, error: Exception) -> SpendLimitReachedError:
    return SpendLimitReachedError(
        f"The spend limit of {limit.describe()} cannot be looked up, so nothing is spent: "
        f"{type(error).__name__}: {error}"
    )
