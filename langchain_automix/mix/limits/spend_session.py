"""One query under its spend limits: it asks for a place, saves where it must, and settles."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import run_in_executor
from typing_extensions import override

from langchain_automix.errors import SpendLimitReachedError
from langchain_automix.flow.steps import BrokenOff, Call, NeedsNoSlot, Steps
from langchain_automix.mix.limits.allowance import PRESSURE_SEED, SpendAllowance
from langchain_automix.mix.limits.ledger import Answer, ReserveResult, nanos
from langchain_automix.mix.limits.spend_limit import SpendLimit, SpendWarning
from langchain_automix.mix.record import QueryCost
from langchain_automix.routers.base import Router
from langchain_automix.utils.fingerprints import uniform

T = TypeVar("T")
Cost = Callable[[], QueryCost]
"""Says what a query has come to."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25


@dataclass
class SpendSession:
    """The places of one query, and what its limits are told of it."""

    limits: Sequence[SpendLimit]
    query: str = field(default_factory=lambda: uuid4().hex)
    places: list[tuple[SpendLimit, str]] = field(default_factory=list)
    """The limits that are for it, and its bucket in each."""

    pressure: float = 0.0
    """How much it must save, in [0, 1]: nothing up to the soft share, all at the limit."""

    reached: SpendLimit | None = None
    """The limit that leaves the cheapest model only."""

    left: bool = False
    """Whether it was broken off while it asked for its places."""

    lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self) -> Steps[None]:
        """Ask for a place until there is one.

        Raises:
            SpendLimitReachedError: A limit is reached that is to raise it.
        """
        pause = 0.0
        while self.limits:
            try:
                [entered] = yield [self._call(self._ask, pause)]
            except (BrokenOff, GeneratorExit):
                self.left = True  # what a thread is yet given, it gives back itself
                for limit, bucket in self.places:
                    limit.books.put_off(self._release(limit, bucket))
                raise
            if entered:
                return
            pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * pause))

    def through(self, flow: Steps[T], cost: Cost, paid: Callable[[], bool]) -> Steps[T]:
        """Take the query its way, and settle however that ends.

        Args:
            flow: Its way.
            cost: Says what it has come to.
            paid: Says whether nothing more is paid for.
        """
        try:
            reply = yield from flow
        except Exception:
            yield from self._settle(cost)
            raise
        except BaseException as broken:  # it is broken off: no call can be made any more
            between = isinstance(broken, BrokenOff) and not broken.under_way
            self._leave(cost, is_known=between or paid())
            raise
        yield from self._settle(cost)
        return reply

    def allowance(
        self,
        names: Sequence[str],
        router: Runnable[Any, Any] | None,
        forced: int | None,
        cost_weight: float | None,
        query_id: str | None,
    ) -> SpendAllowance:
        """Return what the query may spend, once it has its place.

        A router without costs to weigh, or with a guarantee that holds for one cost weight only,
        decides for the queries that may escalate: by their ids, a share that falls from all to
        none.

        Args:
            names: Names of the models.
            router: What decides; None: nothing is left to decide.
            forced: The model that answers whatever the evidence.
            cost_weight: How much quality a unit of cost is worth; None: the router's own weight.
            query_id: The query.
        """
        if self.reached is not None:
            said = f"The spend limit of {self.reached.said()} is reached"
            return SpendAllowance(cheapest=f"{said}: {names[0]} is asked, and not checked.")
        if not self.pressure or forced is not None:
            return SpendAllowance(cost_weight)
        if isinstance(router, Router):
            weight = router.cost_weight_under_pressure(self.pressure, cost_weight)
            if weight is not None:
                note = f"(The spend limit is near: the cost weight is raised to {weight:.3g}.)"
                return SpendAllowance(weight, note=note)
        if uniform(query_id or "", PRESSURE_SEED) >= self.pressure:
            return SpendAllowance(cost_weight)
        return SpendAllowance(
            cheapest=f"The spend limit is near: {1 - self.pressure:.0%} of the queries may be "
            f"checked and escalated; for this one {names[0]} is asked, and not checked."
        )

    def _call(self, work: Callable[[RunnableConfig | None], Any], pause: float = 0.0) -> Call:
        is_remote = any(limit.books.is_remote for limit in self.limits)
        return Call(_Step(work, pause, is_remote=is_remote), None, audience="tracers")

    def _ask(self, config: RunnableConfig | None) -> bool:
        """Ask every limit for a place; return whether the query may start."""
        buckets = ((limit, limit.bucket(config)) for limit in self.limits)
        self.places = [(limit, bucket) for limit, bucket in buckets if bucket is not None]
        # A new name each time: what was put off of the last time must not take this one's place.
        self.query = uuid4().hex
        self.pressure, self.reached, held, waits = 0.0, None, [], False
        try:
            for limit, bucket in self.places:
                answer = self._ask_one(limit, bucket)
                if answer == "granted":
                    held.append((limit, bucket))
                elif answer == "spent":
                    self.reached = self.reached or limit
                else:
                    waits = True
            if may_start := not waits and not self.left:
                held.clear()
            return may_start
        finally:
            for limit, bucket in held:
                self._give_back(limit, bucket)

    def _release(self, limit: SpendLimit, bucket: str) -> Callable[[], None]:
        return partial(limit.books.release, bucket, self.query, limit.terms)

    def _give_back(self, limit: SpendLimit, bucket: str) -> None:
        release = self._release(limit, bucket)
        try:
            release()
        except Exception as error:  # noqa: BLE001  (it is given back later)
            limit.books.put_off(release)
            _warn_unreachable_store(limit, error)

    def _ask_one(self, limit: SpendLimit, bucket: str) -> Answer:
        try:
            limit.books.catch_up()
            seen = limit.books.reserve(bucket, self.query, limit.terms)
        except Exception as error:
            # It may have been given a place, and the word of it lost.
            limit.books.put_off(self._release(limit, bucket))
            _warn_unreachable_store(limit, error)
            if limit.when_spent == "raise":
                raise SpendLimitReachedError(
                    f"The spend limit of {limit.said()} cannot be looked up, so nothing is spent: "
                    f"{type(error).__name__}: {error}"
                ) from error
            return "spent"
        share = seen.standing.spent / limit.terms.limit
        self.pressure = max(self.pressure, min(1.0, (share - limit.soft) / (1 - limit.soft)))
        if seen.answer == "spent" and limit.when_spent == "raise":
            raise SpendLimitReachedError(
                f"The spend limit of {limit.said()} is reached"
                + (f" for {bucket[3:]!r}" if bucket.startswith("of:") else "")
                + ": nothing was paid for this query. "
                + ("Raise the limit." if limit.per is None else "Wait, or raise the limit.")
            )
        return _without_waiting(limit, seen)

    def _settle(self, cost: Cost) -> Steps[None]:
        if not self.places:
            return
        came = _cost_or_none(cost)
        settlement = self._settlement(came)
        try:
            yield [self._call(settlement)]
        except (BrokenOff, GeneratorExit):
            self._put_off(settlement)
            raise
        self._say_unknown(came)

    def _leave(self, cost: Cost, *, is_known: bool) -> None:
        """Settle a query that was broken off; its cost is known if no paid call was under way."""
        if not self.places:
            return
        came = _cost_or_none(cost)
        if came.cost is not None and not is_known:  # that much, or more
            came = came._replace(cost=None, is_lost=True)
        self._put_off(self._settlement(came))
        with contextlib.suppress(SpendWarning):  # as an error, in the place of what broke it off
            self._say_unknown(came)

    def _say_unknown(self, came: QueryCost) -> None:
        for limit, _ in self.places if came.cost is None else ():
            _warn_unknown_cost(limit, is_lost=came.is_lost)

    def _put_off(self, settlement: Callable[[RunnableConfig | None], None]) -> None:
        stores = [limit.books for limit, _ in self.places]
        # A store in this process does at once what is put off, which another may take long for.
        waiting = next((books for books in stores if books.is_remote), stores[0])
        waiting.put_off(partial(settlement, None))

    def _settlement(self, came: QueryCost) -> Callable[[RunnableConfig | None], None]:
        left = list(self.places)
        cost = None if came.cost is None else nanos(came.cost)
        may = nanos(came.may or Decimal(0))

        def settle(_: RunnableConfig | None) -> None:
            with self.lock:  # it may be put off while a thread is at it
                while left:
                    limit, bucket = left[0]
                    given = (bucket, self.query, cost, may, limit.terms)
                    one = partial(limit.books.settle, *given, lost=came.is_lost)
                    try:
                        one()
                    except Exception as error:  # noqa: BLE001  (the answer is there, and paid for)
                        _warn_unreachable_store(limit, error)
                        limit.books.put_off(one)
                    left.pop(0)

        return settle


def _cost_or_none(cost: Cost) -> QueryCost:
    try:
        return cost()
    except Exception:  # noqa: BLE001  (prices that are none, which the query's record tells of)
        return QueryCost(None, None)  # a place is given away whatever happens


def _without_waiting(limit: SpendLimit, seen: ReserveResult) -> Answer:
    """Say `spent` instead of `busy` where the rest of the money is as good as spent."""
    if seen.answer == "busy" and limit.when_spent == "cheapest" and seen.standing.most:
        return "spent" if seen.standing.spent >= limit.soft * limit.terms.limit else "busy"
    return seen.answer


def _warn_unknown_cost(limit: SpendLimit, *, is_lost: bool) -> None:
    limit.books.warn_once(
        "A query was broken off, or a request of it failed or timed out unseen: what it cost is "
        f"unknown, and the spend limit of {limit.said()} counts it as the dearest one, as soon as "
        "one is known."
        if is_lost
        else f"What a query cost is unknown, so the spend limit of {limit.said()} counts it as the "
        "dearest one, and as long as no cost is known as the whole limit: see `unpriced` in its "
        "record; a model without a price needs prices=, one that reports no tokens must be made "
        "to (such as by stream_usage=True).",
        SpendWarning,
    )


def _warn_unreachable_store(limit: SpendLimit, error: Exception) -> None:
    limit.books.warn_once(
        f"The store of the spend limit of {limit.said()} cannot be reached "
        f"({type(error).__name__}): until it can, the limit counts as reached.",
        SpendWarning,
    )


class _Step(NeedsNoSlot, Runnable[Any, Any]):
    """One step with the stores: in a thread where an event loop would have to wait for it."""

    def __init__(
        self, work: Callable[[RunnableConfig | None], Any], pause: float, *, is_remote: bool
    ) -> None:
        self._work = work
        # Those who wait together must not ask together.
        self._pause = pause * random.uniform(0.5, 1)  # noqa: S311
        self._is_remote = is_remote

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        if self._pause:
            time.sleep(self._pause)
        return self._work(config)

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        if self._pause:
            await asyncio.sleep(self._pause)
        if not self._is_remote:
            return self._work(config)
        return await run_in_executor(None, self._work, config)
