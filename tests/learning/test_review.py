"""A review fits when there is enough, promotes what is proven, and goes back from what fails."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import numpy as np
import pytest

from langchain_automix.errors import AutoMixError
from langchain_automix.learning.comparing import Contest
from langchain_automix.learning.events import History
from langchain_automix.learning.observations import Observations
from langchain_automix.learning.records import PolicyVersion
from langchain_automix.learning.review import FIRST_FIT, _Look, review
from langchain_automix.learning.review_result import Review
from langchain_automix.learning.review_settings import ReviewSettings
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.fitting_data import concatenated
from tests.learning.streams import traffic

BY_LOSS = ReviewSettings(max_loss=0.05)
BY_UTILITY = ReviewSettings(max_loss=None, cost_weight=100.0)
GOALS = pytest.mark.parametrize("goal", [BY_LOSS, BY_UTILITY], ids=["loss", "utility"])


def _fitted(observed: Observations, goal: ReviewSettings, number: int = 1) -> PolicyVersion:
    found = review(observed, (), goal, now=float(observed.at[-1]) + 0.5).fitted
    assert found is not None
    assert found.status == "challenger"
    return replace(found, number=number)


def _joined(*parts: Observations) -> Observations:
    columns = functools.reduce(concatenated, [part.columns for part in parts])
    return Observations(
        columns,
        tuple(id for part in parts for id in part.ids),
        np.concatenate([part.at for part in parts]),
        np.concatenate([part.share for part in parts]),
        np.concatenate([part.asked_all for part in parts]),
        np.concatenate([part.own for part in parts if part.own is not None]),
    )


@GOALS
def test_nothing_is_fitted_to_too_little(goal: ReviewSettings) -> None:
    found = review(traffic(FIRST_FIT - 1), (), goal, now=1e6)
    assert found.fitted is None
    assert found.promote is None
    assert found.share == goal.warm_up_share
    assert "1 complete query more" in found.next_step


@GOALS
def test_a_challenger_is_fitted_and_promoted_once_it_is_proven(goal: ReviewSettings) -> None:
    first = traffic(200)
    challenger = _fitted(first, goal)
    observed = _joined(first, traffic(900, seed=1, start=200))
    found = review(observed, [challenger], goal, now=1e6)
    assert found.promote == 1
    assert "shown on" in found.why
    assert found.judged[1]["queries"] == 900  # only what came after it was made


@GOALS
def test_what_is_fitted_counts_at_once(goal: ReviewSettings) -> None:
    """The next fit takes as many again, and a new challenger is worth its shadows."""
    first = traffic(300)
    hopeless = replace(_fitted(traffic(FIRST_FIT), goal), status="rejected", labels=FIRST_FIT)
    found = review(first, [hopeless], goal, now=1e6)
    assert found.fitted is not None
    assert found.fitted.status == "challenger"
    assert found.share == goal.warm_up_share
    assert found.next_step == "The next fit takes 300 complete queries more."


@GOALS
def test_what_it_was_fitted_to_is_no_proof(goal: ReviewSettings) -> None:
    first = traffic(1_000)
    challenger = _fitted(first, goal)
    found = review(first, [challenger], goal, now=1e6)
    assert found.promote is None
    assert found.judged[1]["queries"] == 0


def test_a_check_that_says_nothing_leads_to_no_challenger_or_to_none_that_is_promoted() -> None:
    goal = ReviewSettings(max_loss=0.02)
    first = traffic(200, told=0.0)
    found = review(first, (), goal, now=300.0).fitted
    assert found is not None
    if found.status == "rejected":
        assert found.judged == {"alike": True}
        return
    observed = _joined(first, traffic(900, seed=1, told=0.0, start=200))
    assert review(observed, [replace(found, number=1)], goal, now=1e6).promote is None


@GOALS
def test_ask_leaves_the_step_to_a_person(goal: ReviewSettings) -> None:
    first = traffic(200)
    challenger = _fitted(first, goal)
    observed = _joined(first, traffic(900, seed=1, start=200))
    found = review(observed, [challenger], replace(goal, promote="ask"), now=1e6)
    assert found.promote is None
    assert found.judged[1]["is_shown"] is True


@GOALS
def test_a_champion_that_fails_gives_way_to_the_one_before(goal: ReviewSettings) -> None:
    """The small model gets so much worse that keeping its answers loses."""
    first = traffic(200)
    champion = replace(_fitted(first, goal), status="champion", since=200.5)
    worse = traffic(900, seed=2, right=-8.0, start=200)
    found = review(_joined(first, worse), [champion], goal, now=1e6)
    assert found.back_to == 0
    assert "shown on" in found.why


@GOALS
def test_a_champion_that_holds_stays(goal: ReviewSettings) -> None:
    first = traffic(200)
    champion = replace(_fitted(first, goal), status="champion", since=200.5)
    same = traffic(900, seed=2, start=200, share=0.3)
    found = review(_joined(first, same), [champion], goal, now=1e6)
    assert found.back_to is None
    assert found.share < goal.warm_up_share


def test_after_an_alarm_what_came_before_is_no_evidence() -> None:
    first = traffic(500)
    champion = replace(_fitted(first, BY_LOSS), status="champion", since=500.5)
    later = _joined(first, traffic(50, seed=3, share=0.5, start=500))
    before = review(later, [champion], BY_LOSS, now=1e6)
    after = review(
        later, [champion], BY_LOSS, now=1e6, history=History(500.6, evidence_after=500.6)
    )
    assert after.share > before.share
    assert after.fitted is None
    assert "changed" in after.next_step


def test_a_challenger_from_before_an_alarm_is_given_up() -> None:
    first = traffic(200)
    challenger = replace(_fitted(first, BY_LOSS), number=1)
    later = _joined(first, traffic(20, seed=3, start=200))
    history = History(alarm=215.5, evidence_after=200.5)
    [change] = review(later, [challenger], BY_LOSS, now=1e6, history=history).changes
    assert (change.number, change.status) == (1, "rejected")
    assert "changed" in change.why


def test_what_came_between_a_change_and_its_alarm_is_evidence() -> None:
    first = traffic(500)
    champion = replace(_fitted(first, BY_LOSS), status="champion", since=500.5)
    later = _joined(first, traffic(150, seed=3, start=500))
    history = History(alarm=600.5, evidence_after=500.5)
    found = review(later, [champion], BY_LOSS, now=1e6, history=history)
    assert found.fitted is not None
    assert found.fitted.labels == 150


def test_shadowing_stops_when_more_would_not_change_the_policy() -> None:
    first = traffic(300)
    champion = replace(_fitted(first, BY_LOSS), status="champion", since=300.5)
    soon = review(
        _joined(first, traffic(100, 4, share=0.02, start=300)), [champion], BY_LOSS, now=1
    )
    late = review(
        _joined(first, traffic(900, 4, share=0.02, start=300)), [champion], BY_LOSS, now=1
    )
    assert late.share < soon.share == BY_LOSS.share


def test_queries_without_a_chance_of_a_shadow_are_no_evidence() -> None:
    """What is known of them depends on what was found: escalated ones only."""
    first = traffic(200)
    policy = Policy.model_validate_json(_fitted(first, BY_LOSS).policy)
    blind = traffic(500, seed=5, share=0.0, start=200)
    found = Contest(blind, 0.01).loses_little(policy, None, 0.05, 0.05)
    assert found.queries == 0
    assert not found.is_shown


def test_few_shadows_prove_less_than_many() -> None:
    first = traffic(200)
    policy = Policy.model_validate_json(_fitted(first, BY_UTILITY).policy)
    bounds = [
        Contest(traffic(1_000, 6, share=share, seen=False, start=200), 0.01)
        .gains_utility(policy, None, 100.0, 0.05)
        .bound
        for share in (1.0, 0.3)
    ]
    assert bounds[0] > bounds[1]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"max_loss": None}, "one goal"),
        ({"max_loss": 0.1, "cost_weight": 1.0}, "one goal"),
        ({"max_loss": 1.5}, "max_loss must lie in"),
        ({"share": -0.1}, "share must lie in"),
        ({"confidence": 1.0}, "confidence must be"),
        ({"max_loss": None, "cost_weight": -1.0}, "cost_weight must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, float], says: str) -> None:
    with pytest.raises(AutoMixError, match=says):
        ReviewSettings(**fields)  # type: ignore[arg-type]


def test_a_review_of_nothing_is_a_warm_up() -> None:
    found = review(traffic(0), (), BY_LOSS, now=0.0)
    assert replace(found, changes=()) == Review(share=1.0, next_step=found.next_step)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_shadows_that_come_to_nothing_make_no_difference_to_the_estimate(share: float) -> None:
    """As where their queue is full: it is as if fewer had been drawn."""
    whole = traffic(4_000, 7, share=share, start=200)
    lost = np.random.default_rng(8).random(len(whole)) < 0.5
    quality = np.where(lost[:, None], np.nan, whole.columns.quality)
    partly = replace(whole, columns=replace(whole.columns, quality=quality))
    assert partly.shadowed == pytest.approx(share / 2, rel=0.1)
    policy = Policy.model_validate_json(_fitted(traffic(200), BY_UTILITY).policy)
    gains = [
        Contest(each, 0.01).gains_utility(policy, None, 100.0, 0.05).gain
        for each in (whole, partly)
    ]
    assert gains[1] == pytest.approx(gains[0], abs=0.02)


def test_a_champion_that_is_held_is_never_one_challenger_too_many() -> None:
    made = PolicyVersion(0, "", 1.0, "{}", "challenger", "")
    champion = replace(made, number=1, status="champion", since=1.0)
    later = [replace(made, number=k, at=20.0 + k) for k in range(2, 8)]
    safe = replace(BY_LOSS, on_drift="safe")
    look = _Look(traffic(10), [champion, *later], safe, 100.0, "", History(10.0), None)
    assert look.held is champion
    assert [change.number for change in look._surplus()] == [2, 3]


def test_queries_without_a_chance_of_a_shadow_are_not_fitted_to() -> None:
    """Only what escalates is known of them, where there is no money or the share is 0."""
    blind = replace(
        traffic(300, start=50, share=0.0, seen=False), asked_all=np.ones(300, dtype=bool)
    )
    known = replace(blind, columns=traffic(300, start=50).columns)
    assert known.complete.all()
    found = review(_joined(traffic(50), known), (), BY_LOSS, now=1e6)
    assert found.fitted is None
    assert "50 complete queries more" in found.next_step


def test_where_nothing_costs_anything_nothing_is_shown_to_be_cheaper() -> None:
    free = traffic(300)
    free = replace(free, columns=replace(free.columns, cost=np.zeros((300, 2))))
    policy = Policy.model_validate_json(_fitted(traffic(200), BY_LOSS).policy)
    with np.errstate(divide="raise", invalid="raise"):
        found = Contest(free, 0.0).loses_little(policy, None, 0.9, 0.05)
    assert (found.is_shown, found.saving) == (False, 0.0)


def test_of_two_policies_it_is_unknown_whether_they_go_alike_where_nothing_was_checked() -> None:
    """As in a warm-up: what neither was asked nor drawn says nothing of two that would check."""
    one, two = (
        Policy.model_validate_json(
            _fitted(traffic(400), replace(BY_UTILITY, cost_weight=weight)).policy
        )
        for weight in (50.0, 250.0)
    )
    gains = [
        Contest(traffic(12_000, 9, share=share, seen=False, start=400), 0.01)
        .gains_utility(two, one, 50.0, 0.05)
        .gain
        for share in (1.0, 0.3)
    ]
    assert gains[0] < -0.02
    assert gains[1] == pytest.approx(gains[0], rel=0.1)


def _reviewed(version: PolicyVersion, goal: ReviewSettings, found: Review) -> PolicyVersion:
    """Return a version as the store has it after a review, which knows the first query compared."""
    judged = json.loads(json.dumps(dict(found.judged[version.number])))
    assert (judged["first"], judged["cost_range"] > 0) == (201.0, True)
    return replace(version, judged=judged)


@GOALS
def test_a_challenger_of_which_evidence_is_lost_is_proven_no_more(goal: ReviewSettings) -> None:
    """What goes on without it is another comparison, with a chance of its own to be wrong."""
    first = traffic(200)
    challenger = _fitted(first, goal)
    observed = _joined(first, traffic(900, seed=1, start=200))
    soon = review(observed.rows(np.arange(260)), [challenger], goal, now=1e6)
    challenger = _reviewed(challenger, goal, soon)
    assert review(observed, [challenger], goal, now=1e6).promote == 1
    assert review(observed.rows(np.arange(100, 1_100)), [challenger], goal, now=1e6).promote == 1
    found = review(observed.rows(np.arange(230, 1_100)), [challenger], goal, now=1e6)
    assert found.promote is None
    assert [(change.number, change.status) for change in found.changes] == [(1, "rejected")]


@GOALS
def test_a_champion_of_which_evidence_is_lost_is_watched_anew(goal: ReviewSettings) -> None:
    first = traffic(200)
    champion = replace(_fitted(first, goal), status="champion", since=200.5)
    observed = _joined(first, traffic(900, seed=2, right=-8.0, start=200))
    soon = review(observed.rows(np.arange(210)), [champion], goal, now=1e6)
    champion = _reviewed(champion, goal, soon)
    assert review(observed, [champion], goal, now=1e6).back_to == 0
    short = observed.rows(np.arange(230, 1_100))
    found = review(short, [champion], goal, now=1e6)
    assert (found.back_to, found.renews) == (None, True)
    again = review(short, [champion], goal, now=1e6, history=History(renewed=400.5, terms=2))
    assert (again.back_to, again.renews) == (0, False)
    assert again.judged[1]["queries"] == 700


def test_a_range_that_was_known_at_the_start_holds_when_what_it_is_from_is_gone() -> None:
    observed = _joined(traffic(200), traffic(100, seed=1, start=200))
    before = Contest.since(observed, 200.0)
    record = {"start": 200.0, "cost_range": 0.5}
    assert before.cost_range == pytest.approx(0.0026)
    assert Contest.since(observed, 200.0, record).cost_range == 0.5
    assert Contest.since(observed, 250.0, record).cost_range == before.cost_range


def test_versions_before_the_champion_are_compared_no_more() -> None:
    made = PolicyVersion(0, "", 1.0, "{}", "challenger", "")
    champion = replace(made, number=2, status="champion", since=1.0)
    look = _Look(
        traffic(10), [replace(made, number=1), champion], BY_LOSS, 9.0, "", History(), None
    )
    assert look.challengers == []
    assert [change.number for change in look._surplus()] == [1]
