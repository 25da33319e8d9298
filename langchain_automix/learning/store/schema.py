"""The tables of a store, and the numbered steps that bring an older one up to date."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    inspect,
    select,
    text,
    update,
)

from langchain_automix.errors import AutoMixError

METADATA = MetaData()
"""Every name begins with `automix_`, for a PostgreSQL database may hold other tables, too."""

META = Table(
    "automix_meta",
    METADATA,
    Column("name", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""`schema_version`, and `changes`: the number of the latest change, which `read` goes by."""

QUERIES = Table(
    "automix_queries",
    METADATA,
    Column("id", String, primary_key=True),
    Column("changed", BigInteger, nullable=False),
    Column("epoch", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("version", Integer, nullable=False),
    Column("stage", String, nullable=False),
    Column("kept", Integer),
    Column("share", Double, nullable=False),
    Column("is_drawn", Boolean, nullable=False),
    Column("ending", String, nullable=False),
    Column("cost", Double),
    Column("alone", Double),
    Column("run_id", String, index=True),
    Column("confidence", Double),
    Column("seconds", Double),
    Column("answers", Text, nullable=False),
    Column("requests", Text, nullable=False),
    Column("texts", Text),
    Index("automix_queries_by_change", "epoch", "changed"),
    Index("automix_queries_by_time", "epoch", "at"),
)

# No foreign keys: a grade may come from another process before its query has been written.
SHADOWS = Table(
    "automix_shadows",
    METADATA,
    Column("query_id", String, primary_key=True),
    Column("at", Double, nullable=False),
    Column("cost", Double),
    Column("answers", Text, nullable=False),
    Column("requests", Text, nullable=False),
    Column("texts", Text),
)

GRADES = Table(
    "automix_grades",
    METADATA,
    Column("query_id", String, primary_key=True),
    Column("model", Integer, primary_key=True, autoincrement=False),
    Column("source", String, primary_key=True),
    Column("quality", Double, CheckConstraint("quality >= 0 AND quality <= 1"), nullable=False),
    Column("at", Double, nullable=False),
)

_IS_CHAMPION = text("status = 'champion'")

VERSIONS = Table(
    "automix_versions",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("epoch", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("policy", Text, nullable=False),
    Column("status", String, nullable=False),
    Column("why", Text, nullable=False),
    Column("parent", Integer, nullable=False),
    Column("labels", Integer, nullable=False),
    Column("since", Double),
    Column("judged", Text, nullable=False),
    Index(
        "automix_one_champion",
        "epoch",
        unique=True,
        sqlite_where=_IS_CHAMPION,
        postgresql_where=_IS_CHAMPION,
    ),
    sqlite_autoincrement=True,
)
"""The database itself refuses a second champion of an epoch, and never gives a number twice."""

EVENTS = Table(
    "automix_events",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("digest", String, nullable=False, unique=True),
    Column("at", Double, nullable=False),
    Column("epoch", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
"""An event has no id of its own; the digest makes writing it again harmless."""

LOCKS = Table(
    "automix_locks",
    METADATA,
    Column("name", String, primary_key=True),
    Column("token", String, nullable=False),
    Column("until", Double, nullable=False),
)

SPENDING = Table(
    "automix_spending",
    METADATA,
    Column("name", String, primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("dearest", BigInteger, nullable=False),
)
"""Nano-dollars: sums of integers are exact in every database."""

RESERVATIONS = Table(
    "automix_reservations",
    METADATA,
    Column("token", String, primary_key=True),
    Column("name", String, nullable=False, index=True),
    Column("amount", BigInteger, nullable=False),
    Column("until", Double, nullable=False),
)


def _create_first(connection: Connection) -> None:
    METADATA.create_all(connection)


# When a table changes, append a step, and let the first one create the tables as they were.
MIGRATIONS: Sequence[Callable[[Connection], None]] = (_create_first,)
"""Step n brings a store from schema version n - 1 to n."""


def migrate(connection: Connection) -> None:
    """Bring a store up to date, in the transaction of the connection.

    Raises:
        AutoMixError: A newer version of this package has written it.
    """
    version = 0
    if inspect(connection).has_table(META.name):
        is_version = META.c.name == "schema_version"
        version = connection.execute(select(META.c.value).where(is_version)).scalar() or 0
    if version > len(MIGRATIONS):
        raise AutoMixError(
            f"The learning store has schema version {version}, and this langchain-automix reads "
            f"versions up to {len(MIGRATIONS)}: upgrade langchain-automix, or use another store."
        )
    for step in MIGRATIONS[version:]:
        step(connection)
    if version == 0:
        rows = [{"name": name, "value": 0} for name in ("schema_version", "changes")]
        connection.execute(META.insert(), rows)
    # Written every time: a store that cannot be written to says so when it is opened.
    connection.execute(
        update(META).where(META.c.name == "schema_version").values(value=len(MIGRATIONS))
    )
