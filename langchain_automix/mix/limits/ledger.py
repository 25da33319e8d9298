"""The books of a spend limit: what was spent and is reserved, in integers, with a sliding window.

One rule says whether a query may start (`Standing.verdict`). The Redis script in
`_spend_redis.py` is the same rule in Lua; a test holds the two against each other.
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
"""By how much a query may come to more than the dearest of n before it: this many n-ths. Of the
first ones little follows for the next; of the first thousand, a lot."""

Answer = Literal["granted", "busy", "spent"]
"""`granted`: the query may start, and holds a place. `busy`: the limit is not reached, but
could be by the queries that hold a place. `spent`: the limit is reached."""


def nanos(dollars: Decimal) -> int:
    """Return dollars as nano-dollars, rounded up: no cost is counted as less than it is."""
    return int((dollars * NANO).to_integral_value(ROUND_CEILING))


def dollars(amount: int) -> Decimal:
    """Return nano-dollars as dollars, without zeros that say nothing."""
    found = (Decimal(amount) / NANO).normalize()
    return found.quantize(Decimal(1)) if found == found.to_integral_value() else found


class LimitTerms(NamedTuple):
    """What a limit is, in the units of the books."""

    limit: int
    """Nano-dollars."""

    width: int
    """Length of a slot in milliseconds; 0: there is no window, all is one slot."""

    lease: int
    """Milliseconds after which the others no longer wait for a query that holds a place."""

    told: int = 0
    """Nano-dollars that a query comes to at most, as the user says; 0: nothing is said."""

    def slot(self, now: int) -> int:
        """Return the slot of a time in milliseconds."""
        return now // self.width if self.width else 0

    def oldest(self, now: int) -> int:
        """Return the first slot that is in the window: in part is enough."""
        return self.slot(now) - SLOTS if self.width else 0

    @property
    def kept(self) -> int | None:
        """Milliseconds after which nothing written now matters any more; None: it always does."""
        return self.width * (SLOTS + 2) + self.lease if self.width else None


class LimitStatus(NamedTuple):
    """How a limit stands, before the query that asks."""

    spent: int
    """Nano-dollars settled in the window, and those of queries that never settled."""

    live: int
    """Queries that hold a place."""

    most: int
    """Nano-dollars of the dearest query; 0: none is known."""

    place: int
    """Nano-dollars kept for a query under way: what it may come to; 0: nothing is known."""

    def verdict(self, limit: int) -> Answer:
        """Say whether one more query may start.

        With a place kept for each query that is under way, and for this one, the limit is not
        passed. Near the limit (and while no price is known) a query starts alone: then the
        limit is passed by that one query at most, whatever it comes to.
        """
        if self.spent >= limit:
            return "spent"
        if self.live == 0:
            return "granted"
        if self.place and self.spent + (self.live + 1) * self.place <= limit:
            return "granted"
        return "busy"


class ReserveResult(NamedTuple):
    """What a query that asks for a place is told."""

    answer: Answer
    standing: LimitStatus


class Reservation(NamedTuple):
    """The place of one query that is under way."""

    slot: int
    """When it was taken. A query that never settles counts as a dearest one from then on."""

    until: int
    """Time in milliseconds after which the others no longer wait for it."""


_BY_SLOT = ("spent", "most", "settled")


@dataclass
class SpendLedger:
    """What one limit has come to, as far as one process knows."""

    spent: dict[int, int] = field(default_factory=dict)
    """Nano-dollars, by slot."""

    most: dict[int, int] = field(default_factory=dict)
    """What the dearest query came to, or might have, by slot."""

    settled: dict[int, int] = field(default_factory=dict)
    """Queries whose cost is known, by slot."""

    held: dict[str, Reservation] = field(default_factory=dict)
    """Places, by query."""

    def forget(self, terms: LimitTerms, now: int) -> None:
        """Drop what has left the window."""
        oldest = terms.oldest(now)
        self.spent = {slot: n for slot, n in self.spent.items() if slot >= oldest}
        self.most = {slot: n for slot, n in self.most.items() if slot >= oldest}
        self.settled = {slot: n for slot, n in self.settled.items() if slot >= oldest}
        self.held = {
            query: hold
            for query, hold in self.held.items()
            if hold.slot >= oldest or hold.until > now
        }

    def standing(self, terms: LimitTerms, now: int) -> LimitStatus:
        """Return how the limit stands; call `forget` before."""
        live = sum(hold.until > now for hold in self.held.values())
        seen = max(self.most.values(), default=0)
        doubt = DOUBT * seen // max(1, sum(self.settled.values()))
        place = terms.told if terms.told >= seen else seen + doubt
        most = max(terms.told, seen)
        spent = sum(self.spent.values()) + (len(self.held) - live) * most
        return LimitStatus(spent, live, most, place)

    def hold(self, query: str, terms: LimitTerms, now: int) -> None:
        """Give a query a place."""
        self.held[query] = Reservation(terms.slot(now), now + terms.lease)

    def settle(
        self,
        query: str,
        cost: int | None,
        may: int,
        terms: LimitTerms,
        now: int,
        *,
        lost: bool = False,
        most: int = 0,
    ) -> None:
        """Count what a query came to, and give its place away.

        Args:
            query: The query.
            cost: Nano-dollars; None: unknown, which counts as the dearest query, this one with
                it, and where none is known as the whole limit: unknown is never 0.
            may: Nano-dollars that it might have come to, had every model been asked; the next
                one may. 0: it says nothing of the next one.
            terms: The limit.
            now: The time in milliseconds.
            lost: Whether nothing more was heard of what it asked for. Where no dearest query is
                known, it then leaves its place behind, which counts as soon as one is.
            most: The dearest query that other books know of.
        """
        slot = terms.slot(now)
        if cost is None:
            cost = max(self.standing(terms, now).most, most, may)
            if lost and not cost:
                self.held.pop(query, None)
                self.held[f"{query}-lost"] = Reservation(slot, now)  # which no release takes away
                return
            cost = cost or terms.limit
        self.held.pop(query, None)
        self.spent[slot] = self.spent.get(slot, 0) + cost
        if may:
            self.most[slot] = max(self.most.get(slot, 0), may)
            self.settled[slot] = self.settled.get(slot, 0) + 1

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Self:
        """Return the book that `written` wrote."""
        spent, most, settled = (
            {int(slot): int(n) for slot, n in written[kind].items()} for kind in _BY_SLOT
        )
        held = {query: Reservation(*map(int, hold)) for query, hold in written["held"].items()}
        return cls(spent, most, settled, held)

    def written(self) -> dict[str, Any]:
        """Return the book as JSON-ready values."""
        return {
            **{k: {str(slot): n for slot, n in getattr(self, k).items()} for k in _BY_SLOT},
            "held": {query: list(hold) for query, hold in self.held.items()},
        }

    @classmethod
    def together(cls, books: Iterable[SpendLedger]) -> Self:
        """Return what several processes know together."""
        whole = cls()
        for book in books:
            for slot, n in book.spent.items():
                whole.spent[slot] = whole.spent.get(slot, 0) + n
            for slot, n in book.settled.items():
                whole.settled[slot] = whole.settled.get(slot, 0) + n
            for slot, n in book.most.items():
                whole.most[slot] = max(whole.most.get(slot, 0), n)
            whole.held.update(book.held)
        return whole
