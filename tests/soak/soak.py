"""A soak: an hour's traffic in minutes, with faults and cancellations, and all books at its end.

`Soak` sends queries by every way to call a mix, from threads and from two event loops at once, to
a provider in a process of its own that does wrong on a share of the requests. After each round all
is quiet: every query is held against the provider's books (`soak_books.py`), and what the process
holds is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from langchain_automix import AutoMixRunnable, AutoMixTotals
from langchain_automix.models.prices import dollars_of
from tests.soak.accounting import Tally
from tests.soak.provider import books_of, running
from tests.soak.world import Query, World

SYNC = ("invoke", "batch", "stopping batch", "stream", "left stream")
ASYNC = (
    "ainvoke",
    "abatch",
    "stopping abatch",
    "astream",
    "left astream",
    "cancelled ainvoke",
    "cancelled abatch",
    "cancelled astream",
)
THREADS = 4
LOOPS = 2
TASKS = 6
"""Queries or batches that an event loop has under way at once."""

BATCH = 3
TRACED = 0.05
"""Share of the queries whose trace is kept until it is checked."""


@dataclass(frozen=True)
class Held:
    """What the process holds after so many queries, when nothing is under way."""

    queries: int
    megabytes: float
    objects: int
    threads: int
    sockets: int
    tasks: int
    connections: int
    """Open ones, by the provider's count."""


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_sockets() -> int:
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the folder's own is gone by now
            found += str(entry.readlink()).startswith("socket:")
    return found


@dataclass(frozen=True)
class Job:
    """One call of a mix: a query, or a batch of some."""

    way: str
    mix: AutoMixRunnable
    queries: Sequence[Query]
    configs: Sequence[Any]
    lot: float
    """In [0, 1): when it is left or cancelled."""

    @property
    def inputs(self) -> list[Any]:
        return [query.asked for query in self.queries]


class Loop:
    """An event loop in a thread of its own, for all of a soak."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.loop = self.runner.get_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def submit(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.runner.close()


class Soak:
    """The traffic, and what came of it.

    Args:
        seed: Of the traffic and of the faults.
        faults: Share of the requests on which the provider does wrong.
        timeout: Seconds that a client waits for an answer.
    """

    def __init__(self, seed: int = 0, faults: float = 0.1, timeout: float = 5.0) -> None:
        self.seed = seed
        self.tally = Tally()
        self.held: list[Held] = []
        self.seconds = 0.0
        self.before = (threading.active_count(), open_sockets())
        self.after = (0, 0)
        self._faults = faults
        self._timeout = timeout
        self._lot = random.Random(seed)
        self._count = 0
        self._stack = contextlib.ExitStack()
        self.collected = 0
        """Generators of the clients that the collector found open, and could not close: LangChain
        and the clients leave those of a cancelled stream to it, and it may come in any thread."""

    def __enter__(self) -> Self:
        self._stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # of costs that are unknown, as they must be
        self._stack.callback(setattr, sys, "unraisablehook", sys.unraisablehook)
        sys.unraisablehook = self._could_not_raise
        log = logging.getLogger("langchain_automix")
        self._stack.callback(log.setLevel, log.level)
        log.setLevel(logging.ERROR)  # each failure is told, and there are thousands
        self.address = self._stack.enter_context(running(self.seed, self._faults))
        self.world = World(self.address, timeout=self._timeout)
        self.loops = [Loop() for _ in range(LOOPS)]
        return self

    def __exit__(self, *args: object) -> None:
        """Close all that was opened: what is left then is a leak."""
        for loop in self.loops:
            loop.submit(self.world.connections.close_here()).result()
            loop.close()
        self.world.client.close()
        self._stack.close()
        gc.collect()
        self.after = (threading.active_count(), open_sockets())

    def _could_not_raise(self, what: Any) -> None:
        code = getattr(what.object, "ag_code", None)
        if code is None or "langchain_automix" in code.co_filename:
            self.tally.wrong.append(f"{what.exc_value!r} in {what.object!r} could not be raised")
        self.collected += 1

    def run(self, queries: int, rounds: int = 10) -> None:
        """Send so many queries, in rounds; check each round when it is over."""
        started = time.perf_counter()
        for i in range(rounds):
            self._round(queries * (i + 1) // rounds - queries * i // rounds)
        self.seconds += time.perf_counter() - started
        self._check_limits()

    def _check_limits(self) -> None:
        """See that no query holds a place any more, and that nothing known was left out."""
        for limit in self.world.limits:
            if live := limit.books.status("all", limit.terms).active:
                self.tally.wrong.append(f"{live} queries still hold a place of limit {limit.name}")
        used = dollars_of(self.world.limits[-1].used())
        if used < self.tally.scarce:
            self.tally.wrong.append(f"the spend limit says {used}, known are {self.tally.scarce}")

    def _round(self, size: int) -> None:
        totals = AutoMixTotals()
        jobs = list(self._jobs(size, totals))
        queries = [query for job in jobs for query in job.queries]
        for_threads: SimpleQueue[Job] = SimpleQueue()
        for_loops: list[SimpleQueue[Job]] = [SimpleQueue() for _ in self.loops]
        for i, job in enumerate(jobs):
            (for_threads if job.way in SYNC else for_loops[i % LOOPS]).put(job)
        threads = [threading.Thread(target=_work, args=(for_threads,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        waiting = [
            loop.submit(_awork(given)) for loop, given in zip(self.loops, for_loops, strict=True)
        ]
        for each in (*(each.result for each in waiting), *(thread.join for thread in threads)):
            each()
        _wait_for_given_up()
        books = books_of(self.address)
        # What is dropped half-way is closed by the collector, and tells then what it cost.
        self.tally.add(queries, books["queries"])
        self.tally.check_totals(totals, queries, books["queries"])
        self.tally.wrong += [f"{books['mixed']} requests held several marks"] * bool(books["mixed"])
        del jobs, queries, totals
        self._measure(books)

    def _measure(self, books: dict[str, Any]) -> None:
        books["queries"] = None
        gc.collect()
        tasks = sum(loop.submit(_tasks()).result() for loop in self.loops)
        self.held.append(
            Held(
                self._count,
                resident(),
                len(gc.get_objects()),
                threading.active_count(),
                open_sockets(),
                tasks,
                books["connections"],
            )
        )

    def _jobs(self, size: int, totals: AutoMixTotals) -> Iterator[Job]:
        while size:
            way = self._lot.choice((*SYNC, *ASYNC, *ASYNC))
            several = min(size, BATCH if "batch" in way else 1)
            size -= several
            name = self._lot.choice(list(self.world.mixes))
            queries = [self._query(name, way) for _ in range(several)]
            configs = [self._config(query, totals) for query in queries]
            yield Job(way, self.world.mixes[name], queries, configs, self._lot.random())

    def _query(self, mix: str, way: str) -> Query:
        self._count += 1
        query = Query(f"K{self._count:07}{self._lot.choice('eeh')}", mix, way)
        if self._lot.random() < TRACED:
            query.trace = RunCollectorCallbackHandler()
        return query

    def _config(self, query: Query, totals: AutoMixTotals) -> Any:
        handlers = [totals, query.told, query.usage, *([query.trace] if query.trace else [])]
        query.scarce = self._lot.random() < 0.2
        return {"callbacks": handlers, "tags": ["scarce"] * query.scarce}


def _wait_for_given_up() -> None:
    """Wait for the threads whose query's time was up: they end when their request does."""
    for thread in threading.enumerate():
        if thread.name == "automix":
            thread.join(60)


def _work(jobs: SimpleQueue[Job]) -> None:
    with contextlib.suppress(Empty):
        while True:
            _call(jobs.get_nowait())


def _call(job: Job) -> None:
    [query, *_] = job.queries
    asked, config = query.asked, job.configs[0]
    match job.way:
        case "invoke":
            query.took(_outcome(lambda: job.mix.invoke(asked, config)))
        case "batch" | "stopping batch":
            whole = job.way == "batch"
            found = _outcome(
                lambda: job.mix.batch(job.inputs, list(job.configs), return_exceptions=whole)
            )
            _batch_took(job, found)
        case _:
            query.took(_outcome(lambda: _read(job, job.mix.stream(asked, config))))
            if job.way == "left stream" and query.record is None and query.error is None:
                query.end = "left"


def _outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:  # noqa: BLE001  (what it is worth is told later)
        return error


def _batch_took(job: Job, found: Any) -> None:
    if isinstance(found, list):
        for query, each in zip(job.queries, found, strict=True):
            query.took(each)
        return
    # One query has failed, and with it the others were given up, but for those that were done.
    for query in job.queries:
        query.took(found)
        if not any(event.get("unfinished") and event["failed"] for event in query.told.events):
            query.end, query.error = "left", None


def _read(job: Job, chunks: Any) -> Any:
    """Read a stream to its end, or leave it after some chunks."""
    [query] = job.queries
    whole = None
    limit = int(job.lot * 8) if job.way == "left stream" else None
    with contextlib.closing(chunks):
        for i, chunk in enumerate(chunks):
            if i == limit:
                break
            query.text += str(chunk.text)
            whole = chunk if whole is None else whole + chunk
    return _Part(query.text) if whole is None else whole


class _Part:
    """A stream that was left before anything came."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.response_metadata: dict[str, Any] = {}


async def _awork(jobs: SimpleQueue[Job]) -> None:
    async def work() -> None:
        with contextlib.suppress(Empty):
            while True:
                await _acall(jobs.get_nowait())

    async with asyncio.TaskGroup() as group:
        for _ in range(TASKS):
            group.create_task(work())


async def _acall(job: Job) -> None:
    task = asyncio.create_task(_made(job))
    if job.way.startswith("cancelled"):
        # Most queries take some hundredths of a second, with many others at work.
        await asyncio.wait([task], timeout=job.lot * 0.8)
        task.cancel()
    await asyncio.wait([task])
    if task.cancelled():
        for query in job.queries:
            query.end, query.record = "cancelled", None
    elif (error := task.exception()) is not None:
        raise error


async def _made(job: Job) -> None:
    [query, *_] = job.queries
    asked, config = query.asked, job.configs[0]
    way = job.way.removeprefix("cancelled ")
    found: Any
    try:
        if way == "ainvoke":
            found = await job.mix.ainvoke(asked, config)
        elif way.endswith("abatch"):
            whole = way == "abatch"
            found = await job.mix.abatch(job.inputs, list(job.configs), return_exceptions=whole)
        else:
            found = await _aread(job, job.mix.astream(asked, config))
    except Exception as error:  # noqa: BLE001  (what it is worth is told later)
        found = error
    if "batch" in way:
        _batch_took(job, found)
        return
    query.took(found)
    if way == "left astream" and query.record is None and query.error is None:
        query.end = "left"


async def _aread(job: Job, chunks: AsyncIterator[Any]) -> Any:
    [query] = job.queries
    whole = None
    limit = int(job.lot * 8) if job.way == "left astream" else None
    async with contextlib.aclosing(chunks):  # type: ignore[type-var]
        i = 0
        async for chunk in chunks:
            if i == limit:
                break
            i += 1
            query.text += str(chunk.text)
            whole = chunk if whole is None else whole + chunk
    return _Part(query.text) if whole is None else whole


async def _tasks() -> int:
    await asyncio.sleep(0)
    return len(asyncio.all_tasks()) - 1
