"""What to expect of a fit: never by the very queries that it has seen."""

from __future__ import annotations

import pytest

from langchain_automix import POMDPRouter, RoutingLog
from langchain_automix.evaluation.evaluate import evaluate
from langchain_automix.evaluation.headline import build_headline
from langchain_automix.evaluation.outlook import expect
from langchain_automix.policy.data.arrays import to_arrays
from langchain_automix.policy.data.records import LoggedQuery
from langchain_automix.policy.replay import replay_policy
from tests.support.builders.synthetic_logs import world


def test_on_the_log_of_the_fit_the_first_lines_are_cross_fitted() -> None:
    log = world(80, k=2)
    # Two plans are mixed, in other shares without each fold: there the figures do differ.
    router = POMDPRouter.fit(log, max_cost=5.0)
    found, expected = evaluate(router, log), expect(router.policy, log)
    assert expected is not None
    assert (found.headline, found.recommendation) == (expected.headline, expected.recommendation)
    data = to_arrays(log)
    replayed = replay_policy(router.policy, data, log.store.ids)
    assert found.headline != build_headline(replayed, data, router.policy)
    assert any("cross-fitted" in sentence for sentence in found.words)
    first, _, second, *_ = str(found).splitlines()
    assert first == str(found.recommendation)
    assert second == found.headline.describe()  # type: ignore[union-attr]


def test_on_another_log_they_are_of_the_policy_itself() -> None:
    router, log = POMDPRouter.fit(world(80, k=2), cost_weight=0.03), world(60, seed=5, k=2)
    data = to_arrays(log)
    replayed = replay_policy(router.policy, data, log.store.ids)
    assert evaluate(router, log).headline == build_headline(replayed, data, router.policy)


def test_too_few_to_hold_anything_out() -> None:
    policy = POMDPRouter.fit(world(80, k=2), cost_weight=0.03).policy
    assert expect(policy, world(1, k=2)) is None
    few = expect(policy, world(8, k=2))
    assert few is not None
    assert few.recommendation.action == "label"


@pytest.mark.parametrize("queries", [30, 200])
def test_where_all_answers_are_right_it_is_the_cheapest_model(queries: int) -> None:
    # No goal: the folds' own cost weights, at which single models tie, and not that of the whole.
    check = {"verdicts": [True] * 4, "fixed_cost": 0.1, "sample_cost": 0.05}
    rows = [
        {
            "id": f"q{i}",
            "answers": [
                {"model": "small", "quality": 1.0, "cost": 1.0, "verification": check},
                {"model": "large", "quality": 1.0, "cost": 5.0},
            ],
        }
        for i in range(queries)
    ]
    log = RoutingLog(LoggedQuery.model_validate(row) for row in rows)
    router = POMDPRouter.fit(log)
    headline = evaluate(router, log).headline
    assert headline is not None
    assert headline.cost == pytest.approx(1.0)
