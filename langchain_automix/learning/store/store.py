"""`LearningStore`: the database that a mix learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from langchain_automix.errors import AutoMixError
from langchain_automix.learning.records import Event, PolicyVersion, Record, Status, StoredQuery
from langchain_automix.learning.store import export, leases, queries, spending, versions
from langchain_automix.learning.store.database import Database
from langchain_automix.learning.store.queries import StoreTotals
from langchain_automix.learning.store.schema import QUERIES
from langchain_automix.learning.store.spending import Dollars
from langchain_automix.policy.data.log import RoutingLog


class LearningStore:
    """The database that a mix learns from, shared by processes, and with PostgreSQL by machines.

    What a method has returned from is in the database, and outlives a kill of the process and a
    loss of power. Every method raises `StoreUnavailableError` where the database cannot be used
    at present. An object may be used by several threads, and goes on in a forked process.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        """Open a store, and bring its tables up to date.

        Args:
            url: `sqlite:///automix.db` (a file that only its owner may read), or
                `postgresql://user:password@host/database` (tables whose names begin with
                `automix_`).
            create: Whether a file that does not exist is made.

        Raises:
            AutoMixError: It is no such URL, not the database of a store, or the store of a newer
                version of this package; no message shows a password.
            StoreUnavailableError: It cannot be reached or written to at present.
        """
        return cls(Database(url, create=create))

    def __repr__(self) -> str:
        return f"LearningStore({self.name!r})"

    def __reduce__(self) -> Any:
        return type(self).open, (self._database.url,)

    @property
    def name(self) -> str:
        """Its URL, without a password."""
        return self._database.shown

    def close(self) -> None:
        """Close its connections; the next use opens new ones."""
        self._database.close()

    # Queries

    def add(self, records: Sequence[Record]) -> None:
        """Add records, all of them or none.

        A query or shadow of the same id, and the same event, is there once, however often it is
        added. Of the grades of an answer from one source, the latest is kept.

        Raises:
            TypeError, ValueError: A record cannot be stored, now or ever.
        """
        queries.add(self._database, records)

    def read(
        self, epoch: str, after: int = 0, limit: int | None = None
    ) -> tuple[list[StoredQuery], int]:
        """Return what has changed: new queries, and those with a new shadow or grade.

        Args:
            epoch: Its queries.
            after: What the last call returned; 0: all.
            limit: At most so many, the newest.

        Returns:
            The queries in the order of their time, and the `after` of the next call. That is less
            than before where another store has taken the place of this one: then these are all.
        """
        return queries.read(self._database, epoch, after, limit)

    def find(self, *, run_id: str | None = None, id: str | None = None) -> StoredQuery | None:
        """Return the query of a run, or of an id; None: there is none."""
        if (run_id is None) == (id is None):
            raise AutoMixError("A query is found by its run_id or by its id: give one of them.")
        is_it = QUERIES.c.id == id if run_id is None else QUERIES.c.run_id == run_id
        return queries.find(self._database, is_it)

    def newest_epoch(self) -> str | None:
        """Return the epoch of the newest query; None: there is no query."""
        return queries.newest_epoch(self._database)

    def totals(self, epoch: str | None = None) -> StoreTotals:
        """Return what the queries of an epoch, or of all, come to."""
        return queries.totals(self._database, epoch)

    def events(self, epoch: str | None = None, *, since: float = 0.0) -> list[Event]:
        """Return what happened in an epoch, or in all, in the order of time."""
        return queries.events(self._database, epoch, since)

    def prune(self, *, older_than: timedelta | None = None, keep: int | None = None) -> int:
        """Delete old queries, each with its shadow and grades; versions and events stay.

        Args:
            older_than: Those of an earlier time. None: whatever their age.
            keep: All but so many, the newest. None: however many.

        Returns:
            How many were deleted.
        """
        age = None if older_than is None else older_than.total_seconds()
        gone = queries.prune(self._database, age, keep)
        self._database.shrink()
        return gone

    def export(
        self,
        path: str | Path,
        epoch: str | None = None,
        *,
        models: Sequence[str] | None = None,
        source: str | None = None,
    ) -> int:
        """Write the answered queries of an epoch as a routing log, without any text.

        Args:
            path: A `.jsonl`, `.jsonl.gz` or `.parquet` file.
            epoch: None: that of the newest query.
            models: Their names, cheap to expensive. None: as an event or a policy says.
            source: Whose grades are the qualities. None: of each answer the latest by people or
                judges, and otherwise its agreement with the largest model's.

        Returns:
            How many queries were written.

        Raises:
            AutoMixError: There is none, or the file cannot be written.
        """
        epoch = self.newest_epoch() if epoch is None else epoch
        stored = [q for q in self.read(epoch)[0] if q.query.answers] if epoch is not None else []
        if not stored or epoch is None:
            raise AutoMixError(f"The learning store {self.name} has no answered query to export.")
        if models is None:
            width = 1 + max(answer.model for each in stored for answer in each.query.answers)
            models = export.model_names(self.versions(epoch), self.events(epoch), width)
        RoutingLog(export.line(each, models, source) for each in stored).write(path)
        return len(stored)

    # Versions of the policy

    def versions(self, epoch: str | None = None) -> list[PolicyVersion]:
        """Return the versions of an epoch, or all, in the order of their numbers."""
        return versions.read(self._database, epoch)

    def add_version(self, version: PolicyVersion) -> int:
        """Store a version of any status but `champion`; return its number."""
        return versions.add(self._database, version)

    def set_status(
        self, number: int, status: Status, why: str, judged: Mapping[str, Any] | None = None
    ) -> None:
        """Set what became of a version, and why.

        Args:
            number: The version.
            status: Any but `champion`.
            why: In one sentence.
            judged: The comparison with its parent that led to it. None: as it was.
        """
        versions.set_status(self._database, number, status, why, judged)

    def set_judged(self, number: int, judged: Mapping[str, Any]) -> None:
        """Set the latest comparison of a version with its parent, the champion's, too."""
        versions.set_judged(self._database, number, judged)

    def champion(self, epoch: str) -> int | None:
        """Return the number of the version that decides; None: the largest model does."""
        return versions.champion(self._database, epoch)

    def promote(self, number: int, why: str) -> bool:
        """Make a version the champion of its epoch, in one step, with its event.

        Returns:
            Whether it was not the champion before.
        """
        return versions.promote(self._database, number, why)

    def rollback(self, epoch: str, why: str, number: int | None = None) -> int | None:
        """Bring back the champion before this one, in one step, with its event.

        Args:
            epoch: The epoch.
            why: In one sentence.
            number: The champion that is to go: where several processes find at once that it
                loses, it goes once. None: whichever it is.

        Returns:
            The version that decides from now on, 0: the largest model. None: nothing was done,
            for there is no champion, or another one.
        """
        return versions.rollback(self._database, epoch, why, number)

    # Locks and money

    def lock(self, name: str, seconds: float = 60) -> AbstractContextManager[bool]:
        """Hold a lock across processes, without waiting for it.

        It is renewed as long as its holder runs. Of a holder that was killed, it ends by itself.

        Args:
            name: What is locked.
            seconds: After which the lock of a holder ends that was killed.

        Returns:
            A context that gives whether the lock is held.
        """
        return leases.lock(self._database, name, seconds)

    def reserve_spend(
        self, name: str, amount: Dollars, limit: Dollars | None, lease: float = 600
    ) -> str | None:
        """Reserve money before it is spent.

        What is spent never passes the limit, as long as nothing costs more than was reserved.

        Args:
            name: The purse.
            amount: The most that it may cost, in US dollars.
            limit: What the purse may spend in all. None: there is no limit, and it is counted.
            lease: Seconds after which a reservation that was not settled, since its process was
                killed, counts as the dearest one so far, where that is more than was reserved.

        Returns:
            The token to settle it by; None: the limit does not allow it.
        """
        return spending.reserve(self._database, name, amount, limit, lease)

    def settle_spend(self, token: str, amount: Dollars | None) -> None:
        """Count what was spent in place of a reservation.

        Args:
            token: Of the reservation; settled again, nothing changes.
            amount: US dollars. None: unknown, which counts as the dearest so far, and at least as
                what was reserved.
        """
        spending.settle(self._database, token, amount)

    def spent(self, name: str) -> float:
        """Return the dollars spent from a purse, with those reserved."""
        return spending.spent(self._database, name)
