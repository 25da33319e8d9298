"""Opening a store: what is refused, what is shown of it, who may read its files."""

from __future__ import annotations

import copy
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from langchain_automix.errors import AutoMixError, StoreUnavailableError
from langchain_automix.learning.records import AnswerRecord
from langchain_automix.learning.store import database, forks
from langchain_automix.learning.store.opening import open_store
from langchain_automix.learning.store.schema import META
from langchain_automix.learning.store.store import LearningStore
from tests.support.builders.stores import grade, query, shadow, start, version
from tests.support.builders.waiting import LONG, wait_for
from tests.support.servers.postgresql import Wire, postgresql_schema

SECRET = "hunter2"
PARTS = ("", "-wal", "-shm")


def modes(path: Path) -> dict[str, int]:
    found = {end: path.with_name(path.name + end) for end in PARTS}
    return {end: stat.S_IMODE(each.stat().st_mode) for end, each in found.items() if each.exists()}


class TestURLs:
    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ("automix.db", "given as a URL, such as sqlite:///"),
            ("", "given as a URL"),
            (None, "given as a URL"),
            (f"postgresql://me:{SECRET}@host:port/x", "given as a URL"),
            (f"mysql://me:{SECRET}@host/x", "cannot be kept in 'mysql'"),
            ("sqlite://", "is a file"),
            ("sqlite:///:memory:", "is a file"),
            ("sqlite:///automix.db?mode=ro", "without parameters"),
            (f"postgresql://me:{SECRET}@127.0.0.1:1/x", r"cannot be used at present: .*refused"),
            (f"postgresql://127.0.0.1:1/x?user=me&password={SECRET}", "cannot be used at present"),
            (f"postgresql://me:{SECRET}@127.0.0.1:1/x?nonsense=1", "cannot be used at present"),
        ],
    )
    def test_a_bad_one_is_told_without_its_password(self, given: Any, told: str) -> None:
        with pytest.raises(AutoMixError, match=told) as raised:
            LearningStore.open(given)
        assert "\n" not in str(raised.value)
        shown = "".join(traceback.format_exception(raised.value))
        assert SECRET not in shown

    def test_no_word_of_an_open_store_shows_a_password(self) -> None:
        with postgresql_schema() as url:
            place = url.partition("//")[2]
            for each in (f"postgresql://root:{SECRET}@{place}", f"{url}&password={SECRET}"):
                store = LearningStore.open(each)
                assert SECRET not in repr(store) + store.name + str(vars(store))
                store.close()
                assert pickle.loads(pickle.dumps(store)).totals().queries == 0

    def test_the_alias_of_some_hosts(self) -> None:
        with postgresql_schema() as url:
            store = LearningStore.open(url.replace("postgresql:", "postgres:"))
            store.add([query()])
            store.close()

    def test_a_folder_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailableError, match="No such file"):
            LearningStore.open(f"sqlite:///{tmp_path}/none/automix.db")
        with pytest.raises(StoreUnavailableError, match="directory"):
            LearningStore.open(f"sqlite:///{tmp_path}")

    def test_a_store_may_have_to_exist(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/automix.db"
        with pytest.raises(AutoMixError, match="There is no learning store"):
            open_store(url, create=False)
        assert not list(tmp_path.iterdir())
        open_store(url).close()
        open_store(url, create=False).close()

    def test_without_sqlalchemy_it_says_what_to_install(self) -> None:
        code = (
            "import sys; sys.modules['sqlalchemy'] = None\n"
            "from langchain_automix.learning.store.writer import LearningWarning\n"
            "from langchain_automix.learning.store.opening import open_store\n"
            "open_store('sqlite:///x.db')"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert b"needs SQLAlchemy, which is not installed: pip install" in run.stderr


class TestOtherFiles:
    def test_no_database(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("These are my notes, and they are to stay. " * 50)
        path.chmod(0o644)
        with pytest.raises(AutoMixError, match="is no SQLite database"):
            LearningStore.open(f"sqlite:///{path}")
        assert path.read_text().startswith("These are my notes")
        assert modes(path) == {"": 0o644}

    def test_a_broken_database(self, tmp_path: Path) -> None:
        path = tmp_path / "automix.db"
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
        with pytest.raises(AutoMixError, match="is no SQLite database"):
            LearningStore.open(f"sqlite:///{path}")

    def test_the_database_of_another_program(self, tmp_path: Path) -> None:
        path = tmp_path / "app.db"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE users (name TEXT)")
        path.chmod(0o640)
        before = path.read_bytes()
        with pytest.raises(AutoMixError, match="database of another program"):
            LearningStore.open(f"sqlite:///{path}")
        assert path.read_bytes() == before
        assert modes(path) == {"": 0o640}

    def test_a_newer_version(self, store: LearningStore, url: str) -> None:
        store.add([query()])
        with store._database.writing() as connection:
            newer = sqlalchemy.update(META).where(META.c.name == "schema_version")
            connection.execute(newer.values(value=99))
        with pytest.raises(AutoMixError, match=r"schema version 99.*upgrade langchain-automix"):
            LearningStore.open(url)
        assert store.totals().queries == 1

    def test_a_read_only_disk(self, small_disk: Path) -> None:
        url = f"sqlite:///{small_disk}/automix.db"
        LearningStore.open(url).close()
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        with pytest.raises(StoreUnavailableError, match="Read-only"):
            LearningStore.open(url)

    def test_a_full_disk(self, small_disk: Path) -> None:
        fill(small_disk)
        with pytest.raises(StoreUnavailableError, match=r"full|No space"):
            LearningStore.open(f"sqlite:///{small_disk}/automix.db")

    def test_a_read_only_server(self) -> None:
        with postgresql_schema() as url:
            LearningStore.open(url).close()
            with pytest.raises(StoreUnavailableError, match="read-only transaction"):
                LearningStore.open(f"{url}%20-cdefault_transaction_read_only%3Don")


def fill(disk: Path) -> Path:
    """Fill a disk to the last byte; return the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as out:
        for size in (65_536, 1):
            try:
                while True:
                    out.write(b"\0" * size)
            except OSError:
                continue
    return filler


class TestWhileOpen:
    def test_a_file_that_is_deleted_is_made_again(self, tmp_path: Path) -> None:
        store = LearningStore.open(f"sqlite:///{tmp_path}/automix.db")
        store.add([query("a")])
        for end in PARTS:
            (tmp_path / f"automix.db{end}").unlink(missing_ok=True)
        store.add([query("b")])
        other = LearningStore.open(f"sqlite:///{tmp_path}/automix.db", create=False)
        assert [each.query.id for each in other.read("e")[0]] == ["b"]
        store.close()
        other.close()

    def test_a_server_that_restarts_is_found_again(self) -> None:
        with postgresql_schema() as url, Wire() as wire:
            store = LearningStore.open(url.replace(":5432", f":{wire.port}"))
            store.add([query("a")])
            wire.cut()
            with pytest.raises(StoreUnavailableError, match="cannot be used at present"):
                store.add([query("b")])
            wire.mend()
            store.add([query("b")])
            assert store.totals().queries == 2
            store.close()

    def test_a_forked_process_opens_its_own(self, store: LearningStore) -> None:
        store.add([query("parent")])
        child = os.fork()
        if child == 0:
            try:
                store.add([query("child")])
                os._exit(0 if store.totals().queries == 2 else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        store.add([query("parent again")])
        assert store.totals().queries == 3

    def test_a_fork_amid_a_transaction_of_another_thread(
        self, store: LearningStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SQLite remembers what its process has locked, and in a child for ever."""
        monkeypatch.setattr(forks, "_SECONDS", LONG)
        begun, gate = threading.Event(), store._database.gate

        def write() -> None:
            with store._database.writing() as connection:
                store._database.next_change(connection)
                begun.set()
                wait_for(lambda: gate._is_shut)  # a fork has begun, and waits for the end

        thread = threading.Thread(target=write)
        thread.start()
        assert begun.wait(LONG)
        child = os.fork()
        if child == 0:
            try:
                store.add([query("child")])
                os._exit(0)
            finally:
                os._exit(2)
        thread.join()
        assert os.waitpid(child, 0)[1] == 0
        assert store.totals().queries == 1

    def test_a_copy_in_another_process(self, store: LearningStore) -> None:
        store.add([query()])
        for other in (copy.copy(store), pickle.loads(pickle.dumps(store))):
            assert other.totals().queries == 1
            other.close()

    def test_several_who_open_it_at_once(self, url: str) -> None:
        running = [start("open", url) for _ in range(4)]
        assert [process.finish() for process in running] == [[0]] * 4


class TestPrivacy:
    QUESTION, ANSWER = "Who embezzled the pension fund?", "It was the night porter."

    def test_files_are_their_owners_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "automix.db"
        before = os.umask(0)
        try:
            store = LearningStore.open(f"sqlite:///{path}")
            store.add([query()])
            assert modes(path) == dict.fromkeys(PARTS, 0o600)
        finally:
            os.umask(before)
        store.close()

    def test_files_that_were_open_to_others_are_closed_to_them(self, tmp_path: Path) -> None:
        path = tmp_path / "automix.db"
        url = f"sqlite:///{path}"
        kept_open = LearningStore.open(url)
        kept_open.add([query()])
        for end in PARTS:
            path.with_name(path.name + end).chmod(0o664)
        store = LearningStore.open(url)
        assert modes(path) == dict.fromkeys(PARTS, 0o600)
        store.close()
        kept_open.close()

    def _bytes(self, folder: Path) -> bytes:
        assert {each.name for each in folder.iterdir()} >= {f"automix.db{end}" for end in PARTS}
        return b"".join(each.read_bytes() for each in folder.iterdir())

    def _use(self, store: LearningStore, *, keep: bool) -> None:
        texts = {"question": self.QUESTION, "0": self.ANSWER} if keep else None
        check = {"score": 0.5, "cost": 0.1, "explanation": f"{self.QUESTION} {self.ANSWER}"}
        answers = [AnswerRecord(0, 0.1, check, {"more": check})]
        asked = query("q", answers=answers, texts=texts)
        store.add([asked, shadow("q", texts=texts), grade("q")])
        store.promote(store.add_version(version()), "It is better.")

    def test_no_file_holds_a_text(self, tmp_path: Path) -> None:
        store = LearningStore.open(f"sqlite:///{tmp_path}/automix.db")
        self._use(store, keep=False)
        found = self._bytes(tmp_path)
        for word in (self.QUESTION, self.ANSWER, "embezzled", "porter"):
            assert word.encode() not in found
        store.close()

    def test_pruned_texts_are_gone_from_the_files(self, tmp_path: Path) -> None:
        store = LearningStore.open(f"sqlite:///{tmp_path}/automix.db")
        self._use(store, keep=True)
        assert self.QUESTION.encode() in self._bytes(tmp_path)  # so the scan would find one
        assert store.prune(keep=0) == 1
        assert self.QUESTION.encode() not in self._bytes(tmp_path)
        store.close()

    def test_an_error_shows_no_value(self, store: LearningStore) -> None:
        twice = [{"name": self.QUESTION, "value": 1}] * 2
        with pytest.raises(AutoMixError, match="refuses") as raised:  # noqa: SIM117
            with store._database.writing() as connection:
                connection.execute(META.insert(), twice)
        assert "pension" not in "".join(traceback.format_exception(raised.value))


def test_a_file_that_is_locked_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.1)
    store = LearningStore.open(f"sqlite:///{tmp_path}/automix.db")
    with sqlite3.connect(tmp_path / "automix.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            store.add([query()])
        assert store.totals().queries == 0  # readers do not wait
        other.execute("ROLLBACK")
    other.close()
    store.add([query()])
    store.close()
