"""Processes that write to one store, some of which are killed: what was acknowledged is there."""

from __future__ import annotations

from collections import Counter

from langchain_automix.learning.store.store import LearningStore
from tests.support.builders.stores import Child, start


def write(url: str, names: str, rows: int, flush_every: int) -> dict[str, Child]:
    given = {"rows": rows, "flush_every": flush_every}
    return {name: start("write", url, name=name, **given) for name in names}


def rows_of(store: LearningStore) -> Counter[str]:
    """How many rows there are of each process, each of which is a first part of what it put."""
    found = [each.query.id.split("-") for each in store.read("e")[0]]
    counts = Counter(name for name, _ in found)
    for name, count in counts.items():
        numbers = sorted(int(number) for owner, number in found if owner == name)
        assert numbers == list(range(1, count + 1))
    return counts


def test_a_killed_process(store: LearningStore, url: str) -> None:
    (writing,) = write(url, "a", rows=100_000, flush_every=30).values()
    while writing.hear() < 90:
        pass
    acknowledged = max([90, *writing.kill()])
    count = rows_of(store)["a"]
    assert 100_000 > count >= acknowledged


def test_four_processes_of_which_one_is_killed(store: LearningStore, url: str) -> None:
    rows = 1_000
    running = write(url, "abcd", rows, flush_every=100)
    seen, after = set[str](), 0
    while running["a"].hear() < rows // 2:
        found, after = store.read("e", after)
        seen |= {each.query.id for each in found}
    acknowledged = max([rows // 2, *running.pop("a").kill()])
    for process in running.values():
        assert process.finish()[-1] == rows
    counts = rows_of(store)
    assert counts["a"] >= acknowledged
    assert [counts[name] for name in "bcd"] == [rows] * 3
    found, _ = store.read("e", after)
    # What was read as it came is all that there is: no row was passed over.
    assert len(seen | {each.query.id for each in found}) == counts.total()
