"""How fast a learning store takes queries: `python -m tests.benchmarks.storing`.

Twenty thousand queries through one writer, and through those of four processes of which one is
killed half-way, into SQLite and into PostgreSQL where there is a server on this machine.
"""

# ruff: noqa: T201

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator

from langchain_automix.learning.store.store import LearningStore
from langchain_automix.learning.store.writer import StoreWriter
from langchain_automix.utils.tables import text_table
from tests.support.builders.stores import Child, query, start
from tests.support.servers.postgresql import postgresql_schema, server

ROWS = 20_000
PROCESSES = "abcd"
_AT_ONCE = 100


def by_one_writer(url: str) -> dict[str, float]:
    """Return the microseconds of a `put`, and the rows that one writer brings in per second."""
    store = LearningStore.open(url)
    writer = StoreWriter(store, size=ROWS)
    records = [query(f"one-{i}", float(i), epoch="one") for i in range(ROWS)]
    gc.collect()
    begun = time.perf_counter()
    for record in records:
        writer.put(record)
    put = time.perf_counter()
    assert writer.flush(300)
    ended = time.perf_counter()
    assert len(store.read("one")[0]) == ROWS
    quiet = quiet_puts(writer)
    alone = [seconds_to_add(store, i) for i in range(30)]
    store.close()
    return {
        "put_us": 1e6 * (put - begun) / ROWS,
        "quiet_put_us": 1e6 * statistics.median(quiet),
        "rows_per_second": ROWS / (ended - begun),
        "add_ms": 1e3 * statistics.median(alone),
    }


def quiet_puts(writer: StoreWriter) -> list[float]:
    """Return the seconds of puts to a writer that has nothing else to do, one in a while."""
    found = []
    for i in range(100):
        record = query(f"quiet-{i}")
        begun = time.perf_counter()
        writer.put(record)
        found.append(time.perf_counter() - begun)
        time.sleep(0.005)
    assert writer.close(60)
    return found


def seconds_to_add(store: LearningStore, number: int) -> float:
    """Return how long a transaction of one row takes, with its way to the disk."""
    record = query(f"add-{number}")
    begun = time.perf_counter()
    store.add([record])
    return time.perf_counter() - begun


def by_four_processes(url: str, rows: int = ROWS) -> dict[str, float]:
    """Return what four processes have written, of which one is killed half-way."""
    store = LearningStore.open(url)
    each = rows // len(PROCESSES)
    begun = time.perf_counter()
    running: dict[str, Child] = {
        name: start("write", url, name=name, rows=each, flush_every=_AT_ONCE, epoch="four")
        for name in PROCESSES
    }
    while (acknowledged := running["a"].hear()) < each // 2:
        pass
    acknowledged = max([acknowledged, *running.pop("a").kill()])
    for process in running.values():
        acknowledged += process.finish()[-1]
    ended = time.perf_counter()
    found, _ = store.read("four")
    counts = Counter(stored.query.id.split("-")[0] for stored in found)
    assert counts.total() == len({stored.query.id for stored in found})
    assert all(counts[name] == each for name in running), counts
    store.close()
    return {
        "acknowledged": acknowledged,
        "in_the_store": counts.total(),
        "lost": max(0, acknowledged - counts.total()),
        "rows_per_second": counts.total() / (ended - begun),
    }


def measured() -> Iterator[tuple[str, dict[str, float], dict[str, float]]]:
    """Yield the name of each database with what `by_one_writer` and `by_four_processes` found."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/automix.db"
        yield "SQLite", by_one_writer(url), by_four_processes(url)
    if server() is None:
        print("no PostgreSQL server lets in")
        return
    with postgresql_schema() as url:
        yield "PostgreSQL", by_one_writer(url), by_four_processes(url)


if __name__ == "__main__":
    rows = [
        [name, *(f"{value:,.1f}" for value in (*one.values(), *four.values()))]
        for name, one, four in measured()
    ]
    head = ["", "put, us", "quiet put, us", "rows/s", "add of one, ms"]
    head += ["acknowledged by four", "in the store", "lost", "rows/s"]
    print("\n".join(text_table(head, rows)))
