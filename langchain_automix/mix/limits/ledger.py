"""The ledger of a spend limit: what is spent and reserved, in integers, over a sliding window.

The rule that admits a query is `LimitStatus.admission`. The script of `RedisStore` is the same rule
in one round trip, where compare-and-set needs several; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Any, Literal, NamedTuple, Self

SLOTS = 60
"""Parts of a window; what was spent in one part leaves the window together."""

NANO = 1_000_000_000

DOUBT = 10
"""A query may cost more than the dearest of n queries before it by this many n-ths: the first few
say little about the next one, the first thousand say a lot."""

Step = Literal["reserve", "renew", "settle", "release", "status"]

Admission = Literal["granted", "busy", "spent"]
"""`granted`: the query may start, and has a reservation. `busy`: the limit is not reached, but the
queries under way might reach it. `spent`: the limit is reached."""


def nanos(dollars: Decimal) -> int:
    """Convert dollars to nano-dollars, rounded up: no cost is counted as less than it is."""
    return int((dollars * NANO).to_integral_value(ROUND_CEILING))


def dollars(amount: int) -> Decimal:
    """Convert nano-dollars to dollars, without trailing zeros."""
    value = (Decimal(amount) / NANO).normalize()
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value


class LimitTerms(NamedTuple):
    """The terms of a limit, in the units of the ledger."""

    limit: int
    """Nano-dollars."""

    width: int
    """Length of a slot in milliseconds; 0: there is no window, all is one slot."""

    lease: int
    """Milliseconds after which the others no longer wait for a query that has not renewed its
    reservation."""

    max_query_cost: int = 0
    """Nano-dollars that a query costs at most, as the user says; 0: unknown."""

    def slot(self, now: int) -> int:
        """Return the slot of a time in milliseconds."""
        return now // self.width if self.width else 0

    def oldest(self, now: int) -> int:
        """Return the first slot that is at least partly in the window."""
        return self.slot(now) - SLOTS if self.width else 0

    @property
    def retention(self) -> int | None:
        """Milliseconds for which what is written now matters; None: for ever."""
        return self.width * (SLOTS + 2) + self.lease if self.width else None


class LimitStatus(NamedTuple):
    """The status of a limit, before the query that asks."""

    spent: int
    """Nano-dollars settled in the window, and those of queries that never settled."""

    active: int
    """Queries under way that have a reservation."""

    max_cost: int
    """Nano-dollars of the dearest query; 0: unknown."""

    reserved_per_query: int
    """Nano-dollars reserved for each query under way; 0: nothing is known yet."""

    def admission(self, limit: int) -> Admission:
        """Say whether one more query may start.

        It may if the limit holds with a reservation for it and for each query under way. Near the
        limit, and while no cost is known, queries start alone: then the limit is passed by one
        query at most, whatever that one costs.
        """
        if self.spent >= limit:
            return "spent"
        reserved = (self.active + 1) * self.reserved_per_query
        if not self.active or (reserved and self.spent + reserved <= limit):
            return "granted"
        return "busy"


class ReserveResult(NamedTuple):
    """The reply to a query that asks for a reservation."""

    admission: Admission
    status: LimitStatus


class Reservation(NamedTuple):
    """The reservation of one query under way."""

    slot: int
    """When it was made. A query that never settles counts as a dearest one from then on."""

    until: int
    """Time in milliseconds after which the others no longer wait for it."""


class Settlement(NamedTuple):
    """What a query came to, in nano-dollars."""

    cost: int | None
    """None: unknown, which counts as the dearest query, this one included, and as the whole limit
    while no cost is known: unknown is never 0."""

    max_cost: int = 0
    """What it might have cost, had every model been asked, and so what the next one might cost. 0:
    it says nothing about the next one."""

    is_lost: bool = False
    """Whether nothing more was heard of its requests. While no cost is known, it then leaves its
    reservation behind, which counts as soon as one is."""


NO_COST = Settlement(0)

_BY_SLOT = ("spent", "most", "settled")  # as stores have them


@dataclass
class SpendLedger:
    """What is known of one limit."""

    spent: dict[int, int] = field(default_factory=dict)
    """Nano-dollars, by slot."""

    max_cost: dict[int, int] = field(default_factory=dict)
    """What the dearest query cost, or might have cost, by slot."""

    settled: dict[int, int] = field(default_factory=dict)
    """Number of queries whose cost is known, by slot."""

    reservations: dict[str, Reservation] = field(default_factory=dict)
    """By query."""

    def forget(self, terms: LimitTerms, now: int) -> None:
        """Drop what has left the window."""
        oldest = terms.oldest(now)
        for by_slot in (self.spent, self.max_cost, self.settled):
            for slot in [slot for slot in by_slot if slot < oldest]:
                del by_slot[slot]
        for query, (slot, until) in list(self.reservations.items()):
            if slot < oldest and until <= now:
                del self.reservations[query]

    def status(self, terms: LimitTerms, now: int) -> LimitStatus:
        """Return the status of the limit; call `forget` before."""
        active = sum(reservation.until > now for reservation in self.reservations.values())
        seen = max(self.max_cost.values(), default=0)
        doubt = DOUBT * seen // max(1, sum(self.settled.values()))
        reserved = terms.max_query_cost if terms.max_query_cost >= seen else seen + doubt
        max_cost = max(terms.max_query_cost, seen)
        spent = sum(self.spent.values()) + (len(self.reservations) - active) * max_cost
        return LimitStatus(spent, active, max_cost, reserved)

    def apply(
        self, step: Step, query: str, terms: LimitTerms, now: int, settlement: Settlement = NO_COST
    ) -> ReserveResult:
        """Take one step, and return the status before it."""
        self.forget(terms, now)
        if step == "reserve":  # asked again, a query does not wait for itself
            self.reservations.pop(query, None)
        status = self.status(terms, now)
        admission = status.admission(terms.limit)
        if step == "reserve" and admission == "granted":
            self.reserve(query, terms, now)
        elif step == "settle":
            self.settle(query, settlement, terms, now)
        elif step == "release":
            self.reservations.pop(query, None)
        elif step == "renew":
            self.renew(query, terms, now)
        return ReserveResult(admission, status)

    def reserve(self, query: str, terms: LimitTerms, now: int) -> None:
        """Make a reservation for a query."""
        self.reservations[query] = Reservation(terms.slot(now), now + terms.lease)

    def renew(self, query: str, terms: LimitTerms, now: int) -> None:
        """Let the others wait longer for a query, if it still has its reservation."""
        if (held := self.reservations.get(query)) is not None:
            self.reservations[query] = held._replace(until=now + terms.lease)

    def settle(self, query: str, settlement: Settlement, terms: LimitTerms, now: int) -> None:
        """Count what a query came to, and end its reservation."""
        slot = terms.slot(now)
        cost, max_cost, is_lost = settlement
        dearest = max(self.status(terms, now).max_cost, max_cost)
        self.reservations.pop(query, None)
        if cost is None and is_lost and not dearest:
            # Under a name that no release takes away.
            self.reservations[f"{query}-lost"] = Reservation(slot, now)
            return
        cost = (dearest or terms.limit) if cost is None else cost
        self.spent[slot] = self.spent.get(slot, 0) + cost
        if max_cost:
            self.max_cost[slot] = max(self.max_cost.get(slot, 0), max_cost)
            self.settled[slot] = self.settled.get(slot, 0) + 1

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        spent, max_cost, settled = (
            {int(slot): n for slot, n in value[kind].items()} for kind in _BY_SLOT
        )
        reservations = {query: Reservation(*each) for query, each in value["held"].items()}
        return cls(spent, max_cost, settled, reservations)

    def to_json(self) -> dict[str, Any]:
        """Return the ledger as JSON-ready values."""
        by_slot = zip(_BY_SLOT, (self.spent, self.max_cost, self.settled), strict=True)
        return {
            **{kind: {str(slot): n for slot, n in amounts.items()} for kind, amounts in by_slot},
            "held": {query: list(each) for query, each in self.reservations.items()},
        }

    @classmethod
    def merge(cls, ledgers: Iterable[SpendLedger]) -> Self:
        """Return what several processes know together."""
        whole = cls()
        for ledger in ledgers:
            for slot, amount in ledger.spent.items():
                whole.spent[slot] = whole.spent.get(slot, 0) + amount
            for slot, number in ledger.settled.items():
                whole.settled[slot] = whole.settled.get(slot, 0) + number
            for slot, cost in ledger.max_cost.items():
                whole.max_cost[slot] = max(whole.max_cost.get(slot, 0), cost)
            whole.reservations.update(ledger.reservations)
        return whole
