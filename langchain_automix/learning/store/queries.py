"""The queries of a store with their shadows, grades and events: added, read, counted, pruned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    bindparam,
    delete,
    func,
    select,
    update,
)

from langchain_automix.learning.records import (
    Event,
    GradeRecord,
    QueryRecord,
    Record,
    ShadowRecord,
    StoredQuery,
)
from langchain_automix.learning.store.database import Database
from langchain_automix.learning.store.rows import (
    event_of,
    event_row,
    grade_row,
    query_row,
    shadow_row,
    stored_query,
)
from langchain_automix.learning.store.schema import EVENTS, GRADES, QUERIES, SHADOWS

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class StoreTotals:
    """What the queries of a store come to."""

    queries: int = 0
    by_stage: Mapping[str, int] = field(default_factory=dict)
    drawn: int = 0
    """Queries for which a shadow was taken on."""

    shadowed: int = 0
    """Queries whose shadow has come to an end."""

    grades: Mapping[str, int] = field(default_factory=dict)
    """Graded answers, by source."""

    cost: float = 0.0
    """US dollars of the queries whose cost and whose `alone` are known."""

    alone: float = 0.0
    """What the largest model alone would have cost for the same queries."""

    unpriced: int = 0
    """Queries of which one of the two is unknown."""

    shadow_cost: float = 0.0
    """US dollars of the shadows whose cost is known."""

    unpriced_shadows: int = 0
    first: float | None = None
    """Time of the first query; None: there is none."""

    last: float | None = None


def add(database: Database, records: Sequence[Record]) -> None:
    """Add records in one transaction; see `LearningStore.add`."""
    queries = [query_row(r) for r in records if isinstance(r, QueryRecord)]
    shadows = [shadow_row(r) for r in records if isinstance(r, ShadowRecord)]
    grades = [grade_row(r) for r in records if isinstance(r, GradeRecord)]
    events = [event_row(r) for r in records if isinstance(r, Event)]
    if len(queries) + len(shadows) + len(grades) + len(events) < len(records):
        raise TypeError("a store takes QueryRecord, ShadowRecord, GradeRecord and Event")
    if not records:
        return
    with database.writing() as connection:
        change = database.next_change(connection)
        queries = [{**row, "changed": change} for row in queries]
        for table, rows in ((QUERIES, queries), (SHADOWS, shadows), (EVENTS, events)):
            if rows:
                connection.execute(database.insert(table).on_conflict_do_nothing(), rows)
        if grades:
            connection.execute(_upsert_grade(database), grades)
        if touched := sorted({row["query_id"] for row in [*shadows, *grades]}):
            is_it = QUERIES.c.id == bindparam("touched")
            change_it = update(QUERIES).where(is_it).values(changed=change)
            connection.execute(change_it, [{"touched": id} for id in touched])


def _upsert_grade(database: Database) -> Any:
    """Return the statement that keeps the latest grade of an answer from a source."""
    insert = database.insert(GRADES)
    return insert.on_conflict_do_update(
        index_elements=["query_id", "model", "source"],
        set_={"quality": insert.excluded.quality, "at": insert.excluded.at},
        where=insert.excluded.at >= GRADES.c.at,
    )


def read(
    database: Database, epoch: str, after: int, limit: int | None
) -> tuple[list[StoredQuery], int]:
    """Return the queries of an epoch that have changed; see `LearningStore.read`."""
    with database.reading() as connection:
        if after > database.latest_change(connection):
            after = 0  # another store has taken the place of the one that was read
        is_new = (QUERIES.c.epoch == epoch) & (QUERIES.c.changed > after)
        latest = connection.execute(select(func.max(QUERIES.c.changed)).where(is_new)).scalar()
        wanted = select(QUERIES).where(is_new)
        if limit is not None:
            wanted = wanted.order_by(QUERIES.c.at.desc(), QUERIES.c.id.desc()).limit(limit)
        return _whole(connection, wanted), after if latest is None else int(latest)


def find(database: Database, is_it: ColumnElement[bool]) -> StoredQuery | None:
    """Return the newest query of which something holds."""
    with database.reading() as connection:
        query = select(QUERIES).where(is_it).order_by(QUERIES.c.at.desc()).limit(1)
        found = _whole(connection, query)
        return found[0] if found else None


def _whole(connection: Connection, wanted: Select[Any]) -> list[StoredQuery]:
    """Return queries in the order of their time, each with its shadow and grades."""
    rows = connection.execute(wanted).all()
    if not rows:
        return []
    ids = wanted.with_only_columns(QUERIES.c.id, maintain_column_froms=True).subquery()
    shadows: dict[str, Row[Any]] = {}
    for row in connection.execute(select(SHADOWS).join(ids, ids.c.id == SHADOWS.c.query_id)):
        shadows[row.query_id] = row
    grades = defaultdict[str, list[GradeRecord]](list)
    joined = select(GRADES).join(ids, ids.c.id == GRADES.c.query_id)
    for row in connection.execute(joined.order_by(GRADES.c.at, GRADES.c.model, GRADES.c.source)):
        grade = GradeRecord(row.query_id, row.model, row.quality, row.source, row.at)
        grades[row.query_id].append(grade)
    rows = sorted(rows, key=lambda row: (row.at, row.id))
    return [stored_query(row, shadows.get(row.id), grades[row.id]) for row in rows]


def events(database: Database, epoch: str | None, since: float) -> list[Event]:
    """Return what happened, in the order of time."""
    query = select(EVENTS).where(EVENTS.c.at >= since).order_by(EVENTS.c.at, EVENTS.c.id)
    if epoch is not None:
        query = query.where(EVENTS.c.epoch == epoch)
    with database.reading() as connection:
        return [event_of(row) for row in connection.execute(query)]


def newest_epoch(database: Database) -> str | None:
    """Return the epoch of the newest query."""
    query = select(QUERIES.c.epoch).order_by(QUERIES.c.at.desc()).limit(1)
    with database.reading() as connection:
        found = connection.execute(query).scalar()
        return None if found is None else str(found)


def totals(database: Database, epoch: str | None) -> StoreTotals:
    """Count and add up, in the database."""
    is_priced = QUERIES.c.cost.is_not(None) & QUERIES.c.alone.is_not(None)
    count, total = func.count, func.sum
    with database.reading() as connection:
        queries, drawn, priced, cost, alone, first, last = _rows(
            connection,
            epoch,
            count(),
            count().filter(QUERIES.c.is_drawn),
            count().filter(is_priced),
            total(QUERIES.c.cost).filter(is_priced),
            total(QUERIES.c.alone).filter(is_priced),
            func.min(QUERIES.c.at),
            func.max(QUERIES.c.at),
        )[0]
        of_shadows = (count(), count(SHADOWS.c.cost), total(SHADOWS.c.cost))
        shadowed, costs, spent = _rows(connection, epoch, *of_shadows, of=SHADOWS)[0]
        return StoreTotals(
            queries=queries,
            by_stage=_counts(connection, epoch, QUERIES.c.stage),
            drawn=drawn,
            shadowed=shadowed,
            grades=_counts(connection, epoch, GRADES.c.source, of=GRADES),
            cost=cost or 0.0,
            alone=alone or 0.0,
            unpriced=queries - priced,
            shadow_cost=spent or 0.0,
            unpriced_shadows=shadowed - costs,
            first=first,
            last=last,
        )


def _counts(
    connection: Connection, epoch: str | None, column: Any, of: Table = QUERIES
) -> dict[str, int]:
    return dict(_rows(connection, epoch, column, func.count(), of=of, by=column))


def _rows(
    connection: Connection, epoch: str | None, *columns: Any, of: Table = QUERIES, by: Any = None
) -> Sequence[Any]:
    """Return figures of the queries of an epoch, or of what belongs to them in another table."""
    query = select(*columns)
    if of is not QUERIES:
        query = query.select_from(of).join(QUERIES, of.c.query_id == QUERIES.c.id)
    if epoch is not None:
        query = query.where(QUERIES.c.epoch == epoch)
    if by is not None:
        query = query.group_by(by).order_by(by)
    return connection.execute(query).all()


def prune(database: Database, older_than: float | None, keep: int | None) -> int:
    """Delete old queries with all that belongs to them; see `LearningStore.prune`."""
    with database.writing() as connection:
        database.next_change(connection)  # one after the other with `add`, which locks rows, too
        now = database.now(connection)
        gone = 0
        if older_than is not None:
            gone += _delete(connection, QUERIES.c.at < now - older_than)
        if keep is not None:
            order = (QUERIES.c.at.desc(), QUERIES.c.id.desc())
            kept = select(QUERIES.c.id).order_by(*order).limit(keep)
            gone += _delete(connection, QUERIES.c.id.not_in(kept))
        for table in (SHADOWS, GRADES):
            # Young ones may be of a query that another process has yet to write.
            is_old = table.c.at < now - min(_DAY, older_than or _DAY)
            has_query = select(QUERIES.c.id).where(QUERIES.c.id == table.c.query_id).exists()
            connection.execute(delete(table).where(is_old, ~has_query))
        return gone


def _delete(connection: Connection, condition: ColumnElement[bool]) -> int:
    for table in (SHADOWS, GRADES):
        ids = select(QUERIES.c.id).where(condition)
        connection.execute(delete(table).where(table.c.query_id.in_(ids)))
    return int(connection.execute(delete(QUERIES).where(condition)).rowcount)
