"""The ledger of a spend limit: amounts spent and reserved, in integers, in a sliding window.

`LimitStatus.admission` is the rule that admits a query. The script of `RedisStore` implements the
same rule in one round trip, where compare-and-set would need several. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Any, Literal, NamedTuple, Self

SLOTS = 60
"""Number of slots in a window; whatever was spent in a slot leaves the window together."""

NANO = 1_000_000_000

DOUBT = 10
"""Safety margin: a query is assumed to cost up to DOUBT / n more than the dearest of the n queries
before it. The first few queries say little about the next one, the first thousand a lot."""

Step = Literal["reserve", "renew", "settle", "release", "status"]

Admission = Literal["granted", "busy", "spent"]
"""`granted`: the query may start and has a reservation. `busy`: the limit is not reached, but the
queries in progress might reach it. `spent`: the limit is reached."""


def nanos(dollars: Decimal) -> int:
    """Convert dollars to nano-dollars, rounded up so that no cost is understated."""
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
    """Length of a slot in milliseconds; 0 means no window, with everything in one slot."""

    lease: int
    """Milliseconds after which other queries stop waiting for one that has not renewed its
    reservation."""

    max_query_cost: int = 0
    """The most that a query costs according to the user, in nano-dollars; 0 if unknown."""

    def slot(self, now: int) -> int:
        """Return the slot of a time in milliseconds."""
        return now // self.width if self.width else 0

    def oldest(self, now: int) -> int:
        """Return the first slot that is at least partly in the window."""
        return self.slot(now) - SLOTS if self.width else 0

    @property
    def retention(self) -> int | None:
        """Milliseconds for which an entry written now matters; None means for good."""
        return self.width * (SLOTS + 2) + self.lease if self.width else None


class LimitStatus(NamedTuple):
    """The status of a limit, not counting the query that asks."""

    spent: int
    """Nano-dollars settled in the window, plus those of queries that never settled."""

    active: int
    """Number of queries in progress that hold a reservation."""

    max_cost: int
    """Cost of the dearest query in nano-dollars; 0 if unknown."""

    reserved_per_query: int
    """Nano-dollars reserved for each query in progress; 0 if no cost is known yet."""

    def admission(self, limit: int) -> Admission:
        """Decide whether one more query may start.

        It may if the limit still holds with a reservation for it and for each query in progress.
        Near the limit, and until a cost is known, queries start one at a time. Then at most one
        query exceeds the limit, whatever it costs.
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
    """The slot in which it was made. A query that never settles counts as a dearest one from
    then."""

    until: int
    """Time in milliseconds after which the others stop waiting for it."""


class Settlement(NamedTuple):
    """The final cost of a query, in nano-dollars."""

    cost: int | None
    """The cost; None if unknown. An unknown cost counts as that of the dearest query, this one
    included, or as the whole limit until a cost is known. Unknown is never 0."""

    max_cost: int = 0
    """The cost that the query would have had if every model had been asked: an estimate for the
    next query. 0 means that there is no estimate."""

    is_lost: bool = False
    """Whether the outcome of its requests was never learned. Until a cost is known, it then leaves
    its reservation behind, which counts as soon as one is."""


NO_COST = Settlement(0)

_BY_SLOT = ("spent", "most", "settled")  # the names used in stores


@dataclass
class SpendLedger:
    """Everything known about one limit."""

    spent: dict[int, int] = field(default_factory=dict)
    """Nano-dollars spent, by slot."""

    max_cost: dict[int, int] = field(default_factory=dict)
    """Maximum cost that a query had or might have had, by slot."""

    settled: dict[int, int] = field(default_factory=dict)
    """Number of queries of known cost, by slot."""

    reservations: dict[str, Reservation] = field(default_factory=dict)
    """The reservations, by query."""

    def forget(self, terms: LimitTerms, now: int) -> None:
        """Drop everything that has left the window."""
        oldest = terms.oldest(now)
        for by_slot in (self.spent, self.max_cost, self.settled):
            for slot in [slot for slot in by_slot if slot < oldest]:
                del by_slot[slot]
        for query, (slot, until) in list(self.reservations.items()):
            if slot < oldest and until <= now:
                del self.reservations[query]

    def status(self, terms: LimitTerms, now: int) -> LimitStatus:
        """Return the status of the limit; call `forget` first."""
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
        if step == "reserve":  # a query that asks again must not wait for itself
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
        """Extend the time that others wait for a query, if it still has its reservation."""
        if (held := self.reservations.get(query)) is not None:
            self.reservations[query] = held._replace(until=now + terms.lease)

    def settle(self, query: str, settlement: Settlement, terms: LimitTerms, now: int) -> None:
        """Record the cost of a query and end its reservation."""
        slot = terms.slot(now)
        cost, max_cost, is_lost = settlement
        dearest = max(self.status(terms, now).max_cost, max_cost)
        self.reservations.pop(query, None)
        if cost is None and is_lost and not dearest:
            # Use a name that no release removes.
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
        """Combine the ledgers of several processes."""
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
