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
from tests.benchmarks.quality import MULTIPLES, slope
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

OWN_COST_HEADS = (
    "log",
    "pairs",
    "spread of the small model's costs",
    "utility",
    "loss at max_loss",
    "cost at max_loss, of the best single model's",
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
    outcomes = [replay_plan(plan, truth, policy.own_costs) for plan in policy.plans]
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


def tables(splits: list[Any], seeds: int) -> Iterator[tuple[tuple[str, ...], str, list[Row]]]:
    """Yield heads, a title and rows; what needs the logs is left out where there are none."""
    if splits:
        yield HEADS, *logs(splits, seeds, on_test=False)
        yield (
            OWN_COST_HEADS,
            "own_cost, fitted to halves of the train split",
            list(own_costs(splits, seeds)),
        )
    for title, found in worlds(seeds):
        yield HEADS, title, found
    if splits:
        yield HEADS, *logs(splits, seeds, on_test=True)


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


def logs(splits: list[Any], seeds: int, *, on_test: bool) -> tuple[str, list[Row]]:
    """Return a title and a table over all pairs of models of all logs.

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
            for half, rest in halves(whole, seeds):
                runs(half, rest, found)
    where = "test split" if on_test else "other half of the train split"
    return f"pairs of models of the logs, judged on the {where}", list(rows(found))


def halves(columns: LogArrays, seeds: int) -> Iterator[tuple[LogArrays, LogArrays]]:
    """Yield random halves of a log, each once to fit on and once to judge on."""
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(columns))
        one, other = (columns.rows(part) for part in np.array_split(order, 2))
        yield one, other
        yield other, one


def own_costs(splits: list[Any], seeds: int) -> Iterator[Row]:
    """Yield, by log, what it gains to scale the large model's price by a query's own cost."""
    all_gains: list[float] = []
    for name, train, _ in splits:
        gains, lost, saved, spread = [], [], [], []
        for pair in pairs(train):
            whole = train.only(pair)
            spread.append(whole.cost[:, 0].std() / whole.cost[:, 0].mean())
            here = [own_cost_gains(*parts) for parts in halves(whole, seeds)]
            gain, loss, cost = np.mean(here, axis=0)
            gains.append(float(gain))
            lost.append(float(loss))
            saved.append(float(cost))
        all_gains += gains
        yield (
            name,
            str(len(gains)),
            f"{np.mean(spread):.2f}",
            f"{np.mean(gains):+.4f}",
            f"{np.mean(lost):+.4f}",
            f"{np.mean(saved):+.1%}",
        )
    half = 1.96 * np.std(all_gains) / np.sqrt(len(all_gains))
    yield ("all", str(len(all_gains)), "", f"{np.mean(all_gains):+.4f} ± {half:.4f}", "", "")


def own_cost_gains(train: LogArrays, truth: LogArrays) -> tuple[float, float, float]:
    """Return the change in utility at some cost weights; in loss and cost for a max_loss."""
    gains, weight = [], slope(train)
    for multiple in MULTIPLES if weight > 0 else ():
        policy = fit_policy(train, Goal(cost_weight=multiple * weight))
        own, plain = (
            replay_plan(policy.plans[0], truth, costs).utility(multiple * weight).mean()
            for costs in (policy.fit.cost, None)
        )
        gains.append(float(own - plain))
    on, off = (
        judge(fit_policy(train, Goal(max_loss=MAX_LOSS), foretell=False, own_cost=own), truth)
        for own in (True, False)
    )
    return float(np.mean(gains or [0.0])), on.loss - off.loss, on.cost - off.cost
