"""The writer: takes records at once, and brings them into the store, whatever happens to it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from langchain_automix.learning.records import Event
from langchain_automix.learning.store import database, writer
from langchain_automix.learning.store.store import LearningStore
from langchain_automix.learning.store.writer import LearningWarning, StoreWriter
from tests.learning.store.test_database import fill
from tests.support.builders.no_warnings import no_warnings
from tests.support.builders.stores import grade, query, shadow
from tests.support.builders.waiting import LONG, wait_for
from tests.support.servers.postgresql import Wire, postgresql_schema


def put(writer: StoreWriter, count: int, name: str = "q") -> None:
    for i in range(count):
        assert writer.put(query(f"{name}{i}", float(i)))


def stored(store: LearningStore) -> list[str]:
    return [each.query.id for each in store.read("e")[0]]


@contextmanager
def one_warning(match: str) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    told = [str(each.message) for each in caught if each.category is LearningWarning]
    assert len(told) == 1, told
    assert match in told[0]
    assert "\n" not in told[0]


class TestWriting:
    def test_all_that_is_put_is_written_in_order(self, store: LearningStore) -> None:
        writer = StoreWriter(store)
        put(writer, 1200)
        for record in (shadow("q7"), grade("q7"), Event(1.0, "e", "alarm", "Drift.")):
            assert writer.put(record)
        assert writer.flush()
        assert (writer.written, writer.waiting, writer.dropped, writer.refused) == (1203, 0, 0, 0)
        assert stored(store) == [f"q{i}" for i in range(1200)]
        found = store.find(id="q7")
        assert found is not None
        assert found.is_shadowed
        assert found.grades == (grade("q7"),)
        assert len(store.events()) == 1
        writer.close()

    def test_without_a_flush_it_is_written_soon(self, store: LearningStore) -> None:
        writer = StoreWriter(store)
        assert writer.flush()  # nothing
        put(writer, 3)
        wait_for(lambda: writer.written == 3)
        assert len(stored(store)) == 3
        writer.close()

    def test_many_threads_put_at_once(self, store: LearningStore) -> None:
        writer = StoreWriter(store)
        threads = [threading.Thread(target=put, args=(writer, 200, f"t{n}-")) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.flush()
        assert len(set(stored(store))) == 1200
        writer.close()

    def test_its_thread_ends_when_it_is_idle_and_starts_again(
        self, store: LearningStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer, "_IDLE_SECONDS", 0.05)
        made = [StoreWriter(store)]
        for turn in range(3):
            put(made[0], 2, f"{turn}-")
            assert made[0].flush()
            wait_for(lambda: made[0]._thread is None)
        assert made[0].written == 6
        gone = weakref.ref(made.pop())
        gc.collect()
        assert gone() is None

    def test_what_the_store_refuses_stops_nothing_else(self, store: LearningStore) -> None:
        writer = StoreWriter(store)
        with one_warning("cannot be kept"):
            put(writer, 40, "a")
            writer.put(query("wrong", cost="much"))
            writer.put(grade(quality=2.0))
            writer.put("no record")  # type: ignore[arg-type]
            put(writer, 40, "b")
            assert writer.flush()
        assert (writer.written, writer.refused, writer.waiting) == (80, 3, 0)
        assert len(stored(store)) == 80
        writer.close()

    def test_warnings_as_errors_do_not_end_it(self, store: LearningStore) -> None:
        writer = StoreWriter(store)
        with no_warnings():
            writer.put(grade(quality=2.0))
            assert writer.flush()
        put(writer, 1)
        assert writer.flush()
        assert (writer.written, writer.refused) == (1, 1)
        writer.close()


class Away:
    """A store that can be taken away and given back."""

    def __init__(self, url: str, take: Callable[[], Any], give_back: Callable[[], Any]) -> None:
        self.store = LearningStore.open(url)
        self.take, self.give_back = take, give_back


@pytest.fixture(params=["sqlite", "postgresql"])
def away(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Away]:
    if request.param == "sqlite":
        folder, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
        folder.mkdir()
        url = f"sqlite:///{folder}/automix.db"
        found = Away(url, lambda: folder.rename(elsewhere), lambda: elsewhere.rename(folder))
        yield found
        found.store.close()
        return
    with postgresql_schema() as url, Wire() as wire:
        found = Away(url.replace(":5432", f":{wire.port}"), wire.cut, wire.mend)
        yield found
        found.store.close()


class TestAStoreThatIsAway:
    def test_all_is_written_when_it_is_back(self, away: Away) -> None:
        writer = StoreWriter(away.store)
        put(writer, 100, "before")
        assert writer.flush()
        with one_warning("cannot be"):
            away.take()
            put(writer, 700, "during")
            assert not writer.flush(0.5)
            assert (writer.is_away, writer.waiting) == (True, 700)
            away.give_back()
            put(writer, 100, "after")
            assert writer.flush(20)
        assert (writer.is_away, writer.written, writer.dropped) == (False, 900, 0)
        found = stored(away.store)
        assert len(found) == len(set(found)) == 900
        writer.close()

    def test_a_full_queue_drops_and_counts(self, away: Away) -> None:
        writer = StoreWriter(away.store, size=30)
        with one_warning("what comes beyond them is dropped"):
            away.take()
            assert writer.put(query("first"))
            wait_for(lambda: writer.is_away)
            taken = [writer.put(query(f"q{i}")) for i in range(50)]
            assert taken == [True] * 29 + [False] * 21
            assert writer.dropped == 21
            away.give_back()
            assert writer.flush(20)
        assert len(stored(away.store)) == 30
        writer.close()

    def test_it_comes_back_by_itself(self, away: Away) -> None:
        writer = StoreWriter(away.store)
        with one_warning("cannot be"):
            away.take()
            put(writer, 5)
            wait_for(lambda: writer.is_away)
            away.give_back()
            wait_for(lambda: writer.written == 5)
        writer.close()


def test_no_put_waits_for_a_slow_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another connection holds it for good, all puts come to an end."""
    monkeypatch.setattr(database, "_BUSY_SECONDS", 10 * LONG)
    store = LearningStore.open(f"sqlite:///{tmp_path}/automix.db")
    writer = StoreWriter(store, size=500)
    other = sqlite3.connect(tmp_path / "automix.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with one_warning("is too slow"):
        putting = threading.Thread(
            target=lambda: [writer.put(query(f"q{i}")) for i in range(700)], daemon=True
        )
        putting.start()
        putting.join(LONG)
    assert not putting.is_alive()
    assert (writer.written, writer.dropped) == (0, 200)
    other.execute("ROLLBACK")
    other.close()
    assert writer.flush(60)
    assert writer.written == 500
    writer.close()
    store.close()


class TestDisks:
    def test_a_read_only_one(self, small_disk: Path) -> None:
        store = LearningStore.open(f"sqlite:///{small_disk}/automix.db")
        writer = StoreWriter(store)
        store.close()  # a disk with files open for writing cannot be made read-only
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        with one_warning("cannot be used at present"):
            put(writer, 10)
            assert not writer.flush(0.5)
            assert not writer.flush(0.5)
        store.close()
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        assert writer.flush(20)
        assert len(stored(store)) == 10
        writer.close()
        store.close()

    def test_a_full_one(self, small_disk: Path) -> None:
        store = LearningStore.open(f"sqlite:///{small_disk}/automix.db")
        writer = StoreWriter(store)
        put(writer, 10, "before")
        assert writer.flush()
        filler = fill(small_disk)
        with one_warning("full"):
            put(writer, 1000, "during")
            assert not writer.flush(0.5)
        assert set(stored(store)) >= {f"before{i}" for i in range(10)}
        filler.unlink()
        assert writer.flush(20)
        assert len(stored(store)) == 1010
        writer.close()
        store.close()


class TestTheEnd:
    PUT = (
        "import sys, time, os\n"
        "from langchain_automix.learning.store.store import LearningStore\n"
        "from langchain_automix.learning.store.writer import StoreWriter\n"
        "from tests.support.builders.stores import query\n"
        "store = LearningStore.open(sys.argv[1]); writer = StoreWriter(store)\n"
    )

    def _run(self, url: str, code: str) -> subprocess.CompletedProcess[str]:
        root = Path(__file__).parents[3]
        command = [sys.executable, "-c", self.PUT + code, url]
        return subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=60, check=False
        )

    def test_what_is_left_is_written_at_exit(self, store: LearningStore, url: str) -> None:
        ended = self._run(url, "for i in range(900): writer.put(query(f'q{i}', float(i)))")
        assert ended.returncode == 0, ended.stderr
        assert len(stored(store)) == 900

    def test_no_exit_takes_longer_than_two_seconds(self, tmp_path: Path) -> None:
        """The last flush is told so; here it ends sooner, for a flush keeps to what it is told."""
        code = (
            "flush = StoreWriter.flush\n"
            "def last(self, seconds): print(seconds, flush=True); return flush(self, 0.01)\n"
            "StoreWriter.flush = last\n"
            "import shutil; shutil.rmtree(os.path.dirname(sys.argv[1].partition('///')[2]))\n"
            "for i in range(9): writer.put(query(f'q{i}', float(i)))\n"
        )
        (tmp_path / "here").mkdir()
        ended = self._run(f"sqlite:///{tmp_path}/here/automix.db", code)
        assert ended.returncode == 0
        assert 0 < float(ended.stdout) <= 2
        assert "9 records could not be written" in ended.stderr

    def test_a_process_of_multiprocessing_writes_at_its_end(self, store: LearningStore) -> None:
        mine = StoreWriter(store)
        with mine._changed:  # as if another thread were in it at the moment of the fork
            mine._queue.extend(query(f"parent{i}") for i in range(5))
            child = multiprocessing.get_context("fork").Process(target=put, args=(mine, 20))
            child.start()
        child.join(60)
        assert child.exitcode == 0
        assert sorted(stored(store)) == sorted(f"q{i}" for i in range(20))
        assert mine.flush()
        assert len(stored(store)) == 25
        mine.close()


def test_a_forked_process_begins_anew(store: LearningStore) -> None:
    mine = StoreWriter(store)
    put(mine, 5, "parent")
    child = os.fork()
    if child == 0:
        try:
            fresh = (mine.waiting, mine.written, mine._thread) == (0, 0, None)
            put(mine, 5, "child")
            os._exit(0 if fresh and mine.flush(30) and mine.written == 5 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert mine.flush()
    assert mine.written == 5
    assert len(stored(store)) == 10
    mine.close()
