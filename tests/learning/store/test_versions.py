"""Versions of the policy: one champion of an epoch at most, whoever promotes at the same time."""

from __future__ import annotations

import dataclasses

import pytest
import sqlalchemy

from langchain_automix.errors import AutoMixError
from langchain_automix.learning.store.schema import VERSIONS
from langchain_automix.learning.store.store import LearningStore
from tests.support.builders.stores import start, version


def add(store: LearningStore, count: int, epoch: str = "e") -> list[int]:
    return [store.add_version(version(epoch)) for _ in range(count)]


def statuses(store: LearningStore, epoch: str = "e") -> list[str]:
    return [each.status for each in store.versions(epoch)]


def test_a_version_comes_back_with_its_number(store: LearningStore) -> None:
    first = version(policy='{"plan": "é"}', labels=12, parent=3, judged={"loss": [0.1, None]})
    numbers = [store.add_version(first), store.add_version(version("other"))]
    assert numbers == [1, 2]
    assert store.versions("e") == [dataclasses.replace(first, number=1)]
    assert [each.number for each in store.versions()] == numbers


def test_a_promotion_retires_the_champion_before(store: LearningStore) -> None:
    first, second = add(store, 2)
    (other,) = add(store, 1, "other")
    assert store.champion("e") is None
    assert store.promote(other, "It is the first.")
    assert store.promote(first, "It costs less.")
    assert not store.promote(first, "Again.")
    assert store.promote(second, "It gains.")
    assert statuses(store) == ["retired", "champion"]
    assert (store.champion("e"), store.champion("other")) == (second, other)
    told = [(each.kind, each.text, each.detail) for each in store.events("e")]
    assert told == [
        ("promoted", "It costs less.", {"version": first, "before": 0}),
        ("promoted", "It gains.", {"version": second, "before": first}),
    ]
    assert store.versions("e")[1].since is not None


def test_a_rollback_brings_back_the_one_before(store: LearningStore) -> None:
    first, second, third = add(store, 3)
    for number in (first, second, third):
        store.promote(number, "It is better.")
    assert store.rollback("e", "It loses.") == second
    assert statuses(store) == ["retired", "champion", "rolled back"]
    assert store.rollback("e", "It loses, too.") == first
    assert store.rollback("e", "And this one.") == 0
    assert store.champion("e") is None
    assert store.rollback("e", "None is left.") is None
    assert [e.detail["version"] for e in store.events("e")[3:]] == [second, first, 0]


def test_the_one_before_is_the_one_that_decided_until_then(store: LearningStore) -> None:
    """Not the one that decided when it was fitted, nor whichever was retired last."""
    first, second, third = add(store, 3)
    for number in (first, second, first, third):
        store.promote(number, "A person says so.")
    assert [each.parent for each in store.versions("e")] == [second, first, first]
    assert store.rollback("e", "It loses.") == first
    assert store.rollback("e", "It loses, too.") == second


def test_several_who_find_that_it_loses_roll_back_once(store: LearningStore) -> None:
    first, second = add(store, 2)
    store.promote(first, "It is better.")
    store.promote(second, "It is better.")
    assert store.rollback("e", "It loses.", second) == first
    assert store.rollback("e", "It loses.", second) is None
    assert store.champion("e") == first


def test_status_and_judgement_are_set(store: LearningStore) -> None:
    first, second = add(store, 2)
    store.set_status(first, "rejected", "It loses 2 points.", {"loss": 0.02})
    store.promote(second, "It is better.")
    store.set_judged(second, {"loss": 0.001})
    rejected, champion = store.versions()
    assert (rejected.status, rejected.why) == ("rejected", "It loses 2 points.")
    assert rejected.judged == {"loss": 0.02}
    assert (champion.status, champion.judged) == ("champion", {"loss": 0.001})
    store.set_status(first, "retired", "It is old.")
    assert store.versions()[0].judged == {"loss": 0.02}


def test_what_cannot_be_is_refused(store: LearningStore) -> None:
    with pytest.raises(AutoMixError, match="no version 7"):
        store.promote(7, "It is better.")
    (first,) = add(store, 1)
    with pytest.raises(AutoMixError, match="by `promote`"):
        store.set_status(first, "champion", "So I say.")
    with pytest.raises(AutoMixError, match="by `promote`"):
        store.add_version(version(status="champion"))


def test_the_database_refuses_a_second_champion(store: LearningStore) -> None:
    add(store, 2)
    with pytest.raises(AutoMixError, match="refuses"), store._database.writing() as connection:
        connection.execute(sqlalchemy.update(VERSIONS).values(status="champion"))
    assert statuses(store) == ["challenger", "challenger"]


def test_processes_that_promote_and_roll_back_at_once(store: LearningStore, url: str) -> None:
    numbers = add(store, 3)
    running = [start("promote", url, numbers=numbers, turns=15) for _ in range(3)]
    seen = set()
    while any(process.is_running for process in running):
        seen.add(statuses(store).count("champion"))
    for process in running:
        assert process.finish() == ["done"]
    assert seen <= {0, 1}
    events = store.events("e")
    decides = 0
    for each in events:  # the events tell one story, in which each step begins where the last ended
        assert each.detail["before"] == decides, events
        decides = each.detail["version"]
    assert (store.champion("e") or 0) == decides
