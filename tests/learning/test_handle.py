"""A store that is away, slow, full or read-only holds up no query, and loses nothing."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")


from langchain_automix import AutoMixError, Learning, LearningWarning
from langchain_automix.learning.store import database
from tests.support.builders.learning_mixes import Make, learns, promote, rows
from tests.support.builders.waiting import LONG, wait_for
from tests.support.servers.openai_server import OpenAIServer


class TestStoreAway:
    @pytest.fixture(autouse=True)
    def _once(self) -> None:
        warnings.simplefilter("always")

    def test_one_that_cannot_be_reached(self, server: OpenAIServer, make: Make) -> None:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            learning = make("postgresql://me:secret@127.0.0.1:9/none")
            automix = learns(server, learning)
            answers = [automix.invoke("Where?").content for _ in range(5)]
        assert answers == ["a large answer"] * 5
        mine = [str(each.message) for each in told if each.category is LearningWarning]
        assert len(mine) == 1
        assert "secret" not in mine[0]
        assert learning.status().is_away
        assert learning.status().waiting >= 5
        assert "secret" not in repr(learning) + str(learning.status())
        with learning.writer._changed:  # what waits has nowhere to go, and the process would tell
            learning.writer._queue.clear()

    def test_one_that_goes_and_comes_back(
        self, server: OpenAIServer, make: Make, tmp_path: Path
    ) -> None:
        automix, file = learns(server, make(max_spend=0)), tmp_path / "automix.db"
        automix.invoke("Where?")
        rows(automix)
        file.rename(tmp_path / "elsewhere")
        while not file.is_dir():  # the refresher may begin a store anew in between
            file.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):
                file.mkdir()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert [automix.invoke("Where?").content for _ in range(3)] == ["a large answer"] * 3
            assert not automix.learning.flush(0.5)  # type: ignore[union-attr]
        assert [each.category for each in told] == [LearningWarning]
        assert automix.learning.status().is_away  # type: ignore[union-attr]
        file.rmdir()
        (tmp_path / "elsewhere").rename(file)
        assert len(rows(automix)) == 4

    def test_a_policy_outlives_its_store(
        self,
        server: OpenAIServer,
        make: Make,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(database, "_BUSY_SECONDS", 10 * LONG)
        automix = learns(server, make(max_spend=0))
        promote(automix)
        learning: Any = automix.learning
        learning.refresh()
        holder, file = threading.Event(), tmp_path / "automix.db"
        held = threading.Thread(target=_hold, args=(file, holder))
        held.start()  # the store is locked by another process, as when it is slow
        wait_for(lambda: _is_held(file))
        answers = [automix.invoke("Where?") for _ in range(5)]
        assert _is_held(file), "no answer has waited for the store"
        assert [answer.content for answer in answers] == ["a small answer"] * 5
        holder.set()
        held.join()
        assert len(rows(automix)) == 5  # nothing was lost

    def test_what_can_never_be_a_store_is_told_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("This is no database.")
        with pytest.raises(AutoMixError, match="no SQLite database"):
            Learning(f"sqlite:///{tmp_path}/notes.txt")


def _is_held(file: Path) -> bool:
    with contextlib.closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.execute("ROLLBACK")
        return False


def _hold(file: Path, until: threading.Event) -> None:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    until.wait(LONG)
    connection.execute("COMMIT")
    connection.close()
