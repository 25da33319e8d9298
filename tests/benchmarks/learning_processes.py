"""Four processes that learn from one store, one of them killed: what is lost, booked and late."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.builders.learning_processes import AT_MOST, Outcome, run_processes
from tests.support.servers.postgresql import postgresql_schema, server

QUERIES = 20_000
_LIMITED = 5
"""A run with little money asks one of so many of the queries."""


def table(queries: int = QUERIES) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the figures of each database, with and without enough money for the shadows."""
    kinds = ["SQLite", *(["PostgreSQL"] if server() else [])]
    heads, columns = [f"{queries:,} queries, four processes"], []
    for kind in kinds:
        with _store(kind) as (url, folder):
            heads.append(kind)
            columns.append(_figures(run_processes(url, folder, queries)))
        limit = 0.00005 * queries / _LIMITED
        with _store(kind) as (url, folder):
            found = run_processes(url, folder, queries // _LIMITED, max_spend=limit)
            columns[-1].update(_of_money(found, limit))
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    return tuple(heads), rows


@contextmanager
def _store(kind: str) -> Iterator[tuple[str, Path]]:
    with tempfile.TemporaryDirectory() as name:
        if kind == "SQLite":
            yield f"sqlite:///{name}/automix.db", Path(name)
            return
        with postgresql_schema() as url:
            yield url, Path(name)


def _figures(found: Outcome) -> dict[str, str]:
    waits = sorted(found.waits())
    reviews = [len(one.reviews) for one in found.learners]
    fits = [version.labels for version in found.versions]
    seconds = ", ".join(f"{wait:.1f}" for wait in waits)
    killed = found.learners[0]
    return {
        "acknowledged": f"{sum(one.acknowledged for one in found.learners):,}",
        "by the one killed": f"{killed.acknowledged:,} of {found.each:,}",
        "rows in the store": f"{len(found.rows):,}",
        "acknowledged and lost": str(len(found.lost)),
        "there twice": str(found.repeated),
        "reviews, by process": " + ".join(map(str, reviews)),
        "reviews that overlap": str(found.at_once),
        "queries each fit took": ", ".join(map(str, fits)),
        f"seconds to a new version (target: {AT_MOST:g})": seconds,
        "rows whose cost is not the bill's": str(len(found.wrong)),
        "cost of all rows, USD": f"{found.booked:.6f}",
        "bill of all rows, USD": f"{found.billed:.6f}",
        "bill of all requests, USD": f"{found.total('query') + found.total('shadow'):.6f}",
        "queries a second": f"{len(found.rows) / found.seconds:.0f}",
    }


def _of_money(found: Outcome, limit: float) -> dict[str, str]:
    return {
        "little money: max_spend, USD": f"{limit:.6f}",
        "bill of the shadows, USD": f"{found.total('shadow'):.6f}",
        "dearest shadow, USD": f"{found.dearest_shadow:.6f}",
        "counted in the store, USD": f"{found.spent:.6f}",
        "rows then not as billed": str(len(found.wrong)),
    }
