"""Fits to logs of few labels, or of none: what a score says is a prior, and the traffic decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_automix import RoutingLog
from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.policy.decision.describe import describe_policy
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.baselines import Family
from langchain_automix.policy.fitting.candidates import CandidateFitter
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.fitting_data import concatenated, fitting_data
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.replay import replay_plan
from tests.support.builders.synthetic_logs import scored

MIXED = np.concatenate([np.linspace(0.3, 0.7, 30), np.linspace(0.97, 1.0, 30)])
"""Half of the answers are doubtful, and half are sure."""


def traffic(
    scores: Any, *, labels: int = 0, prices: tuple[float, ...] = (1.0, 10.0), seed: int = 0
) -> LogArrays:
    """Return a log of scores; some first queries have qualities that the scores tell."""
    scores = np.asarray(scores, dtype=np.float64)
    shape = (len(scores), len(prices))
    rng = np.random.default_rng(seed)
    quality = np.full(shape, np.nan)
    chance = np.concatenate([scores[:, None], np.full((shape[0], shape[1] - 1), 0.9)], axis=1)
    quality[:labels] = (rng.random(shape) < chance)[:labels]
    score = np.full(shape, np.nan)
    score[:, 0] = scores
    names = tuple(f"model{j}" for j in range(shape[1]))
    none = np.empty((*shape, 0), dtype=np.int8)
    zeros = np.zeros(shape)
    cost = np.tile(np.array(prices), (shape[0], 1))
    return LogArrays(names, quality, cost, none, score, zeros, zeros, np.ones(shape[0]))


def escalated(policy: Policy, scores: list[float]) -> list[bool]:
    """Return whether the last model answers, for answers of these scores."""
    outcomes = replay_plan(policy.plans[0], replace_quality(traffic(scores)))
    return [model == len(policy.models) - 1 for model in outcomes.model.tolist()]


def replace_quality(columns: LogArrays) -> LogArrays:
    return replace(columns, quality=np.zeros_like(columns.quality))


class TestWithoutLabels:
    def test_doubtful_answers_are_escalated_and_sure_ones_kept(self) -> None:
        policy = fit_policy(traffic(MIXED), Goal(cost_weight=0.026))
        assert escalated(policy, [0.4, 0.995]) == [True, False]
        assert policy.fit.queries == 60

    @pytest.mark.parametrize(("weight", "name"), [(0.2, "model0"), (1e-4, "model1")])
    def test_a_check_that_cannot_matter_is_left_out(self, weight: float, name: str) -> None:
        log = traffic(np.linspace(0.3, 1, 60))
        policy = fit_policy(replace(log, fixed_cost=log.fixed_cost + 0.1), Goal(cost_weight=weight))
        assert policy.plans[0].name == f"always:{name}"

    @pytest.mark.parametrize(("scores", "name"), [((0.97, 1), "model0"), ((0.3, 0.5), "model1")])
    def test_the_opening_follows_the_scores_of_the_traffic(
        self, scores: tuple[float, float], name: str
    ) -> None:
        log = traffic(np.linspace(*scores, 50))
        log = replace(log, fixed_cost=log.fixed_cost + 0.5)
        policy = fit_policy(log, Goal(cost_weight=0.02))
        assert policy.plans[0].name == f"always:{name}"

    def test_the_policy_says_so_and_reads_back(self, tmp_path: Path) -> None:
        policy = fit_policy(traffic(np.linspace(0.3, 1, 60)))
        notes = " ".join(policy.fit.notes)
        assert "prior assumption" in notes
        assert "No query has a quality of every model" in notes
        assert "prior assumption" in describe_policy(policy)
        policy.save(tmp_path / "policy.json")
        assert Policy.load(tmp_path / "policy.json") == policy

    def test_the_order_of_the_rows_and_noise_in_costs_change_nothing(self) -> None:
        log = traffic(np.random.default_rng(0).random(40))
        other = replace(log.rows(np.arange(40)[::-1]), cost=log.cost * (1 + 1e-12))
        goal = Goal(cost_weight=0.03)
        assert fit_policy(log, goal).plans[0].tables == fit_policy(other, goal).plans[0].tables

    def test_of_the_models_between_nothing_is_known(self) -> None:
        log = traffic(np.linspace(0.3, 1, 60), prices=(1.0, 2.0, 10.0))
        for weight in (1e-4, 0.025, 0.2):
            assert 1 not in fit_policy(log, Goal(cost_weight=weight)).plans[0].plays

    @pytest.mark.parametrize(
        ("goal", "family", "says"),
        [
            (Goal(min_quality=0.8), "automix", "min_quality needs queries"),
            (Goal(max_loss=0.01), "automix", "max_loss needs queries"),
            (Goal(max_risk=0.2), "automix", "max_risk needs queries"),
            (Goal(), "threshold", "The rules of the family 'threshold' need queries"),
        ],
    )
    def test_what_promises_a_quality_is_refused(
        self, goal: Goal, family: Family, says: str
    ) -> None:
        with pytest.raises(AutoMixError, match=says):
            fit_policy(traffic(np.linspace(0.3, 1, 60)), goal, family=family)

    def test_a_budget_is_met(self) -> None:
        log = traffic(np.linspace(0.3, 1, 60))
        policy = fit_policy(log, Goal(max_cost=4.0))
        shares = (policy.first_share, 1 - policy.first_share)
        costs = [replay_plan(plan, replace_quality(log)).cost.mean() for plan in policy.plans]
        assert sum(s * c for s, c in zip(shares, costs, strict=False)) == pytest.approx(4.0)

    def test_an_unknown_price_is_an_error(self) -> None:
        log = traffic(np.linspace(0.3, 1, 60))
        cost = log.cost.copy()
        cost[:, 1] = np.nan
        with pytest.raises(AutoMixError, match="none that says what an answer of model1 costs"):
            fit_policy(replace(log, cost=cost))
        cost[0, 1] = 10.0
        known = fit_policy(replace(log, cost=cost), Goal(cost_weight=0.025))
        assert known.plans == fit_policy(log, Goal(cost_weight=0.025)).plans

    def test_without_a_check_there_is_nothing_to_fit(self) -> None:
        log = traffic(np.linspace(0.3, 1, 60))
        with pytest.raises(AutoMixError, match="no check of an answer of model0"):
            fit_policy(replace(log, score=np.full_like(log.score, np.nan)))

    def test_a_log_in_a_file_will_do(self) -> None:
        rows: list[dict[str, Any]] = [
            {
                "id": str(i),
                "answers": [
                    {
                        "model": "small",
                        "quality": None,
                        "cost": 1.0,
                        "verification": {"score": score, "cost": 0.0},
                    },
                    {"model": "large", "quality": None, "cost": 10.0 if i == 0 else None},
                ],
            }
            for i, score in enumerate(MIXED.tolist())
        ]
        assert fit_policy(RoutingLog(rows)).plans[0].tables

    def test_verdicts_serve_by_their_share_of_accepts(self) -> None:
        log = traffic(np.full(90, np.nan))
        verdicts = np.full((90, 2, 8), -2, dtype=np.int8)
        verdicts[:, 0] = np.arange(8) < np.where(np.arange(90) < 45, np.arange(90) % 9, 8)[:, None]
        policy = fit_policy(replace(log, verdicts=verdicts), Goal(cost_weight=0.03))
        outcomes = replay_plan(
            policy.plans[0], replace_quality(replace(log, verdicts=verdicts)).rows(np.arange(9))
        )
        assert outcomes.model.tolist() == sorted(outcomes.model.tolist(), reverse=True)
        assert set(outcomes.model.tolist()) == {0, 1}


class TestFewLabels:
    def test_queries_without_labels_decide_the_opening(self) -> None:
        few = traffic(np.linspace(0.5, 1, 10), labels=10)
        found = []
        for scores in (np.linspace(0.985, 1, 90), np.linspace(0.3, 0.6, 90)):
            log = concatenated(few, traffic(scores))
            log = replace(log, fixed_cost=np.full((100, 2), 0.5))
            found.append(fit_policy(log, Goal(cost_weight=0.02)))
        assert [policy.plans[0].name for policy in found] == ["always:model0", "always:model1"]
        assert any("90 queries without a quality" in note for note in found[0].fit.notes)
        assert found[0].fit.queries == 10

    def test_a_single_label_gives_a_policy(self) -> None:
        policy = fit_policy(traffic(MIXED[::-1], labels=1), Goal(cost_weight=0.026))
        assert escalated(policy, [0.4, 0.995]) == [True, False]

    def test_costs_are_those_of_the_labelled_queries(self) -> None:
        log = traffic(np.linspace(0.3, 1, 60), labels=30)
        cost = log.cost.copy()
        cost[30:] = np.nan
        cost[30:, 0] = 7.0
        data = fitting_data(replace(log, cost=cost))
        assert data.queries.mean(data.queries.cost) == pytest.approx([1.0, 10.0])

    def test_a_part_of_the_labels_of_a_query_is_not_read(self) -> None:
        log = traffic(np.linspace(0.3, 1, 60), labels=60)
        quality = log.quality.copy()
        quality[40:, 1] = np.nan
        half = CandidateFitter(replace(log, quality=quality))
        quality[40:] = np.nan
        none = CandidateFitter(replace(log, quality=quality))
        assert half.labels == none.labels == 40
        assert half.level == pytest.approx(none.level)

    @pytest.mark.parametrize("world", ["inverted", "chance", "lenient"])
    def test_many_labels_overrule_a_prior_that_is_wrong_here(self, world: str) -> None:
        log, truth = scored(world, 1_500, 1), scored(world, 20_000, 2)
        worth = [
            replay_plan(fit_policy(log, Goal(cost_weight=weight)).plans[0], truth)
            .utility(weight)
            .mean()
            - (truth.quality - weight * truth.cost).mean(axis=0).max()
            for weight in (0.02, 0.05)
        ]
        assert min(worth) > -0.005

    def test_levels_are_the_means_of_many_labels(self) -> None:
        log = scored("monotone", 5_000, 3)
        assert CandidateFitter(log).level == pytest.approx(log.quality.mean(axis=0), abs=0.003)

    def test_a_policy_with_labels_says_how_much_is_prior(self) -> None:
        policy = fit_policy(traffic(np.linspace(0.3, 1, 60), labels=60))
        [note] = [note for note in policy.fit.notes if "prior assumption" in note]
        assert "60 labelled queries" in note
        assert "17%" in note
