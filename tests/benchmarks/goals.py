"""How often a target in quality is met, with and without a confidence, and what that costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from langchain_automix.errors import OutOfReachError
from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.replay import replay_plan
from langchain_automix.policy.statistics import wilson_interval
from tests.support.builders.synthetic_logs import WORLDS, scored, unchecked

MAX_LOSS = 0.02
CONFIDENCES = (None, 0.8, 0.9)
EXAMPLES = (150, 500)
LEAST_RATIO = 3.0
"""Price ratio of the pairs of models from the logs; below it a cascade hardly pays."""

HEADS = (
    "confidence",
    "fits",
    "error: too few examples",
    "one model alone",
    "target met",
    "mean loss",
    "cost, of the best single model's",
)

Row = tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """What one fit came to on queries that it had not seen."""

    loss: float
    """Quality below the best single model's, the best on those queries."""

    cost: float
    """Mean cost, in that model's."""

    alone: bool
    """Whether one model answers every query, unchecked."""


def judge(policy: Policy, truth: LogArrays) -> Run:
    """Send queries through a policy, of two plans each weighed by its share."""
    quality, cost = truth.quality.mean(axis=0), truth.cost.mean(axis=0)
    best = int(quality.argmax())
    shares = (policy.first_share, 1 - policy.first_share)
    outcomes = [replay_plan(plan, truth) for plan in policy.plans]
    own = [
        sum(s * getattr(o, name).mean() for s, o in zip(shares, outcomes, strict=False))
        for name in ("quality", "cost")
    ]
    alone = len(policy.plans) == 1 and not policy.plans[0].tables
    return Run(float(quality[best] - own[0]), float(own[1] / cost[best]), alone)


def runs(train: LogArrays, truth: LogArrays, found: dict[float | None, list[Run | None]]) -> None:
    """Fit for the target at each confidence, and add what came of it; None for an error."""
    for confidence in CONFIDENCES:
        goal = Goal(max_loss=MAX_LOSS, confidence=confidence)
        try:
            found[confidence].append(judge(fit_policy(train, goal, foretell=False), truth))
        except OutOfReachError:
            found[confidence].append(None)


def rows(found: dict[float | None, list[Run | None]]) -> Iterator[Row]:
    """Yield a line for each confidence."""
    for confidence, all_runs in found.items():
        kept = [run for run in all_runs if run is not None]
        losses = np.array([run.loss for run in kept])
        met = float((losses <= MAX_LOSS + 1e-9).mean())
        low, high = wilson_interval(met, len(kept))
        yield (
            "none" if confidence is None else f"{confidence:g}",
            str(len(all_runs)),
            f"{1 - len(kept) / len(all_runs):.0%}",
            f"{np.mean([run.alone for run in kept]):.0%}",
            f"{met:.0%} ({low:.0%} to {high:.0%})",
            f"{losses.mean():+.4f}",
            f"{np.mean([run.cost for run in kept]):.1%}",
        )


def worlds(seeds: int) -> Iterator[tuple[str, list[Row]]]:
    """Yield a table for each synthetic world; the truth is another 20,000 queries."""
    made: dict[str, Callable[[int, int], LogArrays]] = {
        name: lambda n, seed, name=name: scored(name, n, seed)  # type: ignore[misc]
        for name in WORLDS
    }
    made["no check, 0.60, 0.88 and 0.90 right"] = lambda n, s: unchecked((0.6, 0.88, 0.9), n, s)
    for name, draw in made.items():
        truth = draw(20_000, 10**6)
        for n in EXAMPLES:
            found: Any = defaultdict(list)
            for seed in range(seeds):
                runs(draw(n, seed), truth, found)
            yield f"{name}, {n} examples", list(rows(found))


def pairs(columns: LogArrays) -> Iterator[tuple[int, int]]:
    """Yield pairs of models, the second at least `LEAST_RATIO` times as dear as the first."""
    cost = columns.cost.mean(axis=0)
    for small, large in combinations(range(len(columns.models)), 2):
        if cost[large] >= LEAST_RATIO * cost[small]:
            yield small, large


def logs(splits: list[Any], seeds: int, *, on_test: bool) -> Iterator[tuple[str, list[Row]]]:
    """Yield a table over all pairs of models of all logs.

    Args:
        splits: Name, train split and test split of each log.
        seeds: Halves of the train split to fit on, unless `on_test`.
        on_test: Fit on the whole train split and judge on the test split; else fit on a half of
            the train split and judge on the other half.
    """
    found: Any = defaultdict(list)
    for _, train, test in splits:
        for pair in pairs(train):
            whole = train.only(pair)
            if on_test:
                runs(whole, test.only(pair), found)
                continue
            for seed in range(seeds):
                order = np.random.default_rng(seed).permutation(len(whole))
                half = len(order) // 2
                runs(whole.rows(order[:half]), whole.rows(order[half:]), found)
    where = "test split" if on_test else "other half of the train split"
    yield f"pairs of models of the logs, judged on the {where}", list(rows(found))
