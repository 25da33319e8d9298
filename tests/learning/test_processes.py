"""Four processes learn from one store, one of them is killed: nothing is lost, nothing twice."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

import itertools

from tests.support.builders.learning_processes import house_of, mix_on, run_processes
from tests.support.builders.waiting import LONG
from tests.support.servers.postgresql import postgresql_schema

pytestmark = pytest.mark.wire

_QUERIES = 800
_PAUSE = 2.5
"""Seconds; a store is reviewed every 2 at most."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: Any, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/automix.db"
        return
    with postgresql_schema() as url:
        yield url


def test_four_processes_of_which_one_is_killed(url: str, tmp_path: Path) -> None:
    found = run_processes(url, tmp_path, _QUERIES, _PAUSE, max_loss=0.3, share=0.5)
    killed, *others = found.learners
    assert killed.acknowledged < found.each
    assert {one.acknowledged for one in others} == {found.each}
    assert (found.lost, found.repeated, found.at_once) == ([], 0, 0)
    assert found.wrong == []
    assert found.booked == pytest.approx(found.billed, abs=1e-9)
    fits = [version.labels for version in found.versions]
    assert all(later >= 2 * before for before, later in itertools.pairwise(fits))
    assert any(event.kind == "promoted" for event in found.events)
    assert 0 < max(found.waits(LONG)) < LONG  # in how many seconds, the benchmark tells


def test_four_processes_spend_no_more_than_they_may(url: str, tmp_path: Path) -> None:
    limit = 0.02
    found = run_processes(url, tmp_path, _QUERIES // 2, max_spend=limit)
    assert found.wrong == []
    assert found.lost == []
    assert limit / 2 < found.total("shadow") <= limit + found.dearest_shadow
    assert found.spent <= limit + found.dearest_shadow


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_learns_too(url: str, tmp_path: Path) -> None:
    """Its models make no requests: an HTTP client's connections cannot be shared with a child."""
    bill = os.open(tmp_path / "bill.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    automix = mix_on(url, bill)
    learning: Any = automix.learning
    automix.invoke("What is the number of house a1?")
    assert learning.flush(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads and forks
        child = os.fork()
    if not child:
        try:
            automix.invoke("What is the number of house b1?")
            os._exit(0 if learning.flush(60) else 1)
        finally:
            os._exit(2)
    automix.invoke("What is the number of house a2?")
    assert os.waitpid(child, 0)[1] == 0
    assert learning.flush(60)
    rows, _ = learning.store.get().read(automix.mix_config.epoch)
    assert sorted(map(house_of, rows)) == ["a1", "a2", "b1"]
    assert all(row.is_shadowed for row in rows)
    learning.close()
