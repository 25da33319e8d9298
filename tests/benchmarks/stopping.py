"""How many of 1,000 examples the sequential test saves, and how often it stops too early."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.policy.decision.score_prior import SHIPPED, ScorePrior
from langchain_automix.policy.fitting.candidates import CandidateFitter
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.fitting.selection import select_candidate
from langchain_automix.policy.fitting.stopping import TOLERANCE, check_stopping, next_look
from langchain_automix.policy.replay import replay_plan
from tests.benchmarks import quality
from tests.support.builders.synthetic_logs import WORLDS, scored, unchecked

EXAMPLES = 1_000
COST_WEIGHTS = (0.02, 0.045)
NEAR_TIES = ((0.5, 0.7), (0.5, 0.71), (0.5, 0.73), (0.5, 0.8))
"""Chances of being right; at 0.02 the large model is better by 0.02, 0.03, 0.05 and 0.12."""

HEADS = (
    "stops",
    "examples",
    "a rival was better by > tolerance",
    "lost against all examples",
    "lost > tolerance",
)

Row = tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """Where one run stopped, and what that lost in true utility."""

    stopped: bool
    examples: int
    to_rival: float
    to_all: float


def run(
    stream: LogArrays,
    truth: LogArrays,
    weight: float,
    tolerance: float,
    prior: ScorePrior = SHIPPED,
) -> Run:
    """Send a stream of examples through the test, and judge the policy that it stops with."""
    goal = Goal(cost_weight=weight)
    looks = next_look(0)
    while looks <= len(stream):
        part = stream.rows(np.arange(looks))
        if check_stopping(part, goal, tolerance=tolerance, prior=prior).stop:
            break
        looks = next_look(looks)
    else:
        return Run(False, len(stream), 0.0, 0.0)
    candidates = CandidateFitter(part, prior=prior).candidates(weight)
    best, _ = select_candidate(candidates)
    with_all, _ = select_candidate(CandidateFitter(stream, prior=prior).candidates(weight))
    worth = {c.name: replay_plan(c.plan, truth).utility(weight).mean() for c in candidates}
    whole = replay_plan(with_all.plan, truth).utility(weight).mean()
    own = worth[best.name]
    return Run(True, looks, float(max(worth.values()) - own), float(whole - own))


def row(name: str, runs: list[Run], tolerance: float) -> Row:
    """Return the line of the table for these runs."""
    lost = np.array([each.to_all for each in runs])
    half = 1.96 * lost.std() / np.sqrt(len(lost))
    return (
        name,
        f"{np.mean([each.stopped for each in runs]):.0%} of {len(runs)}",
        f"{np.mean([each.examples for each in runs]):.0f}",
        f"{np.mean([each.to_rival > tolerance for each in runs]):.1%}",
        f"{lost.mean():+.4f} ± {half:.4f}",
        f"{(lost > tolerance).mean():.1%}",
    )


def world_rows(seeds: int, tolerance: float = TOLERANCE) -> Iterator[Row]:
    """Yield a row for each synthetic world; the truth is another 20,000 queries."""
    for name in WORLDS:
        truth = scored(name, 20_000, 10**6)
        for weight in COST_WEIGHTS:
            streams = (scored(name, EXAMPLES, seed) for seed in range(3 * seeds))
            runs = [run(stream, truth, weight, tolerance) for stream in streams]
            yield row(f"{name}, cost weight {weight:g}", runs, tolerance)
    for chances in NEAR_TIES:
        truth = unchecked(chances, 1_000_000, 10**6)
        tries = (unchecked(chances, EXAMPLES, seed) for seed in range(50 * seeds))
        runs = [run(stream, truth, 0.02, tolerance) for stream in tries]
        yield row(f"no check, right at {chances[0]:g} and {chances[1]:g}", runs, tolerance)


def log_rows(seeds: int, tolerance: float = TOLERANCE) -> Iterator[Row]:
    """Yield a row for each log and pair: random two thirds are the stream, the rest judges.

    The prior for scores is the one without the log's benchmark.
    """
    for name, _, test in quality.splits():
        prior = quality.prior_without(name)
        last = len(test.models) - 1
        for small in range(last):
            pair = quality.only(test, [small, last])
            weight = quality.slope(pair)
            runs = []
            for seed in range(seeds):
                order = np.random.default_rng(seed).permutation(len(pair))
                cut = min(EXAMPLES, 2 * len(pair) // 3)
                stream, truth = pair.rows(order[:cut]), pair.rows(order[cut:])
                runs.append(run(stream, truth, weight, tolerance, prior))
            models = f"{pair.models[0]} -> {pair.models[1]}"
            yield row(f"{name}, {models} ({cut})", runs, tolerance)
