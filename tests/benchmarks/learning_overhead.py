"""What learning adds to the processor time of a query, against the same mix without it."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from langchain_core.runnables import Runnable

from langchain_automix import AutoMixRunnable, Learning, POMDPRouter
from langchain_automix.learning.records import PolicyVersion
from tests.benchmarks.by_hand import Instant
from tests.benchmarks.surface import EASY_QUESTION, mix_of
from tests.benchmarks.timing import interval
from tests.support.builders.synthetic_logs import world

HEADS = ("learning, no shadow drawn", "without", "in the query", "ratio, 95 %", "all threads")
PRICES = {"small": {"input": 1, "output": 2}, "large": {"input": 10, "output": 20}}
QUERIES = 200
BATCH = 1_000


class _Spent(NamedTuple):
    own: float
    """Seconds of the thread that asks; in a batch, of all threads but the writer."""

    all: float
    """Seconds of all threads, the writer's among them."""


def table(rounds: int = 9) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the added processor time of each way to ask, in both stages.

    Args:
        rounds: Pairs of runs, with and without learning one after the other.
    """
    with tempfile.TemporaryDirectory() as folder:
        return HEADS, list(_rows(Path(folder), rounds))


def _rows(folder: Path, rounds: int) -> Iterator[tuple[str, ...]]:
    # A share so small that each query draws, and none has a shadow.
    observing = Learning(
        f"sqlite:///{folder}/observe.db", mode="observe", warm_up_share=1e-9, refit="never"
    )
    proven = Learning(f"sqlite:///{folder}/policy.db", share=1e-9, refit="never")
    fitted = POMDPRouter.fit(world(400, k=2), cost_weight=0.05)
    observer = _mix(learning=observing)
    pairs = {
        "observe, against the largest model": (_mix(force_model=1), observer),
        "observe, against the bare model": (Instant(name_of_model="large"), observer),
        "policy, against the same policy": (_mix(router=fitted), _promoted(proven, fitted)),
    }
    for stage, (plain, learns) in pairs.items():
        for way, queries in ((_invoke, QUERIES), (_ainvoke, QUERIES), (_batch, BATCH)):
            yield f"{stage}, {way.__name__[1:]}", *_compare(way, queries, plain, learns, rounds)
    for learning in (observing, proven):
        learning.close()


def _mix(**fields: Any) -> AutoMixRunnable:
    small, large = Instant(name_of_model="small"), Instant(name_of_model="large")
    return mix_of(small, large, prices=PRICES, **fields)


def _promoted(learning: Learning, router: POMDPRouter) -> AutoMixRunnable:
    mix = _mix(learning=learning)
    policy = router.policy.model_dump_json(by_alias=True)
    store, epoch = learning.store.get(), mix.mix_config.epoch
    version = PolicyVersion(0, epoch, time.time(), policy, "challenger", "For the benchmark.")
    store.promote(store.add_version(version), "For the benchmark.")
    learning.refresh()
    return mix


Asked = Runnable[Any, Any]
"""A mix, or a bare model."""


def _invoke(mix: Asked, queries: int) -> None:
    for _ in range(queries):
        mix.invoke(EASY_QUESTION)


def _ainvoke(mix: Asked, queries: int) -> None:
    async def ask() -> None:
        for _ in range(queries):
            await mix.ainvoke(EASY_QUESTION)

    asyncio.run(ask())


def _batch(mix: Asked, queries: int) -> None:
    mix.batch([EASY_QUESTION] * queries, {"max_concurrency": 8})


Way = Callable[[Asked, int], None]


def _compare(
    way: Way, queries: int, plain: Asked, learns: AutoMixRunnable, rounds: int
) -> tuple[str, ...]:
    learning: Any = learns.learning
    pairs = []
    for mix in (plain, learns):
        way(mix, queries)
    for each in range(rounds):
        learning.flush()
        # What goes first may find the caches cold.
        first, second = (plain, learns) if each % 2 else (learns, plain)
        spent = {id(mix): _spent(way, mix, queries) for mix in (first, second)}
        pairs.append((spent[id(plain)], spent[id(learns)]))
    own = np.array([with_.own / without.own for without, with_ in pairs])
    total = np.array([with_.all / without.all for without, with_ in pairs])
    without = np.median([pair[0].own for pair in pairs]) / queries
    added = np.median([with_.own - before.own for before, with_ in pairs]) / queries
    low, high = interval(own.tolist())
    return (
        f"{without * 1e6:.0f} µs",
        f"{added * 1e6:+.0f} µs",
        f"{np.median(own):.2f} [{low:.2f}, {high:.2f}]",
        f"{np.median(total):.2f}",
    )


def _spent(way: Way, mix: Asked, queries: int) -> _Spent:
    own, total, written = time.thread_time(), time.process_time(), _of_writers()
    way(mix, queries)
    own, total = time.thread_time() - own, time.process_time() - total
    # In a batch the queries run in threads of a pool, beside which the writer is all that runs.
    return _Spent(total - (_of_writers() - written) if way is _batch else own, total)


def _of_writers() -> float:
    """Return the processor seconds of the threads that write."""
    threads = [each for each in threading.enumerate() if each.name == "automix-learning"]
    clocks = [time.pthread_getcpuclockid(each.ident) for each in threads if each.ident]
    return sum(map(time.clock_gettime, clocks))
