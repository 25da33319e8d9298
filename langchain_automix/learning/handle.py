"""`StoreHandle`: the store of a `Learning`, which may be away when that is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from typing_extensions import override

from langchain_automix.errors import StoreUnavailableError
from langchain_automix.learning.records import Record
from langchain_automix.learning.store.opening import open_store
from langchain_automix.learning.store.writer import LearningWarning, StoreWriter
from langchain_automix.utils.locks import ProcessLock
from langchain_automix.utils.urls import hide_password
from langchain_automix.utils.user_warnings import warn_of_what_is_paid

if TYPE_CHECKING:
    from langchain_automix.learning.store.store import LearningStore


_MOST_PENDING = 1000


class PendingRecord:
    """A record that is made by the thread that writes it, and not in the way of a query.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], Record]) -> None:
        self._make: Callable[[], Record] | None = make
        self._made: Record | None = None

    def get(self) -> Record:
        """Return the record, which is made once."""
        if self._made is None and self._make is not None:
            self._made, self._make = self._make(), None
        if self._made is None:
            raise ValueError("the record could not be made")
        return self._made


class StoreHandle:
    """The store behind a URL: opened at once if it is there, else when it is.

    Raises:
        AutoMixError: It can never be opened: it is no such URL, or no store.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store: LearningStore | None = None
        self._lock = ProcessLock()
        self._has_warned = False
        try:
            self.get()
        except StoreUnavailableError as error:
            self.warn_away(error)

    @property
    def name(self) -> str:
        """The URL, without its password."""
        return hide_password(self.url)

    def get(self) -> LearningStore:
        """Return the store.

        Raises:
            StoreUnavailableError: It is away.
        """
        with self._lock:
            if self._store is None:
                self._store = open_store(self.url)
            return self._store

    def add(self, records: Sequence[Record | PendingRecord]) -> None:
        """Add records to the store, as the writer does."""
        made = [r.get() if isinstance(r, PendingRecord) else r for r in records]
        self.get().add(made)

    def close(self) -> None:
        """Close the store, if it is open."""
        with self._lock:
            if self._store is not None:
                self._store.close()

    def warn_away(self, error: Exception) -> None:
        """Warn once that the store is away."""
        if self._has_warned:
            return
        self._has_warned = True
        message = (
            f"{error} Queries go on by the last policy that is known, and their records wait for "
            "it, as many as fit into the queue."
        )
        warn_of_what_is_paid(message, LearningWarning)

    def is_back(self) -> None:
        """Note that the store has answered: the next time that it is away is another one."""
        self._has_warned = False


class HandleWriter(StoreWriter):
    """Writes to the store of a handle, which says once that it is away."""

    def __init__(self, handle: StoreHandle) -> None:
        super().__init__(cast("LearningStore", handle))  # of which it only adds to
        self._handle = handle

    def put_later(self, make: Callable[[], Record]) -> bool:
        """Take a record that is yet to be made; see `put`.

        What it is made of may be a whole conversation: where many wait, it is made at once.
        """
        if self.waiting > _MOST_PENDING:
            return self.put(make())
        return self.put(cast("Record", PendingRecord(make)))

    @override
    def _tell_away(self, error: Exception) -> None:
        self._is_away = True
        self._handle.warn_away(error)
