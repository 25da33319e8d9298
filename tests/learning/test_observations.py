"""Stored queries as numbers: what was seen, and how likely it was to be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from langchain_automix.learning.observations import observations_of
from langchain_automix.learning.records import (
    AGREEMENT,
    AnswerRecord,
    GradeRecord,
    QueryRecord,
    StoredQuery,
)
from langchain_automix.learning.store.export import line
from langchain_automix.policy.data.log import RoutingLog

MODELS = ("small", "large")
SMALL = AnswerRecord(0, 0.001, {"score": 0.7, "cost": 0.0})
LARGE = AnswerRecord(1, 0.02)


def stored(
    id: str,
    *answers: AnswerRecord,
    grades: dict[int, float] | None = None,
    source: str = AGREEMENT,
    **fields: Any,
) -> StoredQuery:
    given: dict[str, Any] = {
        "at": float(id[1:]),
        "epoch": "e",
        "version": 0,
        "stage": "policy",
        "kept": 0,
        "share": 0.1,
        "is_drawn": False,
        "ending": "answered",
        "cost": 0.001,
        "alone": 0.02,
        **fields,
    }
    told = [GradeRecord(id, m, q, source, 1.0) for m, q in (grades or {}).items()]
    return StoredQuery(QueryRecord(id, answers=answers, **given), told)


def test_what_was_not_asked_or_graded_is_unknown_and_never_a_number() -> None:
    found = observations_of(MODELS, [stored("q1", SMALL)])
    assert found.columns.cost[0, 0] == 0.001
    assert np.isnan(found.columns.cost[0, 1])
    assert np.isnan(found.columns.quality).all()
    assert not found.complete.any()


def test_an_unknown_cost_makes_a_query_no_evidence() -> None:
    unpriced = AnswerRecord(1, None)
    found = observations_of(MODELS, [stored("q1", SMALL, unpriced, grades={0: 1.0, 1: 1.0})])
    assert not found.complete.any()


def test_they_come_in_the_order_of_their_time_without_those_that_failed() -> None:
    queries = [
        stored("q3", SMALL),
        stored("q1", SMALL),
        stored("q2", SMALL, ending="failed"),
        stored("q4", SMALL, ending="left"),
    ]
    assert observations_of(MODELS, queries).ids == ("q1", "q3")


def test_nothing_is_no_evidence() -> None:
    found = observations_of(MODELS, [])
    assert len(found) == 0
    assert len(found.complete) == 0


def test_a_query_that_asked_all_models_was_sure_to_be_seen() -> None:
    both = stored("q1", SMALL, LARGE, grades={0: 0.0, 1: 1.0})
    found = observations_of(MODELS, [both, stored("q2", SMALL)])
    assert found.chance.tolist() == [1.0, 0.1]


def test_where_grades_cost_money_only_shadows_are_graded() -> None:
    """Then a query that asked all models has the chance of a shadow like any other."""
    queries = [
        stored("q1", SMALL, LARGE, grades={0: 0.0, 1: 1.0}, is_drawn=True),
        stored("q2", SMALL, LARGE),
    ]
    assert observations_of(MODELS, queries).chance.tolist() == [0.1, 0.1]


def test_labels_correct_what_agreement_says() -> None:
    agreeing = [stored(f"q{i}", SMALL, LARGE, grades={0: 1.0, 1: 1.0}) for i in range(1, 21)]
    wrong = [
        StoredQuery(each.query, [*each.grades, GradeRecord(each.query.id, 0, 0.0, "feedback", 2.0)])
        for each in agreeing[:10]
    ]
    found = observations_of(MODELS, [*wrong, *agreeing[10:]])
    assert found.columns.quality[:10, 0].tolist() == [0.0] * 10
    assert 0.0 < found.columns.quality[15, 0] < 0.5


@pytest.mark.parametrize("leading", [None, "tokens"])
def test_of_a_mix_without_a_check_of_its_own_one_is_read(leading: str | None) -> None:
    checks = {"tokens": {"score": 0.4, "cost": 0.0}, "agreement": {"score": 0.9, "cost": 0.0}}
    warm_up = stored("q1", AnswerRecord(0, 0.001, checks=checks))
    decided = stored("q2", SMALL)
    found = observations_of(MODELS, [warm_up, decided], leading)
    first = found.columns.score[:, 0].tolist()
    assert first[1] == 0.7
    assert first[0] == 0.4 if leading else np.isnan(first[0])
    assert set(found.columns.checks) == (set() if leading else set(checks))


def test_they_are_a_routing_log() -> None:
    both = stored("q1", SMALL, LARGE, grades={0: 0.0, 1: 1.0})
    [first, second] = RoutingLog(line(each, MODELS, None) for each in (both, stored("q2", SMALL)))
    assert [answer.quality for answer in first.answers] == [0.0, 1.0]
    assert [answer.quality for answer in second.answers] == [None, None]
