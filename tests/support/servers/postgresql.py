"""A schema of a test's own in a PostgreSQL server on this machine; and a wire that can be cut."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from typing import Any, Self

import pytest

PORT = 5432
_DATABASES = ("test", "root", "postgres")


@functools.cache
def server() -> str | None:
    """Return the URL of a database that tests may use; None: there is none.

    `AUTOMIX_TEST_POSTGRESQL` names another one than those that are looked for.
    """
    try:
        import psycopg  # noqa: PLC0415  (an extra)
    except ImportError:
        return None
    urls = [f"postgresql://127.0.0.1:{PORT}/{name}" for name in _DATABASES]
    for url in filter(None, [os.environ.get("AUTOMIX_TEST_POSTGRESQL"), *urls]):
        with contextlib.suppress(psycopg.Error):
            psycopg.connect(url, connect_timeout=2).close()
            return url
    return None


def execute(statement: Any) -> list[Any]:
    """Execute a statement as the tests' own user; return its rows."""
    import psycopg  # noqa: PLC0415

    with psycopg.connect(str(server()), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def postgresql_schema() -> Iterator[str]:
    """Make a schema; give the URL that leads to it, and drop it at the end."""
    if server() is None:
        pytest.skip(f"no PostgreSQL server lets in at 127.0.0.1:{PORT}, or psycopg is missing")
    name = f"automix_{secrets.token_hex(6)}"
    execute(f"CREATE SCHEMA {name}")
    try:
        yield f"{server()}?options=-csearch_path%3D{name}"
    finally:
        # Of a killed process, the server may not have noticed yet; its locks must not stop this.
        execute(
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_class c ON c.oid = "
            "l.relation JOIN pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE n.nspname = '{name}' AND l.pid <> pg_backend_pid()"
        )
        execute(f"DROP SCHEMA {name} CASCADE")


class Wire:
    """A port of 127.0.0.1 that leads to another one, until it is cut."""

    def __init__(self, port: int = PORT) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Break all connections; new ones are closed at once."""
        self._is_cut = True
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._is_cut = False

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._ends += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
