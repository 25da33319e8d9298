"""What policies are worth on the test splits, against the better single model."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from langchain_automix import RoutingLog
from langchain_automix.policy.data.arrays import LogArrays, to_arrays
from langchain_automix.policy.decision.score_prior import ScorePrior
from langchain_automix.policy.fitting.baselines import Family, best_single, fit_rule, rule_plan
from langchain_automix.policy.fitting.candidates import CandidateFitter, always
from langchain_automix.policy.fitting.selection import select_candidate
from langchain_automix.policy.replay import replay_plan
from tests.benchmarks import released
from tests.benchmarks.prior import score_prior

HALF = 0.5
"""Confidence below which the plainest rule escalates."""

MULTIPLES = (0.3, 0.6, 1.0, 2.0)
"""Cost weights, as multiples of the slope between the end models on the whole train split."""

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


def prior_without(name: str) -> ScorePrior:
    """Return the prior for scores as it would be if a log's benchmark had never been seen."""
    return score_prior(list(splits()), without=name)


def measure_pair(
    train: LogArrays,
    test: LogArrays,
    weights: Sequence[float],
    tally: Tally,
    modules: Any,
    seed: int,
    prior: ScorePrior,
) -> None:
    """Fit every method to a two-model log for each cost weight, and note its test utility."""
    learner = CandidateFitter(train, seed=seed, prior=prior)
    theirs = released.chosen(modules, train, test, list(weights)) if modules else []
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


def measure_without_labels(
    train: LogArrays, test: LogArrays, weights: Sequence[float], tally: Tally, prior: ScorePrior
) -> None:
    """Note the test utility of a policy that knows scores and costs only, and of two plain rules.

    Args:
        train: Its scores and costs are used, its qualities are not.
        test: What is judged on.
        weights: Cost weights.
        tally: Where to note it.
        prior: What a score says.
    """
    unlabelled = replace(train, quality=np.full_like(train.quality, np.nan))
    learner = CandidateFitter(unlabelled, prior=prior)
    names = "no labels: ours", "no labels: threshold 0.5", "no labels: always large"
    for weight in weights:
        singles = test.quality - weight * test.cost
        plan = select_candidate(learner.candidates(weight))[0].plan
        half = rule_plan(test, "half", lambda confidence: confidence < HALF, (HALF,))
        plans = plan, half, always(test.models, 1)
        for name, each in zip(names, plans, strict=True):
            tally.add(name, replay_plan(each, test).utility(weight), singles)


def measure_chain(
    train: LogArrays, test: LogArrays, prior: ScorePrior
) -> list[tuple[float, float, float]]:
    """Return, by cost weight, utility gained by all models, by the best pair, and verdict."""
    learner = CandidateFitter(train, prior=prior)
    of_pairs = {
        (small, large): CandidateFitter(only(train, [small, large]), prior=prior)
        for small in range(len(train.models) - 1)
        for large in range(small + 1, len(train.models))
    }
    found = []
    for multiple in MULTIPLES:
        weight = multiple * slope(train)
        singles = (test.quality - weight * test.cost).mean(axis=0).max()
        whole = select_candidate(learner.candidates(weight))[0].plan
        pairs = []
        for (small, large), own in of_pairs.items():
            plan = select_candidate(own.candidates(weight))[0].plan
            on_train = own.replay(plan).utility(weight).mean()
            pairs.append((on_train, plan, [small, large]))
        _, plan, models = max(pairs, key=lambda pair: pair[0])
        pair = replay_plan(plan, only(test, models)).utility(weight).mean() - singles
        chain = replay_plan(whole, test).utility(weight).mean() - singles
        found.append((multiple, float(chain), float(pair)))
    return found


def against_chosen_single(
    train: LogArrays, test: LogArrays, size: int, times: int, prior: ScorePrior
) -> list[float]:
    """Return what draws of labels lose or gain against the single model chosen on the same labels.

    Each draw has one pair with the last model and one cost weight, in turn.

    Args:
        train: What is drawn from.
        test: What is judged on.
        size: Labels in each draw.
        times: Draws.
        prior: What a score says.
    """
    last, found = len(train.models) - 1, []
    for draw in range(times):
        models = [draw % last, last]
        pair, truth = only(train, models), only(test, models)
        weight = MULTIPLES[draw // last % len(MULTIPLES)] * slope(pair)
        order = np.random.default_rng([draw, size]).permutation(len(pair))
        labels = pair.rows(order[:size])
        learner = CandidateFitter(labels, seed=draw, prior=prior)
        plan = select_candidate(learner.candidates(weight))[0].plan
        own = replay_plan(plan, truth).utility(weight).mean()
        chosen = best_single(labels, weight).models
        places = [truth.models.index(name) for name in chosen]
        single = (truth.quality - weight * truth.cost).mean(axis=0)[places].mean()
        found.append(float(own - single))
    return found
