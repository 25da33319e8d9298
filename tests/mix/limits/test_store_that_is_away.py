"""A spend limit whose store is away for a while."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.store.memory import InMemoryStore

from langchain_automix import (
    SpendLimit,
    SpendLimitReachedError,
    SpendWarning,
    UncalibratedWarning,
)
from langchain_automix.mix.limits.ledger import LimitStatus, ReserveResult
from langchain_automix.mix.limits.stores import ProcessStore
from tests.support.builders.mixes import record_of
from tests.support.builders.spending import billed, limited, used
from tests.support.servers.openai_server import OpenAIServer

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{UncalibratedWarning.__module__}.UncalibratedWarning"
)


class _Broken(InMemoryStore):
    """A store whose server is away for a while."""

    away = False
    unheard = False
    """Does one thing more, and is away before it can say so."""

    def batch(self, ops: Any) -> Any:
        found = None if self.away else super().batch(ops)
        if self.away or self.unheard:
            self.unheard = False
            raise ConnectionError("the server is away")
        return found


class TestAStoreThatIsAway:
    @pytest.fixture
    def store(self) -> _Broken:
        return _Broken()

    def test_the_limit_counts_as_reached(self, server: OpenAIServer, store: _Broken) -> None:
        store.away = True
        for when_spent in ("cheapest", "raise"):
            automix = limited(server, SpendLimit(1, store=store, when_spent=when_spent))
            with pytest.warns(SpendWarning, match=r"cannot be reached \(ConnectionError\)"):
                if when_spent == "raise":
                    with pytest.raises(SpendLimitReachedError, match="cannot be looked up"):
                        automix.invoke("a")
                else:
                    record = record_of(automix.invoke("a"))
                    assert (record["model_index"], record["drawn"]) == (0, 0)

    def test_a_place_that_was_given_unheard_is_given_back(
        self, server: OpenAIServer, store: _Broken
    ) -> None:
        limit = SpendLimit(1, store=store, when_spent="raise")
        other = SpendLimit(1, store=store)  # of another process
        store.unheard = True
        with (
            pytest.warns(SpendWarning, match="cannot be reached"),
            pytest.raises(SpendLimitReachedError),
        ):
            limited(server, limit).invoke("a")
        assert other.books.status("all", other.terms).active == 1
        limit.books.catch_up()
        assert other.books.status("all", other.terms).active == 0

    def test_a_place_that_cannot_be_given_back_now_is_later(
        self, server: OpenAIServer, store: _Broken
    ) -> None:
        """One limit grants a place, another has none, and then the first one is away."""

        class Turning(ProcessStore):
            def reserve(self, *given: Any) -> Any:
                store.away = not store.away
                return (
                    ReserveResult("busy", LimitStatus(0, 1, 0, 0))
                    if store.away
                    else super().reserve(*given)
                )

        limits = [SpendLimit(1, store=store), SpendLimit(1, name="other")]
        limits[1].__dict__["_books"] = Turning()
        with pytest.warns(SpendWarning, match="cannot be reached"):
            record = record_of(limited(server, limits).invoke("a"))
        assert record["degraded"] is not None
        limits[0].books.catch_up()
        assert limits[0].books.status("all", limits[0].terms).active == 0

    def test_what_could_not_be_told_is_told_later(
        self, server: OpenAIServer, store: _Broken
    ) -> None:
        limit = SpendLimit(1, store=store)
        automix = limited(server, limit)
        server.delay = lambda _: setattr(store, "away", True) or 0.0  # type: ignore[func-returns-value]
        with pytest.warns(SpendWarning, match="cannot be reached"):
            automix.invoke("a")
        store.away, server.delay = False, 0.0
        automix.invoke("b")
        assert used(limit) == billed(server)
