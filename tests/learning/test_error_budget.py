"""All chances of a wrong step add up to what is allowed, whatever begins anew."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from langchain_automix.learning.error_budget import for_proof, for_term
from langchain_automix.learning.estimation import log_capital
from langchain_automix.learning.events import History
from langchain_automix.learning.records import Event, EventKind, PolicyVersion

ALPHA = 0.05
MADE = PolicyVersion(0, "e", 1.0, "{}", "challenger", "")


@pytest.mark.parametrize("parent", ["largest", "latest", "first"])
@pytest.mark.parametrize("alike", [0, 3])
def test_the_parts_of_all_proofs_add_up_to_half(parent: str, alike: int) -> None:
    """Each version against all that may decide by then: the largest model, those before it."""
    versions = [
        replace(
            MADE,
            number=k,
            parent={"largest": 0, "latest": k - 1, "first": min(k - 1, 1)}[parent],
            judged={"alike": True} if alike and k % alike == 0 else {},
        )
        for k in range(1, 60)
    ]
    challengers = [version for version in versions if not version.judged]
    total = sum(
        for_proof(ALPHA, version, rival, versions[: version.number])
        for version in challengers
        for rival in range(version.number)
    )
    assert 0.9 * ALPHA / 2 < total <= ALPHA / 2


def test_the_part_of_a_proof_stays_what_it_was_when_it_began() -> None:
    versions = [replace(MADE, number=k) for k in range(1, 9)]
    parts = {for_proof(ALPHA, versions[2], 0, versions[:n]) for n in range(3, 9)}
    assert len(parts) == 1


@pytest.mark.parametrize("proofs", [1, 2])
def test_the_parts_of_all_terms_add_up_to_half(proofs: int) -> None:
    parts = [for_term(ALPHA, k, proves_itself=proofs > 1) for k in range(1, 1_000)]
    assert 0.99 * ALPHA / 2 < proofs * sum(parts) <= ALPHA / 2


def event(at: float, kind: EventKind, **detail: int) -> Event:
    return Event(at, "e", kind, "", detail)


def test_a_term_begins_with_each_step_and_alarm_while_a_version_decides() -> None:
    events = [
        event(1, "alarm"),  # the largest model decides
        event(2, "promoted", version=1),
        event(3, "share"),
        event(4, "alarm"),
        event(5, "promoted", version=2),
        event(6, "rolled back", version=1),
        event(7, "renewed"),
        event(8, "quiet"),
        event(9, "rolled back", version=0),
        event(10, "alarm"),
    ]
    assert [History.of(events[:n]).terms for n in range(11)] == [0, 0, 1, 1, 2, 3, 4, 5, 5, 5, 5]
    found = History.of(events[::-1])
    assert found == History(alarm=10, quiet=8, renewed=7, terms=5, evidence_after=10)


def wrong(chances: list[float], streams: int, queries: int) -> float:
    """Return on how many streams something untrue is shown, in any of many comparisons anew."""
    rng = np.random.default_rng(0)
    lowest, found = -np.ones(queries), 0
    for _ in range(streams):
        terms = rng.choice([-1.0, 1.0], (len(chances), queries))  # whose mean is 0
        found += any(
            log_capital(row, 0.0, lowest) >= math.log(1 / chance)
            for row, chance in zip(terms, chances, strict=True)
        )
    return found / streams


def test_what_begins_anew_again_and_again_shows_no_more_that_is_untrue() -> None:
    """Sixty alarms, after each of which a champion that loses nothing is watched from the start."""
    spent = [for_term(ALPHA, k, proves_itself=False) for k in range(1, 61)]
    anew = [for_term(ALPHA, 1, proves_itself=False)] * 60
    assert wrong(spent, 300, 150) <= ALPHA / 2
    assert wrong(anew, 300, 150) > 4 * ALPHA
