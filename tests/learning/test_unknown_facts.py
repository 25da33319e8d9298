"""What stored queries do not say: unknown costs, missing grades, checks without a price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from langchain_automix.learning.observations import Observations, observations_of
from langchain_automix.learning.records import AnswerRecord, StoredQuery
from langchain_automix.learning.review import review
from langchain_automix.learning.review_settings import ReviewSettings
from langchain_automix.learning.store.store import LearningStore
from langchain_automix.policy.data.log import RoutingLog
from tests.support.builders.stores import grade, query

VERDICTS = {"verdicts": [True, False], "fixed_cost": 0.0, "sample_cost": 0.0001}
UNPRICED = [
    {"verdicts": [True, False], "fixed_cost": None, "sample_cost": None},
    {"score": 0.5, "cost": None},
]


def row(
    id: str = "q", check: Any = VERDICTS, *, is_graded: bool = True, **fields: Any
) -> StoredQuery:
    """A query of which both models' answers are known."""
    answers = (AnswerRecord(0, 0.001, check), AnswerRecord(1, 0.01))
    grades = [grade(id, 0, 0.0), grade(id, 1, 1.0)] if is_graded else []
    return StoredQuery(query(id, float(len(id)), answers=answers, **fields), grades)


def seen(rows: Sequence[StoredQuery]) -> Observations:
    return observations_of(("small", "large"), rows)


@pytest.mark.parametrize("check", UNPRICED)
def test_a_check_whose_cost_is_unknown_is_not_free(check: dict[str, Any]) -> None:
    found = seen([row(), row("qq", check)])
    assert found.complete.tolist() == [True, False]
    answers = AnswerRecord(0, 0.001, VERDICTS, {"again": check}), AnswerRecord(1, 0.01)
    named = replace(row("qq"), query=query("qq", 2.0, answers=answers))
    assert seen([row(), named]).complete.tolist() == [True, False]


@pytest.mark.parametrize("check", UNPRICED)
def test_a_store_without_prices_is_exported(check: dict[str, Any], tmp_path: Path) -> None:
    store = LearningStore.open(f"sqlite:///{tmp_path}/automix.db")
    store.add([row("qq", check).query])
    assert store.export(tmp_path / "log.jsonl") == 1
    (line,) = RoutingLog.read(tmp_path / "log.jsonl")
    assert line.answers[0].cost is None
    assert line.answers[0].verification is not None


def test_without_any_price_a_review_says_so() -> None:
    found = review(
        seen([row("q" * (i + 1), UNPRICED[0]) for i in range(120)]), (), ReviewSettings(), now=1e6
    )
    assert found.fitted is None
    assert "unknown" in found.next_step
    assert "prices" in found.next_step


def test_without_the_price_of_what_answers_a_review_says_so() -> None:
    """Such queries have no shadow, so that no answer of theirs is graded."""
    unknown = AnswerRecord(1, None)
    rows = [StoredQuery(query(f"{i}", float(i), answers=(unknown,)), []) for i in range(120)]
    assert "give the mix prices" in review(seen(rows), (), ReviewSettings(), now=1e6).next_step


def test_what_is_graded_only_where_it_is_drawn_has_the_chance_of_a_shadow() -> None:
    """A grader that costs something grades a query that asked all models only if it is drawn."""
    rows = [
        row("q" * (i + 1), is_drawn=i % 4 == 0, is_graded=i % 4 == 0, share=0.25) for i in range(40)
    ]
    assert seen(rows).chance.tolist() == pytest.approx([0.25] * 40)


def test_what_is_graded_anyway_is_certain() -> None:
    rows = [row("q" * (i + 1), is_drawn=i % 4 == 0, share=0.25) for i in range(40)]
    assert seen(rows).chance.tolist() == [1.0] * 40
    assert np.isnan(seen([row(is_graded=False)]).columns.quality).all()
