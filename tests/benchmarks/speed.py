"""How long fits and decisions take, ours and the released code's, in one run."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from langchain_automix import POMDPRouter, RoutingState, Verification
from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.goal import Goal
from tests.benchmarks import released


def made(n: int, models: int, *, verdicts: int = 0) -> LogArrays:
    """Return a log of made-up queries: scores, or some verdicts each."""
    rng = np.random.default_rng(0)
    ease = rng.random(n)
    right = ease[:, None] ** (1 / (1 + 3 * np.arange(models)))
    quality = (rng.random((n, models)) < right) * 1.0
    score = np.clip(ease[:, None] + rng.normal(0, 0.2, (n, models)), 0, 1)
    drawn = np.full((n, models, verdicts), -2, dtype=np.int8)
    if verdicts:
        drawn[:, :-1] = rng.random((n, models - 1, verdicts)) < score[:, :-1, None]
        score = np.full((n, models), np.nan)
    else:
        score[:, -1] = np.nan
    zeros = np.zeros((n, models))
    cost = np.tile(10.0 ** np.arange(models), (n, 1))
    names = tuple(f"m{j}" for j in range(models))
    return LogArrays(names, quality, cost, drawn, score, zeros + 0.1, zeros + 0.01, np.ones(n))


def seconds(work: Callable[[], Any], times: int = 1) -> float:
    """Return the shortest time of some runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def rows(modules: Any) -> Iterator[tuple[str, str]]:
    """Yield what was timed, and how long it took."""
    goal = Goal()  # where mixing at random is indifferent, checks pay most
    for n, models, verdicts in ((1_000, 2, 8), (1_000, 5, 0), (100_000, 2, 8), (100_000, 2, 0)):
        log = made(n, models, verdicts=verdicts)
        kind = f"{verdicts} verdicts" if verdicts else "scores"
        taken = seconds(partial(fit_policy, log, goal))
        yield f"fit, {n:,} queries x {models} models, {kind}", f"{taken:.2f} s"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield "peak memory of all that", f"{memory:.0f} MB"
    log = made(1_000, 2, verdicts=8)
    if modules:
        taken = seconds(lambda: released.chosen(modules, log, log, [0.1]))
        yield "fit, 1,000 queries x 2 models, automix-llm", f"{taken:.2f} s"
    router = POMDPRouter(policy=fit_policy(log, goal))
    state = RoutingState.after(Verification(verdicts=(True, False, True)), models=log.models)
    taken = seconds(lambda: [router.decide(state) for _ in range(1_000)], 5)
    yield "decision, with belief, values and reason", f"{taken * 1e3:.1f} µs"
    [table, *_] = router.policy.plans[0].tables
    taken = seconds(lambda: [table.row_for([(2, 1, 0)]) for _ in range(1_000)], 5)
    yield "of which the look-up", f"{taken * 1e3:.2f} µs"
    if modules:
        automix, pandas = modules
        row = released.frame(pandas, log).iloc[0]
        method, point = automix.POMDP(8), (0.5, 3)
        taken = seconds(lambda: [method.run(row, point) for _ in range(1_000)], 3)
        yield "decision, automix-llm (a threshold)", f"{taken * 1e3:.1f} µs"
