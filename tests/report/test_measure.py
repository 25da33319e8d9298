"""What a report says: figures against brute force, honesty, and texts that hold."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_automix import AutoMixError, POMDPRouter, RoutingLog
from langchain_automix.evaluation.evaluate import evaluate
from langchain_automix.evaluation.router_replay import replay_router
from langchain_automix.policy.bounds import check_prices, perfect_check_utility
from langchain_automix.policy.data.arrays import to_arrays
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.cross_fitting import CrossFit
from langchain_automix.policy.fitting.digest import log_digest, was_fitted_to
from langchain_automix.policy.replay import replay_policy
from langchain_automix.report.contents import Contents, Labels, LoggedDecision
from langchain_automix.report.labels import describe_labels
from langchain_automix.report.measure import measure
from tests.support.builders import synthetic_logs as worlds
from tests.support.builders.synthetic_logs import query

DATA = Path(__file__).parents[3] / "shared" / "data"


def world(n: int, seed: int = 1, sample_cost: float = 0.0) -> RoutingLog:
    """Three verdicts an answer: a fit has a tenth of the states of one with eight."""
    return worlds.world(n, seed, 3, sample_cost)


def noise(n: int, seed: int) -> RoutingLog:
    """A check that tells nothing, and a larger model that is no better."""
    draw = random.Random(seed)

    def flip() -> bool:
        return draw.random() < 0.5

    return RoutingLog(
        [query(i, float(flip()), float(flip()), [flip() for _ in range(3)], 2.0) for i in range(n)]
    )


def known(decisions: tuple[LoggedDecision, ...]) -> list[dict[str, Any]]:
    found = []
    for decision in decisions:
        qualities = [answer.quality or 0.0 for answer in decision.answers]
        asked = [j for j, answer in enumerate(decision.answers) if answer.asked]
        found.append({"qualities": qualities, "asked": asked, "decision": decision})
    return found


@pytest.fixture(scope="module")
def fitted() -> tuple[Policy, RoutingLog, Contents]:
    log = world(100, sample_cost=0.05)
    policy = POMDPRouter.fit(log, cost_weight=0.03).policy
    return policy, log, measure(policy, log)


@pytest.fixture(scope="module")
def held_out() -> tuple[Policy, RoutingLog, Contents]:
    policy = POMDPRouter.fit(world(100, sample_cost=0.05), cost_weight=0.03).policy
    log = world(45, seed=7, sample_cost=0.05)
    return policy, log, measure(policy, log)


def test_held_out_figures_are_those_of_evaluate(
    held_out: tuple[Policy, RoutingLog, Contents],
) -> None:
    policy, log, contents = held_out
    found = evaluate(POMDPRouter(policy=policy), log)
    assert contents.judged == "held out"
    assert (contents.point.quality, contents.point.cost) == (found.quality, found.cost)
    assert contents.point.quality_interval == found.quality_interval
    assert contents.point.escalation_rate == found.escalation_rate
    assert contents.point.verification_samples == found.verification_samples
    assert {p.name for p in contents.baselines} == set(found.baselines)
    for point in contents.baselines:
        other = found.baselines[point.name]
        assert (point.quality, point.cost) == (other.quality, other.cost)
        assert point.utility_difference == other.utility_difference
    outcomes = replay_router(POMDPRouter(policy=policy), log)
    for decision, outcome in zip(contents.decisions, outcomes, strict=True):
        assert decision.model_index == outcome.model_index
        assert decision.cost == pytest.approx(outcome.cost)
        assert sum(len(a.verdicts) for a in decision.answers) == outcome.samples
    json.dumps(contents.to_dict(), allow_nan=False)


def test_the_parts_of_the_cost_make_the_whole(
    fitted: tuple[Policy, RoutingLog, Contents], held_out: tuple[Policy, RoutingLog, Contents]
) -> None:
    for _, _, contents in (fitted, held_out):
        parts = {(p.part, p.model): p.cost for p in contents.cost_split}
        assert sum(parts.values()) == pytest.approx(contents.point.cost)
        assert parts["answers", "small"] == pytest.approx(1)
        drawn = contents.point.verification_samples
        assert drawn is not None
        assert parts["checks", "small"] == pytest.approx(0.05 * drawn)


def test_kinds_by_brute_force(fitted: tuple[Policy, RoutingLog, Contents]) -> None:
    seen = set()
    for found in known(fitted[2].decisions):
        qualities, asked, decision = found["qualities"], found["asked"], found["decision"]
        wanted = set()
        if len(asked) == 2 and decision.quality <= qualities[0]:
            wanted.add("escalated_wrong")
        if asked == [0] and qualities[1] > decision.quality:
            wanted.add("kept_wrong")
        if max(qualities) < 0.5:
            wanted.add("hopeless")
        if asked == [0] and decision.quality >= qualities[1]:
            wanted.add("saved")
        assert set(decision.kinds) == wanted
        seen |= wanted
    assert seen == {"escalated_wrong", "kept_wrong", "hopeless", "saved"}


def test_a_policy_on_its_own_log_is_fitted_anew_without_each_query() -> None:
    """Where the check tells nothing, what was fitted shines on its own log only."""
    flattery = []
    for seed in range(8):
        log = noise(40, seed)
        policy = POMDPRouter.fit(log, cost_weight=0.05).policy
        data = to_arrays(log)
        fair, _ = CrossFit(data, log.store.ids, 0.05).like(policy)
        own = replay_policy(policy, data, log.store.ids)
        flattery.append(own.utility(0.05).mean() - fair.utility(0.05).mean())
    assert np.mean(flattery) > 0.01
    own_words = evaluate(POMDPRouter(policy=policy), log).words
    assert any("flatters" in sentence for sentence in own_words)
    assert not any(
        "flatters" in sentence
        for sentence in evaluate(POMDPRouter(policy=policy), noise(40, 99)).words
    )


def test_the_report_judges_it_so(fitted: tuple[Policy, RoutingLog, Contents]) -> None:
    policy, log, contents = fitted
    assert contents.judged == "cross-fitted"
    outcomes, _ = CrossFit(to_arrays(log), log.store.ids, 0.03).like(policy)
    assert contents.point.quality == outcomes.quality.mean()
    assert [d.cost for d in contents.decisions] == outcomes.cost.tolist()


def test_cross_fitted_outcomes_do_not_see_their_own_query() -> None:
    log = world(60)
    policy = POMDPRouter.fit(log, cost_weight=0.03).policy
    data = to_arrays(log)
    crossed = CrossFit(data, log.store.ids, 0.03)
    outcomes, notes = crossed.like(policy)
    assert not notes
    places = np.concatenate([fold.places for fold in crossed.folds])
    assert sorted(places.tolist()) == list(range(60))
    for fold in crossed.folds:
        assert len(fold.train) + len(fold.held_out) == 60
    at_weight = crossed.at(0.03)
    assert at_weight.cost.tolist() == outcomes.cost.tolist()
    assert at_weight.model.tolist() == outcomes.model.tolist()


def test_a_perfect_check_by_brute_force() -> None:
    """Every rule from what is known of the small answer to what is done, for two models."""
    log = world(45, seed=5, sample_cost=0.1)
    data = to_arrays(log)
    policy = POMDPRouter.fit(log, cost_weight=0.03).policy
    paths = replay_policy(policy, data, log.store.ids).paths
    assert paths is not None
    prices = check_prices(data, paths)
    small, large = data.quality.T
    for price in (float(prices[0]), 0.0, 5.0):
        rules = [
            np.where(np.where(small == 1, right, wrong), large - 0.03 * 10, small)
            - 0.03 * (1 + price)
            for right, wrong in product((False, True), repeat=2)
        ]
        alone = [small - 0.03, large - 0.3]
        best = max(float(rule.mean()) for rule in (*rules, *alone))
        found = perfect_check_utility(data, 0.03, np.array([price, np.nan]))
        assert found == pytest.approx(best)
    contents = measure(policy, log)
    [advice] = [a for a in contents.advice if a.title == "A better verifier"]
    crossed, _ = CrossFit(data, log.store.ids, 0.03).like(policy)
    assert crossed.paths is not None
    best = perfect_check_utility(data, 0.03, check_prices(data, crossed.paths))
    assert advice.gain == pytest.approx(best - crossed.utility(0.03).mean())
    assert "at most" in advice.text


def test_the_frontier_goes_from_cheap_to_good(
    fitted: tuple[Policy, RoutingLog, Contents],
) -> None:
    points = fitted[2].frontier
    assert 4 <= len(points) <= 25
    assert (points[0].name, points[-1].name) == ("always:small", "always:large")
    costs = [p.cost for p in points]
    assert costs == sorted(costs)
    qualities = [p.quality for p in points[:-1]]
    assert qualities == sorted(qualities)
    assert all(p.quality_interval is not None for p in points)
    assert any(p.cost_weight is not None and p.escalation_rate for p in points)


def test_the_digest_is_of_what_is_learned() -> None:
    log = world(30)
    turned = RoutingLog(list(reversed([query.model_dump() for query in log])))
    assert log_digest(turned) == log_digest(log)
    assert log_digest(log[:29]) != log_digest(log)
    records = list(log.records())
    records[3]["answers"][0]["verification"]["verdicts"] = (True,)
    assert log_digest(RoutingLog(records)) != log_digest(log)
    policy = POMDPRouter.fit(log).policy
    assert was_fitted_to(policy, turned)
    assert not was_fitted_to(policy, world(30, seed=2))


def test_a_file_without_a_digest_is_known_by_its_means(tmp_path: Path) -> None:
    log = world(19)
    path = tmp_path / "policy.json"
    POMDPRouter.fit(log).save(path)
    found = json.loads(path.read_text())
    assert found["fit"].pop("log") == log_digest(log)
    path.write_text(json.dumps(found))
    policy = Policy.load(path)
    assert was_fitted_to(policy, log)
    assert not was_fitted_to(policy, world(19, seed=9))
    notes = measure(policy, world(19, seed=9)).notes
    assert any("does not say which log" in note for note in notes)


@pytest.mark.parametrize("goal", [{"max_cost": 1.0}, {"min_quality": 0.9}, {"max_risk": 0.4}])
def test_a_goal_that_a_fold_cannot_reach(goal: dict[str, float]) -> None:
    log = world(60)
    policy = POMDPRouter.fit(log, cost_weight=0.03).policy
    hard = {"max_cost": 0.5, "min_quality": 1.0, "max_risk": 0.001}
    [name] = goal
    asked = {name: hard[name]} if name != "max_risk" else {name: 0.001, "confidence_level": 0.95}
    crossed = CrossFit(to_arrays(log), log.store.ids, 0.03)
    outcomes, notes = crossed.like(policy.model_copy(update={"goal": asked}))
    assert any(f"goal {name} was out of reach on 5" in note for note in notes)
    if name == "max_cost":
        assert outcomes.cost.mean() == pytest.approx(1)


def test_a_policy_of_one_model() -> None:
    log = noise(40, 3)
    policy = POMDPRouter.fit(log, cost_weight=0.5).policy
    contents = measure(policy, log)
    assert "One model alone" in contents.verdict
    assert "small" in contents.verdict
    assert contents.numbers[2].value == "0 %"
    assert "no answer is checked" in contents.numbers[2].detail
    assert {p.part for p in contents.cost_split} == {"answers"}
    assert "50 % less cost than always" in contents.verdict
    best = RoutingLog([query(i, 0.0, 1.0, [True, False]) for i in range(40)])
    large = POMDPRouter.fit(best, cost_weight=0.0).policy
    words = measure(large, best)
    assert "saves nothing" in words.verdict
    assert words.numbers[0].value == "0 %"
    assert words.numbers[1].value == "0.000"


def test_a_limit_on_risk_with_abstentions() -> None:
    log = world(200)
    policy = POMDPRouter.fit(log, cost_weight=0.02, max_risk=0.2, abstain_value=0.6).policy
    contents = measure(policy, world(45, seed=4))
    assert "gives a wrong answer to" in contents.verdict
    assert "the limit of 20 %" in contents.verdict
    if any(d.model_index is None for d in contents.decisions):
        assert contents.numbers[2].label == "Queries answered"
        assert "counts as quality 0" in contents.numbers[1].detail
    assert sum(p.cost for p in contents.cost_split) == pytest.approx(contents.point.cost)


def test_too_small_to_tell() -> None:
    policy = POMDPRouter.fit(world(200), cost_weight=0.03).policy
    contents = measure(policy, world(8, seed=3))
    assert "too small to tell" in contents.verdict
    one = world(1)
    alone = measure(POMDPRouter.fit(one).policy, one)
    assert alone.queries == 1
    assert [a.title for a in alone.advice] == ["A better verifier"]


def labelled(log: RoutingLog, make: Any) -> RoutingLog:
    return RoutingLog([{**record, "metadata": make(i)} for i, record in enumerate(log.records())])


def of(log: RoutingLog) -> Labels:
    return describe_labels([record["metadata"] for record in log.records()], "large")


def test_labels_and_texts_and_foreign_metadata() -> None:
    policy = POMDPRouter.fit(world(200), cost_weight=0.03).policy
    log = world(19, seed=2)

    def full(i: int) -> dict[str, Any]:
        return {
            "labels": "agreement",
            "question": f"q{i}",
            "context": "c",
            "references": ["r"],
            "answers": ["a", "b"],
            "replies": [[f"reply {k}" for k in range(8)], []],
        }

    contents = measure(policy, labelled(log, full))
    assert contents.labels.kind == "agreement"
    assert "cannot tell how often large is wrong" in contents.labels.text
    [advice] = [a for a in contents.advice if a.title == "Another model"]
    assert advice.gain is None
    first = contents.decisions[0]
    assert (first.question, first.context, first.references) == ("q0", "c", ("r",))
    assert [a.text for a in first.answers] == ["a", "b"]
    assert len(first.answers[0].replies) == len(first.answers[0].verdicts)
    corrected = labelled(log, lambda i: {"labels": "corrected", "labelled": i < 7})
    assert "7 labelled queries of 19" in of(corrected).text
    mixed = labelled(log, lambda i: {"labels": "references" if i % 2 else ["what"]})
    assert of(mixed).kind == "mixed"
    assert "accepted answer" in of(labelled(log, lambda _: {"labels": "references"})).text
    odd: list[Any] = [1, {"question": {}}, {"answers": "text"}, {"answers": [None, 3]}]
    shapes: list[Any] = [
        {"replies": odd},
        {"replies": [odd, None]},
        {"references": 5},
        {"labels": {}},
    ]
    foreign = measure(policy, labelled(log, lambda i: [*odd[1:], *shapes][i % 7]))
    assert foreign.labels.kind == "unknown"
    assert all(answer.text is None for d in foreign.decisions for answer in d.answers)


def test_incomplete_queries_are_left_out_and_said() -> None:
    records = list(world(45, seed=4).records())
    for record in records[:5]:
        record["answers"][1]["quality"] = record["answers"][1]["cost"] = None
    policy = POMDPRouter.fit(world(200), cost_weight=0.03).policy
    contents = measure(policy, RoutingLog(records))
    assert (contents.queries, contents.left_out) == (40, 5)
    assert any("5 of the 45 queries were left out" in note for note in contents.notes)


def test_what_cannot_be_measured() -> None:
    policy = POMDPRouter.fit(world(60), cost_weight=0.03).policy
    other = RoutingLog([query(1, 0.0, 1.0, [True])]).select(models=["small"])
    with pytest.raises(AutoMixError, match="same models"):
        measure(policy, other)
    with pytest.raises(AutoMixError, match="cost_weight"):
        measure(policy, world(60), cost_weight=float("nan"))
    empty = [{"id": "1", "answers": [{"model": m, "quality": None} for m in ("small", "large")]}]
    with pytest.raises(AutoMixError, match="nothing to report"):
        measure(policy, RoutingLog(empty))


def test_another_cost_weight_judges_alike(held_out: tuple[Policy, RoutingLog, Contents]) -> None:
    policy, log, contents = held_out
    other = measure(policy, log, cost_weight=0.1)
    assert other.cost_weight == 0.1
    assert (other.point.cost, other.point.quality) == (contents.point.cost, contents.point.quality)
    assert other == measure(policy, log, cost_weight=0.1)


@pytest.mark.skipif(not DATA.exists(), reason="the shared logs are not here")
def test_a_stranger_s_log() -> None:
    log = RoutingLog.read(DATA / "xquad" / "xquad_qwen_log.jsonl.gz")
    fitting, rest = log.split(0.5)
    contents = measure(POMDPRouter.fit(fitting).policy, rest)
    assert contents.queries == len(rest)
    assert all(d.question for d in contents.decisions)
    assert contents.currency == "second"
    assert "second a query" in contents.numbers[0].detail
