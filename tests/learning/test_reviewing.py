"""Reviews of a store, by whichever process comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from langchain_automix.learning import reviewing
from langchain_automix.learning.events import History
from langchain_automix.learning.records import AnswerRecord, Event
from langchain_automix.learning.review_settings import ReviewSettings
from langchain_automix.learning.reviewing import Reviewer, _most_often
from langchain_automix.learning.store.store import LearningStore
from langchain_automix.learning.traffic import Traffic, look, read_traffic
from langchain_automix.utils.default_checks import AGREEMENT, ZERO_SHOT
from langchain_automix.verifiers.default import DefaultVerifier
from tests.support.builders.stores import grade, query

VERDICTS = {"verdicts": [True, False], "fixed_cost": 0.0, "sample_cost": 0.00001}


def add(store: LearningStore, check: str, numbers: range, since: float = 0.0) -> None:
    """Add queries of which all is known, by one of the checks among which a mix chooses."""
    records: list[Any] = []
    for i in numbers:
        is_right = i % 3 > 0
        found: dict[str, Any] = {**VERDICTS, "verdicts": [is_right, is_right]}
        answers = AnswerRecord(0, 0.0001, checks={check: found}), AnswerRecord(1, 0.01)
        name = f"q{i}"
        records += [
            query(name, since + i, share=1.0, stage="warm-up", answers=answers),
            grade(name, 0, float(is_right)),
            grade(name, 1, 1.0),
        ]
    store.add(records)


def traffic_of(store: LearningStore, reviewer: Reviewer) -> Traffic:
    """Return the traffic as the status reads it, which goes by what a mix has told the store."""
    store.add([Event(0.0, "e", "epoch", "It began.", reviewer.to_detail())])
    return read_traffic(store, "e")


def test_versions_are_judged_by_the_check_that_they_were_fitted_to(tmp_path: Path) -> None:
    """Of a mix without a check of its own, another one may be made more often later on."""
    store = LearningStore.open(f"sqlite:///{tmp_path}/automix.db")
    checks = DefaultVerifier().specs()
    settings = ReviewSettings(max_loss=0.1)
    reviewer = Reviewer("e", ("small", "large"), settings, None, checks)
    add(store, AGREEMENT, range(120))
    reviewer.run(store, is_due=True)
    (version,) = store.versions("e")
    assert version.status == "challenger"
    assert checks[AGREEMENT].fingerprint in version.policy
    reviewer.run(store, is_due=True)
    assert store.versions("e")[0].status == "challenger"
    add(store, ZERO_SHOT, range(120, 720), since=version.at)
    assert look(traffic_of(store, reviewer), settings).promote is None
    reviewer.run(store, is_due=True)
    stale, later = store.versions("e")
    assert (stale.status, stale.why) == (
        "rejected",
        "It goes by a check that is no longer the one made most often.",
    )
    assert checks[ZERO_SHOT].fingerprint in later.policy
    assert later.labels == 600


def test_a_champion_is_judged_by_its_own_check(tmp_path: Path) -> None:
    store = LearningStore.open(f"sqlite:///{tmp_path}/automix.db")
    checks = DefaultVerifier().specs()
    reviewer = Reviewer("e", ("small", "large"), ReviewSettings(max_loss=0.1), None, checks)
    add(store, AGREEMENT, range(120))
    reviewer.run(store, is_due=True)
    store.promote(1, "It is proven.")
    since = store.versions("e")[0].since or 0.0
    add(store, ZERO_SHOT, range(120, 420), since=since)
    add(store, AGREEMENT, range(420, 520), since=since)
    traffic = traffic_of(store, reviewer)
    found = look(traffic, ReviewSettings(max_loss=0.1))
    assert _most_often(traffic.stored, checks) == ZERO_SHOT
    assert traffic.leading == AGREEMENT
    assert (found.judged[1]["queries"], found.judged[1]["seen"]) == (400, 100)


def test_a_store_without_a_query_is_not_reviewed(tmp_path: Path) -> None:
    store = LearningStore.open(f"sqlite:///{tmp_path}/automix.db")
    assert Reviewer("e", ("small", "large"), ReviewSettings()).run(store, is_due=True) is None


@pytest.mark.parametrize("ending", ["failed", "left"])
def test_a_store_without_an_answered_query_is_reviewed(tmp_path: Path, ending: Any) -> None:
    store = LearningStore.open(f"sqlite:///{tmp_path}/automix.db")
    store.add([query(ending=ending, answers=())])
    found = Reviewer("e", ("small", "large"), ReviewSettings()).run(store, is_due=True)
    assert found is not None
    assert found.share == 1.0
    assert "100 complete queries more" in found.next_step


def test_a_champion_that_decides_for_longer_than_is_read_is_watched_in_terms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each term has its own chance of a wrong step; all together stay within what is allowed."""
    monkeypatch.setattr(reviewing, "_WINDOW", 200)
    store = LearningStore.open(f"sqlite:///{tmp_path}/automix.db")
    checks = DefaultVerifier().specs()
    reviewer = Reviewer("e", ("small", "large"), ReviewSettings(max_loss=0.4), None, checks)
    add(store, AGREEMENT, range(120))
    reviewer.run(store, is_due=True)
    store.promote(1, "It is proven.")
    since = store.versions("e")[0].since or 0.0
    terms = []
    for start in range(120, 520, 100):
        add(store, AGREEMENT, range(start, start + 100), since=since)
        reviewer.run(store, is_due=True)
        terms.append(History.of(store.events("e")).terms)
    assert terms[:2] == [1, 1]
    assert 2 <= terms[-1] < 4
    assert "renewed" in {event.kind for event in store.events("e")}
