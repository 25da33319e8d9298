"""One database, SQLite or PostgreSQL: opened, written to and read from in transactions."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, Table, event, exc, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url

from langchain_automix.errors import AutoMixError, StoreUnavailableError
from langchain_automix.learning.store.forks import Gate, close_at_forks
from langchain_automix.learning.store.schema import META, migrate
from langchain_automix.utils.install import install_hint
from langchain_automix.utils.locks import ProcessLock
from langchain_automix.utils.urls import hide_password

_FORMS = "sqlite:///automix.db for a file, or postgresql://user@host/database"
_BUSY_SECONDS = 30
"""How long a write waits for a SQLite file that other processes write to. SQLite lets them through
in no order, so that one of several may wait for long; no query waits for it."""

_OPENING_SECONDS = 5
"""How long opening a SQLite file waits for them."""

_HEADER = b"SQLite format 3\0"
_MIGRATION_LOCK = 0x6175746F6D6978  # "automix": of PostgreSQL's advisory locks, any number
_REFUSED = (exc.DataError, exc.IntegrityError)
"""Errors of what is written, which no repetition mends."""


class Database:
    """A database with the tables of a store.

    Args:
        url: `sqlite:///FILE` or `postgresql://...`.
        create: Whether a file that does not exist is made.

    Raises:
        AutoMixError: It is no such URL, or not the database of a store of a version known here.
        StoreUnavailableError: It cannot be reached or written to at present.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.url = url
        self.shown = hide_password(url) if isinstance(url, str) else ""
        self._parsed = _parse(url)
        self._file = _file_of(self._parsed)
        self._lock = ProcessLock()
        self._process = os.getpid()
        self.gate = Gate()
        if self._file is not None and not create and not self._file.exists():
            raise AutoMixError(f"There is no learning store {self._file}.")
        with self.gate.passed():
            self._open()
        close_at_forks(self)

    def _open(self) -> None:
        if self._file is not None:
            _refuse_other_file(self._file)
        self._engine = _engine(self._parsed)
        self._reader = self._engine
        self._writer = self._engine.execution_options(automix_writes=True, automix_waits=True)
        if self._file is None:
            self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ")
        with self.told(), self._engine.connect() as connection:
            self._prepare(connection)
        self._identity = _identity(self._file)

    def _prepare(self, connection: Connection) -> None:
        if self._file is None:
            with connection.begin():
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                migrate(connection)
            return
        _refuse_other_program(connection, self._file)
        _make_private(self._file)
        _set_wal(connection, self._file)
        with connection.execution_options(automix_writes=True).begin():
            migrate(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection whose reads all see the same state."""
        with self.gate.passed(), self.told(), self._current()._reader.begin() as connection:  # noqa: SLF001
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection whose writes are all done at the end, or none of them."""
        with self.gate.passed(), self.told(), self._current()._writer.begin() as connection:  # noqa: SLF001
            yield connection

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Have errors of the database told in one line, without values and passwords."""
        try:
            yield
        except _REFUSED as error:
            raise AutoMixError(
                f"The learning store {self.shown} refuses a record: {self._said(error)}."
            ) from None
        except (exc.DBAPIError, exc.TimeoutError) as error:
            if "not a database" in str(error):
                raise AutoMixError(
                    f"{self._file} is no SQLite database: give the learning store another file."
                ) from None
            raise StoreUnavailableError(
                f"The learning store {self.shown} cannot be used at present: {self._said(error)}."
            ) from None

    def _said(self, error: Exception) -> str:
        told = str(getattr(error, "orig", None) or error)
        first = next((line for line in told.splitlines() if line.strip()), type(error).__name__)
        secrets = [v for name, v in self._parsed.query.items() if "password" in name]
        for secret in filter(None, [self._parsed.password, *secrets]):
            first = first.replace(str(secret), "***")
        return hide_password(first).strip().rstrip(".")

    def _current(self) -> Database:
        """Return itself, opened anew in a forked process and where the file is another one."""
        is_forked = self._process != os.getpid()
        if not is_forked and _identity(self._file) == self._identity:
            return self
        with self._lock:
            if self._process != os.getpid():
                # Closing what the parent has open would be felt there.
                _INHERITED.append(self._engine)
                self._process = os.getpid()
                self._open()
            elif _identity(self._file) != self._identity:
                self._engine.dispose()
                self._open()
        return self

    @property
    def is_postgresql(self) -> bool:
        """Whether the database is PostgreSQL rather than SQLite."""
        return self._file is None

    def insert(self, table: Table) -> Any:
        """Return an INSERT in the database's dialect, which has `on_conflict_do_...`."""
        return (postgresql if self.is_postgresql else sqlite).insert(table)

    def now(self, connection: Connection) -> float:
        """Return the time that all processes go by: that of the database's machine."""
        if not self.is_postgresql:
            return time.time()
        return float(
            connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one()
        )

    def next_change(self, connection: Connection) -> int:
        """Return the number of this transaction's change.

        The row stays locked until the transaction ends: changes are seen in the order of their
        numbers, so that a reader who asks for later ones misses none.
        """
        is_counter = META.c.name == "changes"
        connection.execute(META.update().where(is_counter).values(value=META.c.value + 1))
        return self.latest_change(connection)

    def latest_change(self, connection: Connection) -> int:
        """Return the number of the latest change that this transaction sees."""
        counter = select(META.c.value).where(META.c.name == "changes")
        return int(connection.execute(counter).scalar_one())

    def shrink(self) -> None:
        """Write what the log of SQLite holds into its file, and empty it of what was deleted."""
        if self.is_postgresql:
            return
        with self.gate.passed(), self.told(), self._current()._engine.connect() as connection:  # noqa: SLF001
            raw: Any = connection.connection.dbapi_connection
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        self._engine.dispose()


_INHERITED: list[Engine] = []
"""Engines of a parent process, kept so that their connections are never closed."""


def _parse(url: Any) -> URL:
    """Return a URL that this package can open, with its driver.

    No part of what cannot be read is shown: it may hold a password.
    """
    try:
        parsed = make_url(url if isinstance(url, str) else "")
    except (exc.ArgumentError, ValueError):
        raise AutoMixError(f"A learning store is given as a URL, such as {_FORMS}.") from None
    backend = parsed.get_backend_name()
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise AutoMixError(
            f"A learning store cannot be kept in {backend!r}: give a URL such as {_FORMS}."
        )
    if parsed.database in {None, "", ":memory:"} or parsed.query or parsed.host:
        raise AutoMixError(
            "A learning store in SQLite is a file, without parameters: sqlite:///automix.db, "
            "or with four slashes and the whole path, sqlite:////var/lib/automix.db."
        )
    return parsed


def _file_of(url: URL) -> Path | None:
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def _identity(file: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from another one that has taken its place."""
    if file is None:
        return None
    try:
        found = file.stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _refuse_other_file(file: Path) -> None:
    """Make a file that does not exist, for its owner alone; leave what is no database alone."""
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        with file.open("rb") as opened:
            header = opened.read(len(_HEADER))
    except OSError as error:
        raise StoreUnavailableError(
            f"The learning store {file} cannot be opened: {error.strerror}."
        ) from None
    if header not in {b"", _HEADER}:
        raise AutoMixError(f"{file} is no SQLite database: give the learning store another file.")


def _make_private(file: Path) -> None:
    """Have only its owner read the file; SQLite gives those that it makes beside it its mode."""
    for each in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))):
        with contextlib.suppress(OSError):  # it is not there, or another owner's
            if each.stat().st_mode & 0o077:
                each.chmod(0o600)


def _engine(url: URL) -> Engine:
    is_file = url.get_backend_name() == "sqlite"
    connect: dict[str, Any] = {"timeout": _OPENING_SECONDS}
    if not is_file:
        # Prepared statements would not outlive a pooler between here and the server.
        connect = {"connect_timeout": 5, "keepalives_idle": 15, "prepare_threshold": None}
        connect |= url.query
    try:
        engine = sqlalchemy.create_engine(
            url, connect_args=connect, hide_parameters=True, pool_pre_ping=not is_file
        )
    except ImportError as error:
        raise AutoMixError(
            f"A learning store in PostgreSQL needs psycopg, which is not installed: "
            f"{install_hint('learning')}"
        ) from error
    if is_file:
        event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_in_sqlite if is_file else _begin_in_postgresql)
    return engine


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # `_begin` begins transactions, not the driver
    # FULL: what was acknowledged outlives a loss of power, too, as with PostgreSQL; NORMAL would
    # lose the last transactions. One writer thread commits in batches, so it costs little.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON")  # pruned texts are overwritten


def _begin_in_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("automix_waits"):
        connection.exec_driver_sql(f"PRAGMA busy_timeout={1000 * _BUSY_SECONDS:.0f}")
    # A transaction that reads first and then writes would fail where another one wrote between.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if _writes(connection) else "BEGIN")


def _begin_in_postgresql(connection: Connection) -> None:
    # A process that is stopped inside a transaction must not hold up the others for ever.
    if _writes(connection):
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '10s'")


def _writes(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("automix_writes"))


def _refuse_other_program(connection: Connection, file: Path) -> None:
    with connection.begin():
        names = sqlalchemy.inspect(connection).get_table_names()
    if names and META.name not in names:
        raise AutoMixError(
            f"{file} is the database of another program: give the learning store a file of its own."
        )


def _set_wal(connection: Connection, file: Path) -> None:
    """Have readers and the writer not wait for each other.

    SQLite does not wait for others who do the same at this moment.
    """
    deadline = time.monotonic() + _OPENING_SECONDS
    raw: Any = connection.connection.dbapi_connection
    while True:
        try:
            (mode,) = raw.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise exc.OperationalError("", {}, error) from None
            time.sleep(0.02)
            continue
        if mode != "wal":
            raise AutoMixError(f"{file} lies where SQLite cannot keep a write-ahead log.")
        return
