"""A store of each kind: SQLite, and PostgreSQL where there is a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

if TYPE_CHECKING:
    from langchain_automix.learning.store.store import LearningStore


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.wire)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    from tests.support.servers.postgresql import postgresql_schema  # noqa: PLC0415

    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/automix.db"
        return
    with postgresql_schema() as found:
        yield found


@pytest.fixture
def store(url: str) -> Iterator[LearningStore]:
    from langchain_automix.learning.store.store import LearningStore  # noqa: PLC0415

    opened = LearningStore.open(url)
    yield opened
    opened.close()
