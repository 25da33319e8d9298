"""A fit does not depend on the last bits of a sum: ties, and logs that are the same log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from langchain_automix.policy.data.arrays import CheckArrays, LogArrays, to_arrays
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.baselines import best_single, fit_rule
from langchain_automix.policy.fitting.fit import fit_policy, indifferent_weight
from langchain_automix.policy.fitting.frontier import FrontierPoint, frontier
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.pomdp.backward_induction import Action, by_simplicity
from langchain_automix.policy.pomdp.observation_model import CheckAction
from langchain_automix.policy.ties import exceeds, first_best, tied_best
from tests.support.builders.synthetic_logs import scored, world

NOISE = 1 + 1e-12
KINDS = ("free verdicts", "paid verdicts", "a score", "three models", "two checks")


def log_of(kind: str, seed: int) -> LogArrays:
    """Draw a small log of a kind."""
    n = 60 + 5 * (seed % 5)
    if kind == "a score":
        return scored(("monotone", "chance", "lenient")[seed % 3], n, seed)
    arrays = to_arrays(world(n, seed, k=4, sample_cost=0.0 if kind == "free verdicts" else 0.02))
    rng = np.random.default_rng(seed)
    if kind == "three models":
        middle = np.maximum(arrays.quality[:, 0], rng.random(n) < 0.5)
        columns = {
            name: np.insert(getattr(arrays, name), 1, getattr(arrays, name)[:, 0], axis=1)
            for name in ("verdicts", "score", "fixed_cost", "sample_cost")
        }
        quality = np.insert(arrays.quality, 1, middle, axis=1)
        cost = np.insert(arrays.cost, 1, 3.0, axis=1)
        models = ("small", "middle", "large")
        return replace(arrays, models=models, quality=quality, cost=cost, **columns)
    if kind == "two checks":
        sure = scored("monotone", n, seed)
        check = replace(sure, quality=arrays.quality)
        names = ("verdicts", "score", "fixed_cost", "sample_cost")
        return replace(check, checks={"votes": _check(arrays, names)})
    return arrays


def _check(arrays: LogArrays, names: tuple[str, ...]) -> CheckArrays:
    return CheckArrays(*(getattr(arrays, name) for name in names))


def scaled(columns: LogArrays, factor: float) -> LogArrays:
    """Return a log whose costs are all multiplied."""
    names = ("cost", "fixed_cost", "sample_cost")
    return replace(
        columns,
        **{name: getattr(columns, name) * factor for name in names},
        checks={
            key: replace(
                check, fixed_cost=check.fixed_cost * factor, sample_cost=check.sample_cost * factor
            )
            for key, check in columns.checks.items()
        },
    )


def steps(policy: Policy) -> Any:
    """Return all that a policy does, without the figures that stand beside."""
    return [
        (
            plan.name,
            plan.opening,
            plan.plays,
            [
                (table.model, table.edges, [(row.seen, row.step) for row in table.rows])
                for table in plan.tables
            ],
        )
        for plan in policy.plans
    ]


class TestTheSameLog:
    @pytest.mark.parametrize("seed", range(10))
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_order_of_rows_and_noise_in_costs_change_no_plan(
        self, kind: str, seed: int
    ) -> None:
        columns = log_of(kind, seed)
        order = np.random.default_rng(seed + 99).permutation(len(columns))
        plan = steps(fit_policy(columns))
        assert steps(fit_policy(columns.rows(order))) == plan
        assert steps(fit_policy(scaled(columns, NOISE))) == plan

    @pytest.mark.parametrize("seed", range(3))
    def test_nor_do_they_with_a_budget(self, seed: int) -> None:
        columns = log_of("free verdicts", seed)
        order = np.random.default_rng(seed).permutation(len(columns))
        goal = Goal(max_cost=5.0)
        plan = steps(fit_policy(columns, goal, foretell=False))
        assert steps(fit_policy(columns.rows(order), goal, foretell=False)) == plan
        assert steps(fit_policy(scaled(columns, NOISE), goal, foretell=False)) == plan

    def test_rows_in_their_canonical_order_are_the_same_rows(self) -> None:
        columns = log_of("two checks", 1)
        order = np.random.default_rng(0).permutation(len(columns))
        one, other = columns.canonical, columns.rows(order).canonical
        for name in ("quality", "cost", "score", "verdicts", "weight"):
            assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
        for name in ("verdicts", "score"):
            assert np.array_equal(
                getattr(one.checks["votes"], name),
                getattr(other.checks["votes"], name),
                equal_nan=name == "score",
            )
        assert sorted(one.score[:, 0]) == sorted(columns.score[:, 0])


class TestSimplicity:
    def test_free_verdicts_are_drawn_one_by_one(self) -> None:
        """Drawing one and then deciding is worth as much as drawing several: a tie."""
        [plan] = fit_policy(to_arrays(world(200))).plans
        assert plan.opening.samples == 1
        assert {row.step.samples for table in plan.tables for row in table.rows} <= {None, 0, 1}

    def test_fewer_verdicts_come_first_and_then_fewer_models(self) -> None:
        def draw(samples: int | None) -> CheckAction:
            return CheckAction(samples, 0.0, np.array([0]), np.array([[1]]), np.ones(1))

        actions = [
            Action("escalate", 1, draw(2)),
            Action("escalate", 1, draw(1)),
            Action("verify", 0, draw(2)),
            Action("verify", 0, draw(None)),
            Action("escalate", 1),
            Action("answer"),
        ]
        assert by_simplicity(actions) == [5, 4, 3, 1, 2, 0]

    def test_tied_singles_are_decided_for_the_cheaper(self) -> None:
        for seed in range(20):
            columns = scored("chance", 41, seed)
            weight = indifferent_weight(columns)
            assert weight > 0
            for factor in (1.0, 1 - 1e-13, 1 + 1e-13):
                rule = fit_rule(columns, weight * factor, "always")
                assert rule.name == "always:small"

    def test_tied_singles_are_averaged(self) -> None:
        columns = scored("chance", 41, 3)
        weight = indifferent_weight(columns)
        best = best_single(columns, weight)
        assert best.models == ("small", "large")
        assert best.name == "small or large"
        utility = columns.quality - weight * columns.cost
        assert best.utility == pytest.approx(utility.mean(axis=1))
        assert best_single(columns, weight * 1.01).models == ("small",)
        assert best_single(columns, weight * 0.99).models == ("large",)

    def test_of_points_that_are_tied_the_first_is_on_the_frontier(self) -> None:
        [plan] = fit_policy(scored("chance", 41, 3), Goal(cost_weight=1.0)).plans
        low = FrontierPoint(1.0, 0.5, plan, 9.0)
        first = FrontierPoint(2.0, 0.8, plan, 1.0)
        second = FrontierPoint(2.0, 0.8 + 1e-16, plan, 2.0)
        assert frontier([low, first, second]) == [low, first]
        assert frontier([low, second, first]) == [low, second]


class TestTies:
    def test_rounding_is_a_tie_and_a_difference_is_not(self) -> None:
        assert tied_best([0.3, 0.1 + 0.2, 0.2]).tolist() == [0, 1]
        assert first_best([0.0, 1.0, 1.0 + 1e-13]) == 1
        assert first_best([0.0, 1.0, 1.0 + 1e-6]) == 2
        assert first_best([-1e9, -1e9 + 1e-3]) == 0
        assert not exceeds(1.0 + 1e-13, 1.0)
        assert exceeds(1.0 + 1e-6, 1.0)
