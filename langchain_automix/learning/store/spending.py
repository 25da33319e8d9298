"""What shadows may cost together: reserved before, settled after, in steps that are atomic."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy import Connection, case, delete, func, select, update

from langchain_automix.learning.store.database import Database
from langchain_automix.learning.store.schema import RESERVATIONS, SPENDING
from langchain_automix.mix.limits.ledger import dollars, nanos

Dollars = float | Decimal


def reserve(
    database: Database, name: str, amount: Dollars, limit: Dollars | None, lease: float
) -> str | None:
    """Reserve an amount; None: with it, more than the limit might be spent."""
    wanted = _nanos(amount)
    with database.writing() as connection:
        dearest = _locked(database, connection, name)
        now = database.now(connection)
        used = _used(connection, name, dearest, now)
        if limit is not None and (used + wanted > _nanos(limit) or used >= _nanos(limit)):
            return None
        token = secrets.token_hex(8)
        row = {"token": token, "name": name, "amount": wanted, "until": now + lease}
        connection.execute(RESERVATIONS.insert().values(row))
        return token


def settle(database: Database, token: str, amount: Dollars | None) -> None:
    """Count what was spent in place of a reservation; settled twice, it counts once."""
    is_it = RESERVATIONS.c.token == token
    with database.writing() as connection:
        name = connection.execute(select(RESERVATIONS.c.name).where(is_it)).scalar()
        if name is None:
            return
        dearest = _locked(database, connection, name)
        reserved = connection.execute(select(RESERVATIONS.c.amount).where(is_it)).scalar()
        if reserved is None:  # settled by another one while this one waited
            return
        connection.execute(delete(RESERVATIONS).where(is_it))
        spent = max(dearest, reserved) if amount is None else _nanos(amount)
        values = {
            "spent": SPENDING.c.spent + spent,
            "dearest": dearest if amount is None else max(dearest, spent),
        }
        connection.execute(update(SPENDING).where(SPENDING.c.name == name).values(values))


def spent(database: Database, name: str) -> float:
    """Return the dollars spent, those under way and those whose process was killed included."""
    with database.reading() as connection:
        query = select(SPENDING.c.dearest).where(SPENDING.c.name == name)
        dearest = connection.execute(query).scalar() or 0
        return float(dollars(_used(connection, name, dearest, database.now(connection))))


def _locked(database: Database, connection: Connection, name: str) -> int:
    """Keep the others of the name waiting until this transaction ends; return the dearest."""
    row = {"name": name, "spent": 0, "dearest": 0}
    connection.execute(database.insert(SPENDING).values(row).on_conflict_do_nothing())
    query = select(SPENDING.c.dearest).where(SPENDING.c.name == name).with_for_update()
    return int(connection.execute(query).scalar_one())


def _used(connection: Connection, name: str, dearest: int, now: float) -> int:
    """Return the nano-dollars spent and reserved.

    Where nothing was heard of a reservation for the time of its lease, it counts as a dearest
    one: what it cost is unknown, which is not 0.
    """
    is_late = (RESERVATIONS.c.until <= now) & (RESERVATIONS.c.amount < dearest)
    counted = func.sum(case((is_late, dearest), else_=RESERVATIONS.c.amount))
    reserved = select(counted).where(RESERVATIONS.c.name == name)
    settled = select(SPENDING.c.spent).where(SPENDING.c.name == name)
    found: Sequence[int] = [int(connection.execute(q).scalar() or 0) for q in (settled, reserved)]
    return sum(found)


def _nanos(amount: Dollars) -> int:
    # By its shortest text: 0.1 is meant, not the binary number that stands for it.
    return nanos(amount if isinstance(amount, Decimal) else Decimal(str(amount)))
