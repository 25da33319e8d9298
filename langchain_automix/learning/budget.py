"""What shadows may spend: reserved in the store before, settled after."""

from __future__ import annotations

import logging
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from langchain_automix.errors import AutoMixError, StoreUnavailableError
from langchain_automix.models.prices import amount_in
from langchain_automix.utils.locks import ProcessLock

if TYPE_CHECKING:
    from langchain_automix.learning.handle import StoreHandle

_LOGGER = logging.getLogger(__name__)

PURSE = "shadows"
"""Name of the money in the store."""

_OF_UNKNOWN = Decimal("0.01")
"""Share of the whole that is reserved for a shadow while no cost is known."""


def read_amount(value: Any) -> Decimal | None:
    """Return an amount of US dollars, at least 0; None: there is no limit.

    Raises:
        AutoMixError: It is none.
    """
    if value is None:
        return None
    given = amount_in(value) if isinstance(value, str) else value
    amount = _decimal(given) if isinstance(given, str | int | float | Decimal) else None
    if amount is None or isinstance(value, bool):
        raise AutoMixError(
            f"max_spend is {value!r}, but must be an amount of US dollars, such as '5 USD'."
        )
    return amount


def _decimal(value: Any) -> Decimal | None:
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount >= 0 else None


_DOUBT = 4
"""A shadow may cost more than the dearest of n before it, by this many n-ths."""


class ShadowBudget:
    """What all shadows of a store may cost together, in all processes.

    A query claims the money of its shadow in this process's memory, so that it waits for nothing;
    before the shadow begins, the store reserves it. That is somewhat more than the dearest of this
    process so far, or than what the query suggests: the limit is passed only by what a shadow costs
    beyond that.
    """

    def __init__(self, store: StoreHandle, limit: Decimal | None) -> None:
        self._store, self._limit = store, limit
        self._lock = ProcessLock()
        self._known = self._claimed = self._dearest = Decimal(0)
        self._settled = 0
        self.has_room = True
        """Whether there is money for a shadow like the dearest, as far as this process knows.

        It says nothing of the query that asks: whether that has a shadow is left to chance alone.
        """
        self._see_room()

    def _see_room(self) -> None:
        """See whether there is room, each time that an amount has changed: all queries ask."""
        if self._limit is not None:
            left = self._limit - self._known - self._claimed
            self.has_room = left > 0 and left >= self._with_doubt(self._dearest)

    def _with_doubt(self, likely: Decimal) -> Decimal:
        """Return what a shadow may cost that is likely to cost an amount."""
        return likely * (1 + Decimal(_DOUBT) / (1 + self._settled))

    def claim(self, estimate: float | None) -> Decimal | None:
        """Claim what a shadow may cost; None: as far as this process knows, there is no money.

        Args:
            estimate: US dollars that it is likely to cost; None: unknown.
        """
        with self._lock:
            amount = self._with_doubt(max(self._dearest, Decimal(str(estimate or 0))))
            if self._limit is not None:
                amount = amount or self._limit * _OF_UNKNOWN
                used = self._known + self._claimed
                if used >= self._limit or used + amount > self._limit:
                    return None
            self._claimed += amount
            self._see_room()
            return amount

    def give_back(self, claim: Decimal) -> None:
        """Have the money of a claim again."""
        with self._lock:
            self._claimed -= claim
            self._see_room()

    def reserve(self, claim: Decimal) -> str | None:
        """Reserve the money of a claim; None: others have spent it, or the store is away."""
        with self._lock:
            amount = max(claim, self._dearest)
        try:
            token = self._store.get().reserve_spend(PURSE, amount, self._limit)
        except StoreUnavailableError as error:
            self._store.warn_away(error)
            return None
        if token is None and self._limit is not None:
            self._know(self._limit)  # until it is looked up again
        return token

    def settle(self, token: str, cost: float | None) -> None:
        """Count what a shadow cost; None: unknown, which counts as the dearest so far.

        Where the store is away, what was reserved stays counted.
        """
        amount = None if cost is None else Decimal(str(cost))
        with self._lock:
            self._dearest = max(self._dearest, amount or Decimal(0))
            self._known += self._dearest if amount is None else amount
            self._settled += 1
            self._see_room()
        try:
            self._store.get().settle_spend(token, amount)
        except StoreUnavailableError as error:
            self._store.warn_away(error)

    def look_up(self) -> None:
        """See what all processes have spent by now."""
        if self._limit is not None:
            self._know(Decimal(str(self._store.get().spent(PURSE))))

    def _know(self, spent: Decimal) -> None:
        with self._lock:
            self._known = spent
            self._see_room()
