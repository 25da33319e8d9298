"""What shadows cost is counted once, also where the store was away when they ended."""

from __future__ import annotations

import sqlite3
import threading
from decimal import Decimal
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from langchain_automix.errors import StoreUnavailableError
from langchain_automix.learning.budget import PURSE, ShadowBudget
from langchain_automix.learning.handle import StoreHandle
from langchain_automix.learning.store import database
from tests.support.builders.stores import query


def locked(file: Path) -> sqlite3.Connection:
    """Return a connection that keeps all others from writing to a file."""
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return other


@pytest.mark.filterwarnings("ignore::langchain_automix.learning.store.writer.LearningWarning")
def test_what_could_not_be_settled_is_settled_when_the_store_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = StoreHandle(f"sqlite:///{tmp_path}/automix.db")
    budget = ShadowBudget(handle, Decimal(5))
    claim = budget.claim(0.5)
    assert claim is not None
    token = budget.reserve(claim)
    assert token is not None
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0)
    other = locked(tmp_path / "automix.db")
    budget.settle(token, 0.25)
    with pytest.raises(StoreUnavailableError):
        budget.look_up()
    other.close()
    assert handle.get().spent(PURSE) == float(claim)
    for _ in range(2):
        budget.look_up()
        assert handle.get().spent(PURSE) == 0.25
    handle.close()


def test_a_write_waits_for_longer_than_the_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_OPENING_SECONDS", 0)
    handle = StoreHandle(f"sqlite:///{tmp_path}/automix.db")
    store = handle.get()
    other = locked(tmp_path / "automix.db")
    work = threading.Thread(target=store.add, args=([query()],))
    work.start()
    other.close()
    work.join()
    assert store.totals().queries == 1
    handle.close()
