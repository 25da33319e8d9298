"""The journal: what is in it stays in it, whatever happens to process, disk or file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from langchain_automix import AutoMixError
from langchain_automix.calibration import journal as journal_module
from langchain_automix.calibration.entries import Entry
from langchain_automix.calibration.journal import Journal

ENTRY = {"seconds": 0.5, "calls": [], "output": {"value": "Åbo\u2028"}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl.journal"


def filled(path: Path, number: int) -> bytes:
    with Journal(path) as journal:
        journal.begin({"prompt": "p"})
        for i in range(number):
            journal.add(f"q{i % 3}", f"answer small {i} x", {**ENTRY, "i": i})
        journal.end("finished")
    return path.read_bytes()


def numbers(journal: Journal) -> list[int]:
    return sorted(entry["i"] for q in range(3) for entry in journal.calls_of(f"q{q}").values())


def test_what_was_kept_is_found_again(path: Path) -> None:
    filled(path, 7)
    with Journal(path) as journal:
        assert (journal.calls, journal.ended, journal.is_new) == (7, True, False)
        assert journal.settings == {"prompt": "p"}
        assert numbers(journal) == list(range(7))
        assert journal.calls_of("q0")["answer small 3 x"]["output"] == ENTRY["output"]
        assert journal.calls_of("nobody") == {}
        journal.add("q0", "answer small 7 x", {**ENTRY, "i": 7})
        assert numbers(journal) == list(range(8))
    assert all(json.loads(line) for line in path.read_text().split("\n")[:-1])
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_failed_call_is_kept_and_is_no_call(path: Path) -> None:
    with Journal(path) as journal:
        journal.add("q0", "answer small 0 x", {"error": "BadRequestError: too long"})
    with Journal(path) as journal:
        assert (journal.calls, journal.calls_of("q0")) == (0, {})
    assert "too long" in path.read_text()


def test_a_row_holds_for_its_settings_only(path: Path) -> None:
    with Journal(path) as journal:
        journal.add_row("q0", "old", {"query": {"id": "q0"}})
        journal.add_row("q0", "new", {"query": {"id": "q0", "more": 1}})
        for row in (journal.row("q0", "new"), Journal.row(journal, "q0", "new")):
            assert row is not None
            assert row["query"] == {"id": "q0", "more": 1}
        assert journal.row("q0", "old") is None
        assert journal.row("q1", "new") is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(min_value=0))
def test_a_line_cut_short_costs_that_line_only(path: Path, cut: int) -> None:
    whole = filled(path, 4)
    path.write_bytes(whole[: cut % len(whole)])
    lines = path.read_bytes().count(b"\n")
    with Journal(path) as journal:
        assert journal.calls == min(max(lines - 2, 0), 4)
        torn = journal.torn
        journal.add("q0", "answer small 9 x", {**ENTRY, "i": 9})
        assert 9 in numbers(journal)
    assert torn == len(whole[: cut % len(whole)].rpartition(b"\n")[2])
    with Journal(path) as journal:
        assert journal.torn == 0
        assert 9 in numbers(journal)
    path.unlink()


def test_a_long_journal_with_a_torn_end(path: Path) -> None:
    """All but the torn line is found again, and memory holds places, not calls."""
    pad = "x" * 1000
    with Journal(path) as journal:
        journal.begin({"prompt": "p"})
        for i in range(20_000):
            journal.add(f"q{i // 3}", f"answer small {i} x", {**ENTRY, "i": i, "pad": pad})
    size = path.stat().st_size
    assert size > 20_000_000
    with path.open("rb+") as file:
        file.truncate(size - 500)
    told = 0

    def count(entry: Entry) -> None:
        nonlocal told
        told += 1

    tracemalloc.start()
    try:
        with Journal(path, count) as journal:
            held, while_reading = tracemalloc.get_traced_memory()
            assert (journal.calls, journal.ended, told) == (19_999, False, 19_999)
            assert 500 < journal.torn < 1500
            assert [entry["i"] for entry in journal.calls_of("q6666").values()] == [19_998]
            journal.add("q6666", "answer small 19999 x", {**ENTRY, "i": 19_999, "pad": pad})
    finally:
        tracemalloc.stop()
    assert path.stat().st_size == size
    assert held < 2_000_000
    assert while_reading < 5_000_000, "2 MB of it fill the reserve"
    with Journal(path) as journal:
        assert (journal.calls, journal.torn) == (20_000, 0)


def test_blocks_that_power_loss_left_empty_are_a_torn_end(path: Path) -> None:
    whole = filled(path, 2)
    path.write_bytes(whole + b"\0" * 4096)
    with Journal(path) as journal:
        assert (journal.torn, journal.calls) == (4096, 2)
    assert path.read_bytes() == whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(min_value=0), to=st.integers(0, 255))
@example(place=2_621_258_762, to=0)
@example(place=-20, to=10)  # a line end in the last line, which is then two
def test_one_changed_byte_is_never_taken_for_an_answer(path: Path, place: int, to: int) -> None:
    whole = bytearray(filled(path, 4))
    lines = whole.count(b"\n")
    place %= len(whole)
    line = whole.count(b"\n", 0, place)
    was, whole[place] = whole[place], to
    # Without the line end between them, two lines are one.
    last_damaged = line + (was == ord("\n"))
    path.write_bytes(whole)
    try:
        if was == to:
            with Journal(path) as journal:
                assert journal.calls == 4
        elif last_damaged < lines - 1:
            with pytest.raises(AutoMixError, match=r"damaged|not the journal"):
                Journal(path)
            assert path.read_bytes() == whole
        else:
            # The last line, which tells of the end; a call that is one line with it is made again.
            with Journal(path) as journal:
                assert (journal.calls, journal.ended) == (min(line - 2, 4), False)
    finally:
        path.unlink()


def test_a_file_of_another_kind_is_left_alone(path: Path) -> None:
    for text in ("id,question\n1,Why?\n", '{"id": "q1"}\n', "no newline"):
        path.write_text(text)
        with pytest.raises(AutoMixError, match="not the journal"):
            Journal(path)
        assert path.read_text() == text


def test_two_processes_never_mix(path: Path) -> None:
    with Journal(path) as journal:
        journal.add("q0", "answer small 0 x", {**ENTRY, "i": 0})
        found = run(f"from pathlib import Path; Journal(Path({str(path)!r}))")
        assert "Another process is writing the journal" in found.stderr
        journal.add("q0", "answer small 1 x", {**ENTRY, "i": 1})
    with Journal(path) as journal:
        assert numbers(journal) == [0, 1]


def test_kill_minus_nine_loses_nothing(path: Path) -> None:
    process = start(
        f"""
        from pathlib import Path
        journal = Journal(Path({str(path)!r}))
        for i in range(100_000):
            entry = {{"seconds": 0, "calls": [], "i": i}}
            journal.add(f"q{{i % 3}}", f"answer small {{i}} x", entry)
            print(i, flush=True)
        """
    )
    assert process.stdout is not None
    while int(process.stdout.readline()) < 200:
        pass
    process.send_signal(signal.SIGKILL)
    told = [int(line) for line in process.stdout.read().split()]
    process.wait()
    with Journal(path) as journal:
        assert journal.calls >= max(told, default=200) + 1
        assert numbers(journal) == list(range(journal.calls))
        assert (path.with_name(path.name + ".reserve")).exists()
    assert not (path.with_name(path.name + ".reserve")).exists()


def test_a_limit_of_the_system_leaves_no_half_line(path: Path) -> None:
    found = run(
        f"""
        import resource
        from pathlib import Path
        journal = Journal(Path({str(path)!r}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        for i in range(100_000):
            journal.add("q0", f"answer small {{i}} x", {{"seconds": 0, "calls": [], "i": i}})
        """
    )
    assert "cannot be written: File too large" in found.stderr
    assert path.stat().st_size <= 100_000
    with Journal(path) as journal:
        assert journal.torn == 0
        assert f"{journal.calls} finished calls are in it" in found.stderr


def test_a_disk_that_fills_keeps_what_is_under_way(small_disk: Path) -> None:
    path = small_disk / "log.journal"
    with Journal(path) as journal:
        kept = 0
        while not journal.full:
            journal.add("q0", f"answer small {kept} x", {**ENTRY, "i": kept, "pad": "x" * 10_000})
            kept += 1
        for _ in range(64):  # those under way
            journal.add("q0", f"answer small {kept} x", {**ENTRY, "i": kept, "pad": "x" * 10_000})
            kept += 1
        with pytest.raises(AutoMixError, match="No space left") as error:  # noqa: PT012
            for i in range(kept, 10_000):
                journal.add("q0", f"answer small {i} x", {**ENTRY, "i": i, "pad": "x" * 10_000})
                kept += 1
        assert journal.calls == kept
        assert f"{kept} finished calls are in it; make room" in str(error.value)
    size = path.stat().st_size
    with pytest.raises(AutoMixError, match="No call was made; fix that"):
        Journal(path)  # still no room
    assert path.stat().st_size == size


def test_a_folder_that_cannot_be_written(small_disk: Path) -> None:
    path = small_disk / "log.journal"
    filled(path, 2)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(AutoMixError, match="cannot be written: Read-only file system. No call"):
        Journal(path)
    with pytest.raises(AutoMixError, match="cannot be written"):
        Journal(small_disk / "other.journal")
    with pytest.raises(AutoMixError, match="No such file or directory"):
        Journal(small_disk / "nowhere" / "log.journal")


def test_many_threads_write_whole_lines(path: Path) -> None:
    with Journal(path) as journal:

        def write(part: int) -> None:
            for i in range(200):
                journal.add(f"q{part}", f"answer small {i} x", {**ENTRY, "i": i, "pad": "x" * i})
                assert f"answer small {i} x" in journal.calls_of(f"q{part}")

        threads = [threading.Thread(target=write, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Journal(path) as journal:
        assert journal.calls == 800


HEAD = "from langchain_automix.calibration.journal import Journal\n"


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code: str) -> subprocess.CompletedProcess[str]:
    process = start(code)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess((), process.returncode, out, err)


def test_only_its_owner_may_read_it(path: Path) -> None:
    filled(path, 1)
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_was_never_used_is_discarded_by_its_owner_only(path: Path) -> None:
    with Journal(path) as journal:
        for _ in range(2):
            with pytest.raises(AutoMixError, match="Another process is writing"):
                Journal(path)
            assert path.exists()
        journal.begin({})
        journal.add("q0", "answer small 0 x", ENTRY)
        journal.discard()
        assert path.exists()
    with Journal(path) as journal:
        journal.discard()
    assert path.exists()
    path.unlink()
    with Journal(path) as journal:
        journal.discard()
    assert not list(path.parent.iterdir())


def test_a_file_that_its_owner_discards_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the opening of a file and its lock, the owner deletes it."""
    first, lock = Journal(path), journal_module._lock_file

    def late(file: Any, where: Path) -> None:
        if not first._file.closed:
            first.discard()
            first.close()
        lock(file, where)

    monkeypatch.setattr(journal_module, "_lock_file", late)
    with Journal(path) as journal:
        journal.add("q0", "answer small 0 x", ENTRY)
        assert path.read_bytes().endswith(b"}\n")
    with Journal(path) as journal:
        assert journal.calls == 1
