"""Locks across processes and machines, which end by themselves where their holder was killed."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator

from sqlalchemy import delete, select, update

from langchain_automix.errors import StoreUnavailableError
from langchain_automix.learning.store.database import Database
from langchain_automix.learning.store.schema import LOCKS


@contextlib.contextmanager
def lock(database: Database, name: str, seconds: float) -> Iterator[bool]:
    """Hold a lock, and say whether it is held; see `LearningStore.lock`."""
    token = secrets.token_hex(8)
    if not _take(database, name, token, seconds):
        yield False
        return
    ended = threading.Event()
    work = threading.Thread(
        target=_renew, args=(database, name, token, seconds, ended), daemon=True
    )
    work.start()
    try:
        yield True
    finally:
        ended.set()
        work.join()
        # A store that is away ends the lease by itself.
        with contextlib.suppress(StoreUnavailableError), database.writing() as connection:
            connection.execute(delete(LOCKS).where(LOCKS.c.token == token))


def _take(database: Database, name: str, token: str, seconds: float) -> bool:
    with database.writing() as connection:
        now = database.now(connection)
        row = {"name": name, "token": token, "until": now + seconds}
        insert = database.insert(LOCKS).values(row)
        insert = insert.on_conflict_do_update(
            index_elements=["name"],
            set_={"token": insert.excluded.token, "until": insert.excluded.until},
            where=LOCKS.c.until <= now,
        )
        connection.execute(insert)
        holder = connection.execute(select(LOCKS.c.token).where(LOCKS.c.name == name)).scalar()
        return bool(holder == token)


def _renew(
    database: Database, name: str, token: str, seconds: float, ended: threading.Event
) -> None:
    while not ended.wait(seconds / 3):
        with contextlib.suppress(StoreUnavailableError), database.writing() as connection:
            is_held = (LOCKS.c.name == name) & (LOCKS.c.token == token)
            until = database.now(connection) + seconds
            connection.execute(update(LOCKS).where(is_held).values(until=until))
