"""Times of several works, taken in turns, and what one costs by another."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TypeVar

import numpy as np

Name = TypeVar("Name")


@contextmanager
def frozen() -> Iterator[None]:
    """Keep collections of garbage from what is loaded by now, as a server does after its start.

    A full collection of all that this process has imported takes longer than a hundred queries.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def in_turns(
    works: Mapping[Name, Callable[[], None]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[Name, list[float]]:
    """Return the seconds of each work, round by round, every second round from the end."""
    taken: dict[Name, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()  # what is imported and cached at the first call is no part of it
    for i in range(rounds):
        for name, work in list(works.items())[:: 1 - 2 * (i % 2)]:
            gc.collect()  # nobody pays for what another left
            start = clock()
            work()
            taken[name].append(clock() - start)
    return taken


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return a 95 % interval of the median, by the bootstrap."""
    rng = np.random.default_rng(0)
    drawn = np.median(rng.choice(np.asarray(ratios), (2_000, len(ratios))), axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def compared(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the median of the ratios of each round, with its interval."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = interval(ratios)
    return f"{median(ratios):.2f} [{low:.2f}, {high:.2f}]"
