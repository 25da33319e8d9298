"""`SpendLimit`: cap what queries cost together, per period, tag or tenant."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, Self

from langchain_core.runnables import RunnableConfig
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    field_serializer,
    field_validator,
    model_validator,
)
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.mix.limits.ledger import SLOTS, LimitTerms, dollars, nanos
from langchain_automix.mix.limits.spend_store import SpendStore
from langchain_automix.mix.limits.stores import open_store
from langchain_automix.models.prices import amount_in, format_dollars
from langchain_automix.utils.identifiers import registered_name
from langchain_automix.utils.locks import ProcessLock
from langchain_automix.utils.urls import hide_password

_MAX_DOLLARS = 1_000_000
"""Far below the largest sum in nano-dollars that Redis can represent exactly."""

_MILLISECOND = timedelta(milliseconds=1)
_MIN_TIME = SLOTS * _MILLISECOND


@registered_name("langchain_automix.spend.SpendLimit")
class SpendLimit(BaseModel):
    """The most that the queries of a mix may cost together.

    Once the soft share of the limit is spent, the mix saves. A `POMDPRouter` decides with a cost
    weight that rises with the amount spent; with any other router, a shrinking share of the queries
    may be checked and escalated. At the limit, the cheapest model answers unchecked. Its cost is
    still counted, and `degraded` in the record says so. If only a larger model may make a tool
    call, the query ends without an answer. With `when_spent="raise"`, no query starts at all.

    Mixes that are given the same object share it, and processes share limits of the same name in
    the same store. Before it starts, a query reserves the cost of the dearest query so far (had
    every model been asked), plus 10/n of that after n queries. At most one query exceeds the limit,
    as long as none costs more than its reservation; `query_cost` sets that amount. Until a first
    cost is known, and near the limit, queries start one at a time.

    Set it on the outermost mix only: everything that the mix's models cost is counted, even if they
    are mixes.

    ??? example "A dollar an hour for each tenant, in all processes"

        ```python
        from datetime import timedelta

        from langchain_automix import AutoMixRunnable, SpendLimit

        limit = SpendLimit(
            limit="1.00 USD",
            per=timedelta(hours=1),
            by="tenant",
            store="redis://localhost:6379/0",
        )
        mix = AutoMixRunnable.from_models(small, large, spend_limit=limit)
        mix.invoke("Who built it?", {"configurable": {"tenant": "acme"}})
        ```
    """

    limit: Decimal = Field(gt=0, le=_MAX_DOLLARS)
    """The limit in US dollars, more than 0 and at most a million: a number, or text such as `"1.00
    USD"`."""

    per: timedelta | None = Field(default=None, ge=_MIN_TIME)
    """The period to which the limit applies: a sliding window in 60 slots. None means the lifetime
    of the store, or of the process if there is no store."""

    tag: str | None = None
    """If set, only queries with this tag in their configuration are limited and counted."""

    by: str | None = None
    """A key of the configuration's `configurable` or `metadata`. Each of its values, such as each
    tenant, has its own limit, and queries without the key share one. None: all queries share
    one."""

    soft: float = Field(default=0.8, ge=0, lt=1)
    """Share of the limit from which the mix saves; at least 0, less than 1."""

    when_spent: Literal["cheapest", "raise"] = "cheapest"
    """What to do at the limit: ask the cheapest model without a check, or raise
    `SpendLimitReachedError` before anything is paid."""

    query_cost: Decimal | None = Field(default=None, gt=0, le=_MAX_DOLLARS)
    """The most that a query may cost, in dollars; None estimates it from earlier queries."""

    lease: timedelta = Field(default=timedelta(minutes=10), ge=_MIN_TIME)
    """How long others wait for a query whose outcome is never reported, for instance because its
    process was killed. After that, it counts as a dearest query until the window has passed, since
    unknown is not 0. A query in progress renews its lease by itself, for up to ten leases."""

    name: str = Field(default="default", min_length=1)
    """Limits of the same name in the same store are one limit; give each its own name."""

    store: Any = Field(default=None, repr=False)
    """Where the ledger is kept. None: in this process. The URL of a Redis server or a `redis.Redis`
    client (extra `redis`): every step is atomic. A LangGraph `BaseStore`: each process writes its
    own count and reads all of them. The mix waits at most two seconds for a store, or a quarter of
    `max_latency` if that is shorter, and then leaves it alone for a while; until it answers, the
    limit counts as reached. A Redis server that restarts without persistence (`appendonly`) forgets
    what was spent, and the limit starts over."""

    _process: int = PrivateAttr(default_factory=os.getpid)

    # The URL of a store may contain a password, which no error message may show.
    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True
    )

    def __init__(self, limit: Any, **fields: Any) -> None:
        """Set the limit; each field is documented above."""
        super().__init__(limit=limit, **fields)

    @field_validator("limit", "query_cost", mode="before")
    @classmethod
    def _read_amount(cls, value: Any) -> Any:
        amount = amount_in(value) if isinstance(value, str) else value
        if isinstance(value, bool) or (isinstance(value, str) and amount is None):
            raise ValueError(f"{value!r} is not an amount of US dollars, such as '1.00 USD'.")
        return amount

    @model_validator(mode="after")
    def _opens_its_store(self) -> Self:
        _ = self.books
        return self

    @field_serializer("store")
    def _hide_password(self, store: Any) -> Any:
        return hide_password(store) if isinstance(store, str) else store

    @override
    def __getstate__(self) -> dict[Any, Any]:
        # Another process opens the store itself.
        state = super().__getstate__()
        fields = {n: v for n, v in state["__dict__"].items() if n in type(self).model_fields}
        return {**state, "__dict__": fields}

    @override
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other fields; it shares the ledger unless store or name differ."""
        copy = super().model_copy(update=update)
        copy.__dict__.pop("terms", None)
        if (copy.store, copy.name) != (self.store, self.name):
            copy.__dict__.pop("_books", None)
        return copy

    @override
    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self

    def used(self, value: str | None = None) -> str:
        """Ask the store how much is spent; return it as text with its currency.

        Args:
            value: With `by`, the value of that key; None for queries without the key.
        """
        spent = self.books.status(self._bucket(value), self.terms).spent
        return str(format_dollars(dollars(spent)))

    @cached_property
    def terms(self) -> LimitTerms:
        """The limit in the units of the ledger."""
        width = 0 if self.per is None else -(-(self.per // _MILLISECOND) // SLOTS)
        max_query_cost = nanos(self.query_cost or Decimal(0))
        return LimitTerms(nanos(self.limit), width, self.lease // _MILLISECOND, max_query_cost)

    @property
    def books(self) -> SpendStore:
        """The store that keeps the ledgers."""
        with _LOCK:
            return self._books

    @cached_property
    def _books(self) -> SpendStore:
        return open_store(self.store, self.name, self._process)

    def bucket(self, config: RunnableConfig | None) -> str | None:
        """Return the bucket that a query belongs to, or None if the limit does not apply to it."""
        config = config or {}
        inherited = getattr(config.get("callbacks"), "inheritable_tags", None) or ()
        if self.tag is not None and self.tag not in {*(config.get("tags") or ()), *inherited}:
            return None
        if self.by is None:
            return self._bucket(None)
        values: Mapping[str, Any] = {
            **(config.get("metadata") or {}),
            **(config.get("configurable") or {}),
        }
        return self._bucket(values.get(self.by))

    def _bucket(self, value: Any) -> str:
        return "all" if self.by is None else "none" if value is None else f"of:{value}"

    def shares_ledger_with(self, other: SpendLimit) -> bool:
        """Return whether another limit uses the same ledger."""
        stored = self.store is not None and (self.store is other.store or self.store == other.store)
        return self.books is other.books or (stored and self.name == other.name)

    def describe(self) -> str:
        """Describe the limit in words."""
        amount = f"${self.limit:f}"
        return amount if self.per is None else f"${self.limit:f} per {self.per}"


def limits_of(limits: SpendLimit | Sequence[SpendLimit] | None) -> list[SpendLimit]:
    """Return the limits of a mix as a list, whether given as None, one or several.

    Raises:
        AutoMixError: Two limits share a ledger.
    """
    limits = [limits] if isinstance(limits, SpendLimit) else list(limits or ())
    if any(limit.shares_ledger_with(other) for limit, other in itertools.combinations(limits, 2)):
        raise AutoMixError(
            "Two spend limits of a mix share one name, and so one count: give each its own name=."
        )
    return limits


# Two threads at the same time would each compute the cached property.
_LOCK = ProcessLock()
