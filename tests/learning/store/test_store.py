"""What is added to a store comes back: once, whole, and in parts as it changes."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langchain_automix import RoutingLog
from langchain_automix.errors import AutoMixError
from langchain_automix.learning.records import (
    AnswerRecord,
    Event,
    GradeRecord,
    QueryRecord,
    Record,
    RequestRecord,
    ShadowRecord,
    StoredQuery,
)
from langchain_automix.learning.store.queries import StoreTotals
from langchain_automix.learning.store.store import LearningStore
from tests.support.builders.stores import grade, query, shadow, version

_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_cost = st.none() | st.floats(0, 1e6)
_number = st.none() | st.integers(0, 2**31 - 1)
_share = st.floats(0, 1)
_check = st.one_of(
    st.fixed_dictionaries(
        {"verdicts": st.lists(st.none() | st.booleans(), min_size=1, max_size=4)},
        optional={"fixed_cost": _share, "sample_cost": _share},
    ),
    st.fixed_dictionaries({"score": _share}, optional={"cost": _share}),
)
_answers = st.lists(
    st.builds(
        AnswerRecord,
        model=st.integers(0, 9),
        cost=_cost,
        verification=st.none() | _check,
        checks=st.dictionaries(_text, _check, max_size=2),
        is_shadow=st.booleans(),
    ),
    max_size=3,
    unique_by=lambda answer: answer.model,
).map(lambda found: tuple(sorted(found, key=lambda answer: answer.model)))
_requests = st.lists(
    st.builds(
        RequestRecord,
        stage=st.sampled_from(["query", "shadow", "grade"]),
        model=st.none() | st.text(max_size=9),
        input_tokens=_number,
        output_tokens=_number,
        cost=_cost,
    ),
    max_size=3,
).map(tuple)
_texts = st.none() | st.dictionaries(_text, st.text(max_size=9), max_size=3)
_queries = st.builds(
    QueryRecord,
    id=st.uuids().map(str),
    at=st.floats(0, 1e10),
    epoch=_text,
    version=st.integers(0, 2**31 - 1),
    stage=st.sampled_from(["observe", "warm-up", "policy"]),
    kept=_number,
    share=_share,
    is_drawn=st.booleans(),
    ending=st.sampled_from(["answered", "abstained", "failed", "left"]),
    cost=_cost,
    alone=_cost,
    answers=_answers,
    requests=_requests,
    run_id=st.none() | _text,
    confidence=st.none() | _share,
    seconds=_cost,
    texts=_texts,
)


def ids(stored: list[StoredQuery]) -> list[str]:
    return [each.query.id for each in stored]


def _joined(asked: Any, shadowed: Any) -> tuple[AnswerRecord, ...]:
    """Return the answers of a query, with the checks that its shadow made of them, and others."""
    by_model = {answer.model: answer for answer in shadowed}
    for answer in asked:
        checked = by_model.get(answer.model, answer)
        by_model[answer.model] = dataclasses.replace(
            answer, verification=checked.verification, checks=checked.checks
        )
    return tuple(by_model[model] for model in sorted(by_model))


class TestRoundTrips:
    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20
    )
    @given(asked=_queries, answers=_answers, requests=_requests, cost=_cost, qualities=st.data())
    def test_a_query_with_its_shadow_and_grades(
        self,
        store: LearningStore,
        asked: QueryRecord,
        answers: Any,
        requests: Any,
        cost: float | None,
        qualities: st.DataObject,
    ) -> None:
        asked = dataclasses.replace(asked, id=uuid4().hex)
        after = store.read(asked.epoch)[1]
        store.add([asked])
        assert store.read(asked.epoch, after)[0] == [StoredQuery(asked)]
        drawn = qualities.draw(st.dictionaries(st.tuples(st.integers(0, 9), _text), _share))
        grades = [GradeRecord(asked.id, m, q, s, 3.0) for (m, s), q in drawn.items()]
        store.add([ShadowRecord(asked.id, 2.0, answers, requests, cost), *grades])
        whole = dataclasses.replace(
            asked, answers=_joined(asked.answers, answers), requests=asked.requests + requests
        )
        found = store.find(id=asked.id)
        assert found is not None
        assert found.query == whole
        assert (found.shadow_cost, found.is_shadowed) == (cost, True)
        assert sorted(found.grades, key=repr) == sorted(grades, key=repr)

    def test_texts_of_a_query_and_of_its_shadow_are_joined(self, store: LearningStore) -> None:
        store.add([query("q", texts={"question": "Who?"}), shadow("q", texts={"1": "Eiffel"})])
        found = store.find(id="q")
        assert found is not None
        assert found.query.texts == {"question": "Who?", "1": "Eiffel"}

    def test_events_in_the_order_of_time(self, store: LearningStore) -> None:
        later = Event(2.0, "e", "alarm", "The confidence fell.", {"by": 0.2, "of": [1, None]})
        earlier = Event(1.0, "e", "fitted", "Version 1 was fitted.")
        other = Event(1.5, "f", "epoch", "A new epoch.")
        store.add([later, earlier, other])
        assert store.events() == [earlier, other, later]
        assert store.events("e") == [earlier, later]
        assert store.events("e", since=2.0) == [later]

    def test_a_run_is_found_by_its_id(self, store: LearningStore) -> None:
        store.add([query("a", run_id="1"), query("b", run_id="2"), query("c", run_id=None)])
        found = store.find(run_id="2")
        assert found is not None
        assert found.query.id == "b"
        assert store.find(run_id="3") is None
        with pytest.raises(AutoMixError, match="run_id or by its id"):
            store.find()

    def test_what_a_check_says_beside_its_findings_is_not_kept(self, store: LearningStore) -> None:
        check = {"score": 0.5, "cost": 0.1, "explanation": "The question asks for a secret."}
        store.add([query("q", answers=[AnswerRecord(0, 0.1, check, {"other": check})])])
        found = store.find(id="q")
        assert found is not None
        kept = {"score": 0.5, "cost": 0.1}
        assert found.query.answers == (AnswerRecord(0, 0.1, kept, {"other": kept}),)


class TestAdding:
    def test_what_is_added_again_is_there_once(self, store: LearningStore) -> None:
        records: list[Record] = [query("q"), shadow("q"), grade("q")]
        records.append(Event(1.0, "e", "alarm", "Drift."))
        store.add(records)
        first, after = store.read("e")
        store.add(records)
        store.add([query("q", 5.0, cost=99.0), shadow("q", cost=99.0)])
        assert store.read("e")[0] == first
        assert store.totals().queries == 1
        assert len(store.events()) == 1
        assert store.read("e", after)[1] > after  # the grade was given anew

    def test_the_latest_grade_of_a_source_counts(self, store: LearningStore) -> None:
        store.add([query("q"), grade("q", quality=0.2, at=5.0), grade("q", quality=0.9, at=4.0)])
        store.add([grade("q", quality=0.7, at=6.0), grade("q", quality=0.5, source="feedback")])
        found = store.find(id="q")
        assert found is not None
        assert {g.source: g.quality for g in found.grades} == {"agreement": 0.7, "feedback": 0.5}

    def test_a_grade_may_come_before_its_query(self, store: LearningStore) -> None:
        store.add([grade("q"), shadow("q")])
        assert store.read("e") == ([], 0)
        store.add([query("q")])
        (found,) = store.read("e")[0]
        assert found.grades == (grade("q"),)
        assert found.is_shadowed

    @pytest.mark.parametrize(
        "wrong",
        [
            grade("b", quality=1.5),
            grade("b", quality=math.nan),
            query("b", at="then"),  # type: ignore[arg-type]
            query("b", cost="a dollar"),
            query("b", kept=2**70),
            query("b", texts={"question": object()}),
            "no record",
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_all_of_a_batch_is_added_or_nothing(self, store: LearningStore, wrong: Any) -> None:
        with pytest.raises((TypeError, ValueError, OverflowError)):
            store.add([query("a"), wrong])
        assert store.read("e") == ([], 0)

    def test_nothing_is_added_without_a_word(self, store: LearningStore) -> None:
        store.add([])
        assert store.totals() == StoreTotals()


class TestReading:
    def test_only_what_has_changed(self, store: LearningStore) -> None:
        store.add([query("a", 1.0), query("b", 2.0), query("x", 2.0, epoch="f")])
        found, after = store.read("e")
        assert ids(found) == ["a", "b"]
        assert store.read("e", after) == ([], after)
        store.add([query("c", 3.0)])
        store.add([grade("a")])
        found, later = store.read("e", after)
        assert ids(found) == ["a", "c"]
        assert store.read("e", later) == ([], later)
        store.add([shadow("b")])
        assert ids(store.read("e", later)[0]) == ["b"]

    def test_the_newest_so_many(self, store: LearningStore) -> None:
        store.add([query(f"q{i}", float(i)) for i in (3, 1, 4, 2)])
        store.add([grade("q1"), grade("q4")])
        found, after = store.read("e", limit=2)
        assert ids(found) == ["q3", "q4"]
        assert [len(each.grades) for each in found] == [0, 1]
        assert store.read("e", after)[0] == []

    def test_the_newest_epoch(self, store: LearningStore) -> None:
        assert store.newest_epoch() is None
        store.add([query("a", 2.0, epoch="new"), query("b", 1.0, epoch="old")])
        assert store.newest_epoch() == "new"


def test_totals(store: LearningStore) -> None:
    store.add([query("a", 1.0, cost=1.0, alone=2.0, stage="observe", is_drawn=False)])
    store.add([query("b", 3.0, cost=0.5, alone=2.0), query("c", 2.0, cost=None, alone=7.0)])
    store.add([shadow("b", cost=0.25), shadow("c", cost=None), shadow("of another"), grade("b")])
    store.add([query("x", 9.0, epoch="f"), grade("b", 1), grade("b", source="feedback")])
    assert store.totals("e") == StoreTotals(
        queries=3,
        by_stage={"observe": 1, "policy": 2},
        drawn=2,
        shadowed=2,
        grades={"agreement": 2, "feedback": 1},
        cost=1.5,
        alone=4.0,
        unpriced=1,
        shadow_cost=0.25,
        unpriced_shadows=1,
        first=1.0,
        last=3.0,
    )
    assert store.totals().queries == 4


class TestPruning:
    def _fill(self, store: LearningStore) -> None:
        now = time.time()
        for i in range(4):
            at = now - 86_400 * i
            store.add([query(f"q{i}", at), shadow(f"q{i}", at), grade(f"q{i}", at=at)])
        store.add_version(version(at=now - 1e6))
        store.add([Event(now - 1e6, "e", "alarm", "Drift.")])

    def test_by_age(self, store: LearningStore) -> None:
        self._fill(store)
        assert store.prune(older_than=timedelta(days=1.5)) == 2
        self._check(store, ["q1", "q0"])

    def test_by_count(self, store: LearningStore) -> None:
        self._fill(store)
        assert store.prune(keep=3) == 1
        self._check(store, ["q2", "q1", "q0"])

    def test_by_both(self, store: LearningStore) -> None:
        self._fill(store)
        assert store.prune(older_than=timedelta(days=2.5), keep=1) == 3
        self._check(store, ["q0"])
        assert store.prune() == 0

    def _check(self, store: LearningStore, kept: list[str]) -> None:
        assert ids(store.read("e")[0]) == kept
        totals = store.totals()
        assert (totals.shadowed, totals.grades) == (len(kept), {"agreement": len(kept)})
        assert len(store.versions()) == len(store.events()) == 1
        for gone in {f"q{i}" for i in range(4)} - set(kept):
            store.add([query(gone, time.time())])  # nothing of its first life is left
            found = store.find(id=gone)
            assert found is not None
            assert not found.grades
            assert not found.is_shadowed

    def test_a_grade_whose_query_is_still_to_come_stays(self, store: LearningStore) -> None:
        store.add([grade("young", at=time.time()), grade("old", at=time.time() - 1e6)])
        store.prune(keep=10)
        store.add([query("young"), query("old")])
        counts = {each.query.id: len(each.grades) for each in store.read("e")[0]}
        assert counts == {"young": 1, "old": 0}


class TestExport:
    def _fill(self, store: LearningStore) -> None:
        check = {"verdicts": [True, None, False], "fixed_cost": 0.1, "sample_cost": 0.2}
        score = {"score": 0.5, "cost": 0.1}
        answers = [AnswerRecord(0, 0.1, check, {"support": score})]
        store.add([query("whole", 2.0, answers=answers), shadow("whole")])
        store.add([grade("whole", 0, 0.0), grade("whole", 1, 1.0)])
        store.add([query("part", 1.0), query("failed", 0.5, answers=(), ending="failed")])

    @pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz", "log.parquet"])
    def test_opens_as_a_routing_log(self, store: LearningStore, tmp_path: Path, name: str) -> None:
        self._fill(store)
        assert store.export(tmp_path / name, models=["small", "large"]) == 2
        log = RoutingLog.read(tmp_path / name)
        assert log.models == ("small", "large")
        assert log.checks == ("first", "support")
        part, whole = log
        assert [a.quality for a in whole.answers] == [0.0, 1.0]
        assert [a.cost for a in whole.answers] == [0.1, 0.01]
        first = whole.answers[0].verification
        assert first is not None
        assert first.verdicts == (True, None, False)
        assert first.total_cost == pytest.approx(0.7)
        assert [a.quality for a in part.answers] == [None, None]
        assert part.answers[1].cost is None
        assert (whole.metadata or {})["share"] == 0.25

    def test_a_version_that_no_policy_could_be_fitted_for_has_no_names(
        self, store: LearningStore, tmp_path: Path
    ) -> None:
        self._fill(store)
        store.add_version(version(policy='{"models": ["small", "large"]}'))
        store.add_version(version(policy="", status="rejected"))
        store.export(tmp_path / "log.jsonl")
        assert RoutingLog.read(tmp_path / "log.jsonl").models == ("small", "large")

    def test_names_come_from_an_event_or_a_policy(
        self, store: LearningStore, tmp_path: Path
    ) -> None:
        self._fill(store)
        path = tmp_path / "log.jsonl"
        names = []
        for step in range(3):
            if step == 1:
                store.add_version(version(policy='{"models": ["p", "q", "r"]}'))
            if step == 2:
                store.add([Event(1.0, "e", "epoch", "Begun.", {"models": ["a", "b"]})])
                store.add_version(version(policy='{"models": "none"}'))
            store.export(path)
            names.append(RoutingLog.read(path).models)
        assert names[0] == ("model 1", "model 2")
        assert names[1] == names[2] == ("p", "q", "r")

    def test_people_count_more_than_agreement(self, store: LearningStore, tmp_path: Path) -> None:
        self._fill(store)
        store.add([grade("whole", 0, 0.75, source="feedback", at=0.5)])
        found = []
        for source in (None, "agreement", "feedback"):
            store.export(tmp_path / "log.jsonl", source=source)
            whole = RoutingLog.read(tmp_path / "log.jsonl")[1]
            found.append([answer.quality for answer in whole.answers])
        assert found == [[0.75, 1.0], [0.0, 1.0], [0.75, None]]

    def test_an_empty_store_says_so(self, store: LearningStore, tmp_path: Path) -> None:
        with pytest.raises(AutoMixError, match="no answered query"):
            store.export(tmp_path / "log.jsonl")
        assert list(itertools.islice(tmp_path.glob("log*"), 1)) == []
