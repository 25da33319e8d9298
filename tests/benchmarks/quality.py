"""What policies are worth on the test splits, against the better single model."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from langchain_automix import RoutingLog
from langchain_automix.policy.data.arrays import LogArrays, to_arrays
from langchain_automix.policy.fitting.baselines import Family, fit_rule
from langchain_automix.policy.fitting.candidates import CandidateFitter, select_candidate
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.replay import replay_plan
from tests.benchmarks import released

MULTIPLES = (0.3, 0.6, 1.0, 2.0)
"""Cost weights, as multiples of the slope between the end models on the training queries."""

RULES: tuple[Family, ...] = ("always", "threshold", "double_threshold", "released")
NAMED = {"always": "best single on train", "released": "released rule, rewritten"}


def data_folder() -> Path:
    """Return where the logs are: `DATA`, or the folder beside the project."""
    default = Path(__file__).parents[3] / "shared" / "data" / "routing_logs"
    return Path(os.environ.get("DATA", default))


def splits() -> Iterator[tuple[str, LogArrays, LogArrays]]:
    """Yield each log's name, its train and its test split."""
    for path in sorted(data_folder().glob("*.train.jsonl.gz")):
        name = path.name.removesuffix(".train.jsonl.gz")
        test = path.with_name(f"{name}.test.jsonl.gz")
        train, held_out = (to_arrays(RoutingLog.read(p)) for p in (path, test))
        yield name, train, held_out


def only(columns: LogArrays, models: list[int]) -> LogArrays:
    """Return a log with some of its models."""
    names = ("quality", "cost", "verdicts", "score", "fixed_cost", "sample_cost")
    picked: dict[str, Any] = {name: getattr(columns, name)[:, models] for name in names}
    return replace(columns, models=tuple(columns.models[j] for j in models), **picked)


def slope(columns: LogArrays) -> float:
    """Return the quality that a unit of cost buys between the first and the last model."""
    quality, cost = columns.quality.mean(axis=0), columns.cost.mean(axis=0)
    return max(0.0, float((quality[-1] - quality[0]) / (cost[-1] - cost[0])))


def draws(columns: LogArrays, size: int | None, seeds: int) -> list[LogArrays]:
    """Return training sets: the whole split, or random parts of it."""
    if size is None:
        return [columns]
    return [
        columns.rows(np.random.default_rng(seed).permutation(len(columns))[:size])
        for seed in range(seeds)
    ]


@dataclass
class Tally:
    """Differences in utility to the better single model, query by query."""

    gains: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    samples: list[float] = field(default_factory=list)

    def add(self, method: str, utility: Any, singles: Any) -> None:
        """Note one fit; `singles` is (n, models), of which the best in hindsight counts."""
        self.gains[method].append(utility - singles[:, singles.mean(axis=0).argmax()])

    def summary(self, method: str) -> tuple[float, float]:
        """Return the mean gain and half the width of its 95 % interval over test queries."""
        per_query = np.mean(self.gains[method], axis=0)
        return float(per_query.mean()), float(1.96 * per_query.std() / np.sqrt(len(per_query)))


def measure_pair(train: LogArrays, test: LogArrays, tally: Tally, modules: Any, seed: int) -> None:
    """Fit every method to a two-model log for each cost weight, and note its test utility."""
    weights = [multiple * slope(train) for multiple in MULTIPLES]
    learner = CandidateFitter(train, seed=seed)
    theirs = released.chosen(modules, train, test, weights) if modules else []
    for place, weight in enumerate(weights):
        singles = test.quality - weight * test.cost
        outcomes = replay_plan(select_candidate(learner.candidates(weight))[0].plan, test)
        tally.add("ours", outcomes.utility(weight), singles)
        tally.samples.append(float(outcomes.samples.mean()))
        for family in RULES:
            plan = fit_rule(learner.columns, weight, family).plan
            utility = replay_plan(plan, test).utility(weight)
            tally.add(NAMED.get(family, family), utility, singles)
        if modules:
            tally.add("automix-llm 1.0.3", theirs[place], singles)


def measure_chain(train: LogArrays, test: LogArrays) -> list[tuple[float, float, float]]:
    """Return, by cost weight, utility gained by all models, by the best pair, and verdict."""
    found = []
    for multiple in MULTIPLES:
        weight = multiple * slope(train)
        singles = (test.quality - weight * test.cost).mean(axis=0).max()
        whole = fit_policy(train, Goal(cost_weight=weight)).plans[0]
        pairs = []
        for small in range(len(train.models) - 1):
            for large in range(small + 1, len(train.models)):
                plan = fit_policy(only(train, [small, large]), Goal(cost_weight=weight)).plans[0]
                on_train = replay_plan(plan, only(train, [small, large])).utility(weight).mean()
                pairs.append((on_train, plan, [small, large]))
        _, plan, models = max(pairs, key=lambda pair: pair[0])
        pair = replay_plan(plan, only(test, models)).utility(weight).mean() - singles
        chain = replay_plan(whole, test).utility(weight).mean() - singles
        found.append((multiple, float(chain), float(pair)))
    return found
