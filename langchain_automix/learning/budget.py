"""What shadows may spend: reserved in the store before, settled after."""

from __future__ import annotations

import logging
import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from langchain_automix.errors import AutoMixError, StoreUnavailableError
from langchain_automix.utils.locks import ProcessLock

if TYPE_CHECKING:
    from langchain_automix.learning.handle import StoreHandle

_LOGGER = logging.getLogger(__name__)
_AMOUNT = re.compile(r"\s*(?:\$\s*)?([\d.]+)\s*(?:USD\s*)?")

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
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    is_amount = match is not None or isinstance(value, int | float | Decimal)
    amount = _decimal(match[1] if match else value) if is_amount else None
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

    What a shadow may cost is reserved in the store before it begins: somewhat more than the dearest
    of this process so far, or than what its query suggests. The limit is passed only by what a
    shadow costs beyond that.
    """

    def __init__(self, store: StoreHandle, limit: Decimal | None) -> None:
        self._store, self._limit = store, limit
        self._lock = ProcessLock()
        self._dearest = Decimal(0)
        self._settled = 0
        self.is_open = limit is None or limit > 0
        """Whether there is money left, as far as this process knows."""

    def reserve(self, estimate: float | None) -> str | None:
        """Reserve what a shadow may cost; None: there is no money, or the store is away.

        Args:
            estimate: US dollars that it is likely to cost; None: unknown.
        """
        with self._lock:
            likely = max(self._dearest, Decimal(str(estimate or 0)))
            amount = likely * (1 + Decimal(_DOUBT) / (1 + self._settled))
        if not amount and self._limit:
            amount = self._limit * _OF_UNKNOWN
        try:
            token = self._store.get().reserve_spend(PURSE, amount, self._limit)
        except StoreUnavailableError as error:
            self._store.warn_away(error)
            return None
        self.is_open = token is not None
        return token

    def settle(self, token: str, cost: float | None) -> None:
        """Count what a shadow cost; None: unknown, which counts as the dearest so far.

        Where the store is away, what was reserved stays counted.
        """
        amount = None if cost is None else Decimal(str(cost))
        with self._lock:
            self._dearest = max(self._dearest, amount or Decimal(0))
            self._settled += 1
        try:
            self._store.get().settle_spend(token, amount)
        except StoreUnavailableError as error:
            self._store.warn_away(error)

    def look_up(self) -> None:
        """See whether there is money again, such as after a raised limit or a reservation's end."""
        if self._limit is None or self.is_open:
            return
        self.is_open = self._store.get().spent(PURSE) + float(self._dearest) < self._limit
