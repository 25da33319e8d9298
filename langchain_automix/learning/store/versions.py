"""The versions of the policy: one champion at most in an epoch, promoted and brought back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select, update

from langchain_automix.errors import AutoMixError
from langchain_automix.learning.records import Event, PolicyVersion, Status
from langchain_automix.learning.store.database import Database
from langchain_automix.learning.store.rows import event_row, version_of, version_row
from langchain_automix.learning.store.schema import EVENTS, VERSIONS


def read(database: Database, epoch: str | None) -> list[PolicyVersion]:
    """Return the versions, in the order of their numbers."""
    query = select(VERSIONS).order_by(VERSIONS.c.number)
    if epoch is not None:
        query = query.where(VERSIONS.c.epoch == epoch)
    with database.reading() as connection:
        return [version_of(row) for row in connection.execute(query)]


def add(database: Database, version: PolicyVersion) -> int:
    """Store a version; return its number."""
    _refuse_champion(version.status)
    with database.writing() as connection:
        result = connection.execute(VERSIONS.insert().values(version_row(version)))
        (number,) = result.inserted_primary_key or (0,)
        return int(number)


def set_status(
    database: Database, number: int, status: Status, why: str, judged: Mapping[str, Any] | None
) -> None:
    """Set what became of a version, and why."""
    _refuse_champion(status)
    with database.writing() as connection:
        database.next_change(connection)  # after the promotions that are under way
        kept = _version(connection, number)
        judged = kept.judged if judged is None else judged
        changed = dataclasses.replace(kept, status=status, why=why, judged=judged)
        _write(connection, changed)


def set_judged(database: Database, number: int, judged: Mapping[str, Any]) -> None:
    """Set the latest comparison of a version with its parent, whatever its status."""
    with database.writing() as connection:
        database.next_change(connection)
        _write(connection, dataclasses.replace(_version(connection, number), judged=judged))


def champion(database: Database, epoch: str) -> int | None:
    """Return the number of an epoch's champion."""
    with database.reading() as connection:
        found = _champion(connection, epoch)
        return None if found is None else found.number


def promote(database: Database, number: int, why: str) -> bool:
    """Make a version the champion of its epoch; False: it is already."""
    with database.writing() as connection:
        database.next_change(connection)
        now = database.now(connection)
        version = _version(connection, number)
        before = _champion(connection, version.epoch)
        if before is not None and before.number == number:
            return False
        if before is not None:
            retired = f"Version {number} was promoted."
            _write(connection, dataclasses.replace(before, status="retired", why=retired))
        parent = 0 if before is None else before.number
        _write(
            connection,
            dataclasses.replace(version, status="champion", why=why, since=now, parent=parent),
        )
        detail = {"version": number, "before": parent}
        _note(connection, Event(now, version.epoch, "promoted", why, detail))
        return True


def rollback(database: Database, epoch: str, why: str, number: int | None) -> int | None:
    """Bring back the champion before this one; see `LearningStore.rollback`."""
    with database.writing() as connection:
        database.next_change(connection)
        now = database.now(connection)
        loser = _champion(connection, epoch)
        if loser is None or (number is not None and loser.number != number):
            return None
        _write(connection, dataclasses.replace(loser, status="rolled back", why=why))
        is_parent = (VERSIONS.c.number == loser.parent) & (VERSIONS.c.status == "retired")
        row = connection.execute(select(VERSIONS).where(is_parent)).first()
        heir = None if row is None else version_of(row)
        if heir is not None:
            back = f"Version {loser.number} was rolled back."
            _write(connection, dataclasses.replace(heir, status="champion", why=back, since=now))
        after = 0 if heir is None else heir.number
        detail = {"version": after, "before": loser.number}
        _note(connection, Event(now, epoch, "rolled back", why, detail))
        return after


def _refuse_champion(status: str) -> None:
    if status == "champion":
        raise AutoMixError("A version becomes the champion by `promote`, or by `rollback`.")


def _champion(connection: Connection, epoch: str) -> PolicyVersion | None:
    is_it = (VERSIONS.c.epoch == epoch) & (VERSIONS.c.status == "champion")
    row = connection.execute(select(VERSIONS).where(is_it)).first()
    return None if row is None else version_of(row)


def _version(connection: Connection, number: int) -> PolicyVersion:
    row = connection.execute(select(VERSIONS).where(VERSIONS.c.number == number)).first()
    if row is None:
        raise AutoMixError(f"The learning store has no version {number} of the policy.")
    return version_of(row)


def _write(connection: Connection, version: PolicyVersion) -> None:
    is_it = VERSIONS.c.number == version.number
    connection.execute(update(VERSIONS).where(is_it).values(version_row(version)))


def _note(connection: Connection, event: Event) -> None:
    connection.execute(EVENTS.insert().values(event_row(event)))
