"""Locks and money that processes share; holders and spenders may be killed."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from langchain_automix.learning.store.database import Database
from langchain_automix.learning.store.schema import LOCKS
from langchain_automix.learning.store.store import LearningStore
from tests.support.builders.stores import start
from tests.support.builders.waiting import LONG, wait_for


class TestLocks:
    def test_one_holds_it(self, store: LearningStore) -> None:
        with store.lock("fit", 5) as first, store.lock("fit", 5) as second:
            assert (first, second) == (True, False)
            with store.lock("another", 5) as other:
                assert other
        with store.lock("fit", 5) as again:
            assert again

    def test_an_error_ends_it(self, store: LearningStore) -> None:
        with pytest.raises(KeyError), store.lock("fit", 60):
            raise KeyError
        with store.lock("fit", 60) as is_held:
            assert is_held

    def test_it_lasts_as_long_as_its_holder(
        self, store: LearningStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The clock stands between the renewals, of which the lock of 0.6 s outlives three."""
        now = 0.0
        monkeypatch.setattr(Database, "now", lambda *_: now)
        with store.lock("fit", 0.6):
            for step in range(1, 4):
                now = step * 0.5
                wait_for(lambda: self._until(store) == now + 0.6)  # noqa: B023  (called at once)
            with store.lock("fit", 0.6) as other:
                assert not other

    @staticmethod
    def _until(store: LearningStore) -> Any:
        with store._database.reading() as connection:
            return connection.execute(select(LOCKS.c.until)).scalar_one()

    def test_that_of_a_killed_holder_ends(
        self, store: LearningStore, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def is_free() -> bool:
            with store.lock("fit", 1) as is_held:
                return is_held

        holder = start("hold", url, seconds=2 * LONG)
        assert holder.hear() is True
        assert not is_free()
        holder.kill()
        assert not is_free()
        real = Database.now
        monkeypatch.setattr(Database, "now", lambda *of: real(*of) + 2 * LONG)
        assert is_free()

    def test_processes_never_hold_it_together(self, url: str, store: LearningStore) -> None:
        running = [start("take turns", url, turns=10) for _ in range(3)]
        held = sorted(tuple(each) for process in running for each in process.finish()[0])
        assert len(held) == 30
        assert all(end <= begun for (_, end), (begun, _) in itertools.pairwise(held))


class TestSpending:
    def test_reserved_before_and_settled_after(self, store: LearningStore) -> None:
        token = store.reserve_spend("s", 0.6, 1)
        assert token is not None
        assert store.spent("s") == 0.6
        assert store.reserve_spend("s", 0.5, 1) is None
        store.settle_spend(token, 0.1)
        store.settle_spend(token, 0.1)
        store.settle_spend("no token", 0.1)
        assert store.spent("s") == 0.1
        assert store.reserve_spend("s", Decimal("0.9"), Decimal(1)) is not None  # to the cent
        assert store.reserve_spend("s", 0, 1) is None
        assert store.spent("another") == 0

    def test_a_thousand_tenths_are_a_hundred(self, store: LearningStore) -> None:
        for _ in range(10):
            token = store.reserve_spend("s", 0.1, 1)
            assert token is not None
            store.settle_spend(token, 0.1)
        assert store.spent("s") == 1
        assert store.reserve_spend("s", 0.1, 1) is None

    def test_unknown_counts_as_the_dearest(self, store: LearningStore) -> None:
        for amount, settled in ((0.2, 0.3), (0.1, None), (0.5, None), (0.1, 0.0)):
            token = store.reserve_spend("s", amount, None)
            assert token is not None
            store.settle_spend(token, settled)
        assert store.spent("s") == pytest.approx(0.3 + 0.3 + 0.5)

    def test_what_is_not_heard_of_counts_as_the_dearest(self, store: LearningStore) -> None:
        lost = store.reserve_spend("s", 0.1, None, lease=0)
        dear = store.reserve_spend("s", 0.4, None)
        assert lost is not None
        assert dear is not None
        assert store.spent("s") == 0.5
        store.settle_spend(dear, 0.4)
        assert store.spent("s") == 0.8
        store.settle_spend(lost, 0.05)  # heard of after all
        assert store.spent("s") == 0.45

    def test_processes_never_pass_the_limit(self, url: str, store: LearningStore) -> None:
        given = {"amount": 0.01, "limit": 0.5, "seconds": 60, "die": False}
        running = [start("spend", url, **given) for _ in range(3)]
        killed = start("spend", url, **{**given, "die": True})
        said = [killed.hear()]
        killed.kill()
        said += [process.finish()[0] for process in running]
        spent = sum(each["spent"] + each["reserved"] for each in said)
        assert spent == pytest.approx(0.5)
        assert store.spent("shadows") == 0.5
        assert store.reserve_spend("shadows", 0.01, 0.5) is None
