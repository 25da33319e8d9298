"""Databases closed while a process forks: SQLite and libpq do not outlive it while in use."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any, Protocol
from weakref import WeakSet

_SECONDS = 2.0
"""How long a fork waits for a transaction under way, at most."""


class Gate:
    """Lets transactions through, but for the moment of a fork."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._is_shut = False

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """Wait for a fork that is under way, and have the next one wait."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_shut, 2 * _SECONDS)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def shut(self) -> None:
        """Let no more through, and wait for those inside."""
        with self._changed:
            self._is_shut = True
            self._changed.wait_for(lambda: not self._inside, _SECONDS)

    def open(self) -> None:
        """Let them through again."""
        with self._changed:
            self._is_shut = False
            self._changed.notify_all()


class Forked(Protocol):
    """What is closed before a fork, and used again after it."""

    gate: Gate

    def close(self) -> None:
        """Close what must not be open in two processes."""


_KNOWN: WeakSet[Any] = WeakSet()


def close_at_forks(database: Forked) -> None:
    """Have a database closed before each fork.

    SQLite keeps in memory what its process has locked. A child that inherits that would find the
    file locked for ever, or take it for one that nobody else uses.
    """
    _KNOWN.add(database)


def _before() -> None:
    for each in list(_KNOWN):
        each.gate.shut()
        each.close()


def _in_parent() -> None:
    for each in list(_KNOWN):
        each.gate.open()


def _in_child() -> None:
    for each in list(_KNOWN):
        each.gate = Gate()


_register: Any = getattr(os, "register_at_fork", None)
if _register is not None:
    _register(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
