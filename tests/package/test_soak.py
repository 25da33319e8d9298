"""A small soak: no answer lost or mixed up, nothing left open, and the books balance.

`make benchmark ARGS="--only soak --queries 100000"` is the large one.
"""

from __future__ import annotations

import os

import pytest

from tests.soak.provider import FAULTS
from tests.soak.soak import ASYNC, SYNC, Soak

QUERIES = 700
ROUNDS = 5

pytestmark = pytest.mark.skipif(
    "AUTOMIX_SOAK" not in os.environ, reason="half a minute of both cores: set AUTOMIX_SOAK=1"
)


@pytest.fixture(scope="module")
def soak() -> Soak:
    with Soak() as found:
        found.run(QUERIES, ROUNDS)
    return found


def test_every_query_ends_as_it_should_and_its_books_balance(soak: Soak) -> None:
    assert soak.tally.wrong == []


def test_all_that_can_happen_is_among_them(soak: Soak) -> None:
    tally = soak.tally
    assert tally.ends.total() == QUERIES
    assert tally.ends.keys() == {"answered", "failed", "cancelled", "left"}
    assert tally.ways.keys() == {*SYNC, *ASYNC}
    # Few requests stream, so that one which ends too soon need not be among so few queries.
    assert tally.faults.keys() >= FAULTS.keys() - {"short"}
    assert 0.07 < tally.faults.total() / tally.requests < 0.13
    assert len(tally.errors) > 2
    for found in (tally.escalated, tally.degraded, tally.passed_over, tally.unknown, tally.hidden):
        assert found
    assert tally.exact > QUERIES / 2
    assert tally.known > 0


def test_nothing_is_left_open(soak: Soak) -> None:
    assert soak.after == soak.before, "threads, sockets"
    first, *_, last = soak.held
    for each in soak.held:
        assert each.tasks == 0
        assert each.threads == first.threads
        # What the client has closed, the provider may not have seen yet.
        assert abs(each.sockets - each.connections - first.sockets + first.connections) <= 5
    half = soak.held[len(soak.held) // 2]
    assert last.objects - half.objects < 10 * (last.queries - half.queries)
