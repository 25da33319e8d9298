"""`SpendLimit`: what queries may cost, together, in a time, a tag, a tenant."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, Self

from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.mix.limits.ledger import SLOTS, LimitTerms, dollars, nanos
from langchain_automix.mix.limits.stores import SpendStore, store_of
from langchain_automix.models.prices import CURRENCY, format_dollars
from langchain_automix.utils.identifiers import registered_name

_MOST = 1_000_000
"""Dollars: a thousandth of what Redis can add up exactly in nano-dollars would do, too."""

_AMOUNT = re.compile(rf"\s*(?:\$\s*)?([\d.]+)\s*(?:{CURRENCY})?\s*")
_MILLISECOND = timedelta(milliseconds=1)


class SpendWarning(UserWarning):
    """A spend limit cannot count exactly: a cost is unknown, or its store cannot be reached."""


@registered_name("langchain_automix.spend.SpendLimit")
class SpendLimit(BaseModel):
    """What the queries of a mix may cost, together.

    From the soft share of the limit on, the mix saves: a `POMDPRouter` decides by a cost weight
    that rises with what is spent; with another router a falling share of the queries may be
    checked and escalated. At the limit the cheapest model answers, unchecked, and what that
    costs is still counted, and the record's `degraded` says so (a tool call that only a larger
    model may make is then not made: the query ends without an answer); or, with
    `when_spent="raise"`, no query is begun.

    Several mixes that are given the same object share it. Several processes share the limits of
    one name in one store. Before it starts, a query asks for a place: the dearest query so far
    (had every model been asked), and 10/n of that in doubt after n queries. The limit is passed by
    one query at most, as long as none costs more than its place; with `query_cost` you say what
    that is. Until a first cost is known, and near the limit, queries start one after the other.

    Put it on the outermost mix, and only there: what its models cost is counted, whatever they are.

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

    limit: Decimal
    """US dollars, more than 0 and at most a million: a number, or text such as `"1.00 USD"`."""

    per: timedelta | None = None
    """The time in which at most the limit is spent, from any moment on: a sliding window, in 60
    parts. None: all the time that the store lives, which is the process's where there is none."""

    tag: str | None = None
    """Only queries that have this tag in their configuration are limited, and counted. None: all
    are."""

    by: str | None = None
    """A key of the configuration's `configurable`, or `metadata`: each of its values, such as
    each tenant, has a limit of its own; queries without it share one. None: all queries do."""

    soft: float = Field(default=0.8, ge=0, lt=1)
    """Share of the limit, spent, from which on the mix saves; at least 0, less than 1."""

    when_spent: Literal["cheapest", "raise"] = "cheapest"
    """At the limit: ask the cheapest model and check nothing, or raise
    `SpendLimitReachedError` before anything is paid for."""

    query_cost: Decimal | None = None
    """The most that a query may come to, if you know it, in dollars like the limit. None: it is
    told from those before."""

    lease: timedelta = timedelta(minutes=10)
    """How long the others wait for a query whose process says nothing more. It counts, then and
    until the window has passed, as a dearest one: what it cost is unknown, and that is not 0."""

    name: str = Field(default="default", min_length=1)
    """Limits of the same name in the same store are one; give each limit a name of its own."""

    store: Any = Field(default=None, repr=False)
    """Where the books are kept: None: in this process. A URL of a Redis server, or a `redis.Redis`
    client (the extra `redis`): every step is atomic. A LangGraph `BaseStore`: each process keeps
    its own count there, and reads all."""

    # A store's URL may hold a password, which no error must tell.
    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True
    )

    def __init__(self, limit: Any, **fields: Any) -> None:
        """Set the limit; the fields are documented one by one above."""
        super().__init__(limit=limit, **fields)

    @field_validator("limit", "query_cost", mode="before")
    @classmethod
    def _amount(cls, given: Any) -> Any:
        if given is None:
            return None
        text = str(given)
        found = _AMOUNT.fullmatch(text) if isinstance(given, str) else None
        try:
            amount = Decimal(found[1] if found else text)
        except ArithmeticError:
            amount = Decimal("NaN")
        if not amount.is_finite() or not 0 < amount <= _MOST:
            raise ValueError(
                f"{given!r} is no amount of US dollars, more than 0 and at most {_MOST:,}: give a "
                "number, or text such as '1.00 USD'."
            )
        return amount

    @field_validator("per", "lease")
    @classmethod
    def _time(cls, given: timedelta | None) -> timedelta | None:
        if given is not None and given < SLOTS * _MILLISECOND:
            raise ValueError(f"{given} is too short a time.")
        return given

    @model_validator(mode="after")
    def _kept_somewhere(self) -> Self:
        _ = self.books
        return self

    @override
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other fields; it shares the books, unless they are kept elsewhere."""
        copy = super().model_copy(update=update)
        copy.__dict__.pop("terms", None)
        if (copy.store, copy.name) != (self.store, self.name):
            copy.__dict__.pop("_books", None)
        return copy

    @override
    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self

    def used(self, value: str | None = None) -> str:
        """Return what is spent, as text with currency; asks the store.

        Args:
            value: Whose, with `by`: the value of that key; None: of the queries without it.
        """
        standing = self.books.standing(self._bucket(value), self.terms)
        return str(format_dollars(dollars(standing.spent)))

    @cached_property
    def terms(self) -> LimitTerms:
        """The limit in the units of its books."""
        width = 0 if self.per is None else -(-(self.per // _MILLISECOND) // SLOTS)
        most = 0 if self.query_cost is None else nanos(self.query_cost)
        return LimitTerms(nanos(self.limit), width, self.lease // _MILLISECOND, most)

    @property
    def books(self) -> SpendStore:
        """What keeps its books."""
        with _LOCK:
            return self._books

    @cached_property
    def _books(self) -> SpendStore:
        return store_of(self.store, self.name)

    def bucket(self, config: RunnableConfig | None) -> str | None:
        """Return which of its books a query belongs to; None: the limit is not for it."""
        config = config or {}
        inherited = getattr(config.get("callbacks"), "inheritable_tags", None) or ()
        if self.tag is not None and self.tag not in {*(config.get("tags") or ()), *inherited}:
            return None
        if self.by is None:
            return self._bucket(None)
        places: list[Mapping[str, Any]] = [
            config.get("configurable") or {},
            config.get("metadata") or {},
        ]
        value = next((place[self.by] for place in places if self.by in place), None)
        return self._bucket(value)

    def _bucket(self, value: Any) -> str:
        return "all" if self.by is None else "none" if value is None else f"of:{value}"

    def is_one_with(self, other: SpendLimit) -> bool:
        """Return whether another limit has the same books."""
        stored = self.store is not None and (self.store is other.store or self.store == other.store)
        return self.books is other.books or (stored and self.name == other.name)

    def said(self) -> str:
        """Return the limit in words, as they stand in a sentence."""
        amount = f"${self.limit:f}"
        return amount if self.per is None else f"${self.limit:f} per {self.per}"


def limits_of(given: SpendLimit | Sequence[SpendLimit] | None) -> list[SpendLimit]:
    """Return the limits that a user gave for a mix: none, one or a list.

    Raises:
        AutoMixError: Two of them keep the same books.
    """
    limits = [given] if isinstance(given, SpendLimit) else list(given or ())
    if any(limit.is_one_with(other) for limit, other in itertools.combinations(limits, 2)):
        raise AutoMixError(
            "Two spend limits of a mix share one name, and so one count: give each its own name=."
        )
    return limits


# A cached property is not made once if two threads come to it at once.
_LOCK = threading.Lock()
