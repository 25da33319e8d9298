"""What `automix serve` adds to a provider's own time, what it holds, and what a kill loses.

The provider, the server and the load are three processes, on the cores that there are. What is
compared is measured in turns of a few seconds, so that what else the machine does falls on all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.support.builders.load import Asked, Client, Tally, Timing, ask_side_by_side
from tests.support.builders.waiting import LONG, eventually, wait_for

SECONDS = 0.05
"""What the provider takes for an answer."""

TURN = 3.0
TURNS = 10
LOADS = ((200, 0.0), (20, 0.0), (200, 10.0))
"""Streams side by side, and the mean pause of a client before it asks again: 0 is as much as the
server can take, and what is then added is the time for which requests wait for each other."""

REQUESTS = 20_000
KEPT, ESCALATED = "What is easy?", "What is hard?"
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

Row = tuple[str, ...]


class Process(NamedTuple):
    """A process that serves."""

    process: subprocess.Popen[str]
    base_url: str

    @property
    def port(self) -> int:
        return int(self.base_url.rsplit(":", 1)[1].partition("/")[0])

    @property
    def seconds(self) -> float:
        """Processor time that it has taken."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / _TICKS

    @property
    def megabytes(self) -> float:
        """What it holds in memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * _PAGE / 2**20

    @property
    def files(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[Process]:
    """Run a module that prints its address; kill it at the end."""
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, "it did not start"
            yield Process(process, address)
        finally:
            process.kill()


@contextlib.contextmanager
def provider() -> Iterator[Process]:
    with started("tests.support.servers.quick_provider", str(SECONDS)) as running:
        yield running


@contextlib.contextmanager
def mix_of(provider: Process, gc: str = "frozen", port: int = 0) -> Iterator[Process]:
    """Serve a mix: with what is loaded at the start `frozen`, or `unfrozen`, for collections."""
    arguments = (provider.base_url, gc, str(port))
    with started("tests.benchmarks.serving_process", *arguments) as running:
        yield running


def load(streams: int, asked: list[Asked], seconds: float, pause: float = 0.0) -> list[Timing]:
    """Return what requests took that so many clients made for a while, none of which failed."""
    end = time.monotonic() + seconds
    work = ask_side_by_side(streams, asked, lambda: time.monotonic() < end, pause=pause)
    tally = asyncio.run(work)
    assert tally.is_whole, str(tally)
    return tally.timings


def tables(turns: int = TURNS, requests: int = REQUESTS) -> Iterator[tuple[Row, list[Row]]]:
    """Yield tables of what is added, of what is held, and of what a kill loses."""
    with provider() as behind:
        with mix_of(behind) as frozen, mix_of(behind, "unfrozen") as unfrozen:
            for streams, pause in LOADS:
                yield from added(streams, pause, turns, behind, frozen, unfrozen)
        yield HELD, list(held(behind, requests))
        yield LOST, list(lost(behind))


def added(
    streams: int, pause: float, turns: int, behind: Process, frozen: Process, unfrozen: Process
) -> Iterator[tuple[Row, list[Row]]]:
    """Yield what is added to the provider's own time, and what each process costs."""
    alone = Asked(behind.port, "large", KEPT)
    ways: dict[str, list[Asked]] = {"provider alone": [alone], "provider twice": [alone, alone]}
    for name, mix in (("", frozen), (", no gc.freeze()", unfrozen)):
        ways[f"kept{name}"] = [Asked(mix.port, "mix", KEPT)]
        ways[f"escalated{name}"] = [Asked(mix.port, "mix", ESCALATED)]
    for asked in ways.values():
        load(streams, asked, 1.0)  # what the first requests alone do
    taken: dict[str, list[list[Timing]]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [0.0, 0.0, 0.0, 0.0] for name in ways}
    for turn in range(turns):
        for name, asked in list(ways.items())[:: 1 - 2 * (turn % 2)]:
            mix = unfrozen if "no gc" in name else frozen
            before = time.process_time(), behind.seconds, mix.seconds, time.monotonic()
            taken[name].append(load(streams, asked, TURN, pause))
            after = time.process_time(), behind.seconds, mix.seconds, time.monotonic()
            costs[name] = [c + b - a for c, a, b in zip(costs[name], before, after, strict=True)]
    said = f"{streams} streams" + (f", pauses of {pause:g} s" if pause else "")
    heads = f"{said}, {turns} turns of {TURN:g} s, ms", *_COLUMNS
    yield heads, [_row(name, taken, costs[name][-1]) for name in ways]
    yield (
        (f"{said}: processor time a request, ms", *_PROCESSES),
        [_cost_row(name, costs[name], sum(map(len, taken[name]))) for name in ways],
    )
    yield (
        (f"{said}: with gc.freeze() by without", "p50", "p99"),
        [
            (case, *(_ratio(taken[case], taken[f"{case}, no gc.freeze()"], q) for q in (50, 99)))
            for case in ("kept", "escalated")
        ],
    )


_COLUMNS = (
    *("requests a second", "p50", "p99", "added to p50", "added to p99"),
    *("first token p50", "added", "first token p99", "added"),
)
_PROCESSES = ("load", "provider", "mix")


def _row(name: str, taken: dict[str, list[list[Timing]]], seconds: float) -> Row:
    turns = taken[name]
    base = taken["provider twice" if name.startswith("escalated") else "provider alone"]
    rate = sum(map(len, turns)) / seconds  # until the last answer of each turn
    cells: list[str] = []
    for which in ("whole", "first"):
        pairs = [(_percentile(turns, q, which), _added(turns, base, q, which)) for q in (50, 99)]
        (p50, more50), (p99, more99) = pairs
        cells += [p50, p99, more50, more99] if which == "whole" else [p50, more50, p99, more99]
    return name, f"{rate:.0f}", *cells


def _values(turns: Sequence[Sequence[Timing]], which: str) -> list[list[float]]:
    return [[getattr(timing, which) * 1e3 for timing in turn] for turn in turns]


def _percentile(turns: Sequence[Sequence[Timing]], q: int, which: str) -> str:
    return f"{np.percentile(np.concatenate(_values(turns, which)), q):.0f}"


def _drawn(
    turns: Sequence[Sequence[Timing]], base: Sequence[Sequence[Timing]], q: int, which: str
) -> Iterator[tuple[float, float]]:
    """Yield the percentiles of both, of all turns and of turns drawn again, the pairs kept."""
    rng = np.random.default_rng(0)
    both = _values(turns, which), _values(base, which)
    count = len(turns)
    for chosen in [np.arange(count), *(rng.integers(0, count, count) for _ in range(500))]:
        ours, theirs = (np.concatenate([each[i] for i in chosen]) for each in both)
        yield float(np.percentile(ours, q)), float(np.percentile(theirs, q))


def _added(
    turns: Sequence[Sequence[Timing]], base: Sequence[Sequence[Timing]], q: int, which: str
) -> str:
    if turns is base:
        return ""
    found, *drawn = [ours - theirs for ours, theirs in _drawn(turns, base, q, which)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{found:+.0f} [{low:.0f}, {high:.0f}]"


def _ratio(turns: Sequence[Sequence[Timing]], base: Sequence[Sequence[Timing]], q: int) -> str:
    found, *drawn = [ours / theirs for ours, theirs in _drawn(turns, base, q, "whole")]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{found:.2f} [{low:.2f}, {high:.2f}]"


def _cost_row(name: str, costs: list[float], requests: int) -> Row:
    return name, *(f"{seconds / requests * 1e3:.2f}" for seconds in costs[:-1])


HELD = ("after requests", "resident, MB", "open files", "bytes more a request", "seconds")


def held(behind: Process, requests: int) -> Iterator[Row]:
    """Yield what the server holds while it answers so many requests, half of them escalated."""
    with mix_of(behind) as mix:
        start, done = time.monotonic(), 0
        earlier: tuple[int, float] | None = None
        for wanted in (requests // 10, requests // 2, requests):
            number = [wanted - done]

            def goes_on(number: list[int] = number) -> bool:
                number[0] -= 1
                return number[0] >= 0

            asked = [Asked(mix.port, "mix", KEPT), Asked(mix.port, "mix", ESCALATED)]
            number[0] //= len(asked)
            tally = asyncio.run(ask_side_by_side(50, asked, goes_on))
            assert tally.is_whole, str(tally)
            done = wanted
            wait_for(lambda: mix.files < 100)  # the clients' connections are closed
            now = mix.megabytes
            more = (
                ""
                if earlier is None
                else f"{(now - earlier[1]) * 2**20 / (done - earlier[0]):+.0f}"
            )
            earlier = done, now
            yield f"{done:,}", f"{now:.1f}", str(mix.files), more, f"{time.monotonic() - start:.0f}"


LOST = (
    *("50 streams side by side", "answered", "in flight at the signal", "of these lost"),
    *("sent later, to a closed connection", "errors"),
)


def lost(behind: Process) -> Iterator[Row]:
    """Yield what is lost by a kill, after which the server starts again, and by a clean end."""
    for number in (signal.SIGKILL, signal.SIGTERM):
        yield asyncio.run(_lost(behind, number))


_ANSWERS = 200
"""How many answers there are before the signal, and after the server has started again."""


async def _lost(behind: Process, number: signal.Signals) -> Row:
    tally, ends = Tally(), False
    with contextlib.ExitStack() as stack:
        mix = stack.enter_context(mix_of(behind))
        asked = [Asked(mix.port, "mix", KEPT)]
        clients: list[Client] = []
        work = asyncio.create_task(
            ask_side_by_side(50, asked, lambda: not ends, tally, clients=clients)
        )
        await eventually(lambda: len(tally.timings) >= _ANSWERS)
        in_flight = sum(client.in_flight for client in clients)
        mix.process.send_signal(number)
        signalled = time.perf_counter()
        await asyncio.to_thread(mix.process.wait, LONG)
        before = len(tally.timings)
        again = await asyncio.to_thread(lambda: stack.enter_context(mix_of(behind, port=mix.port)))
        await eventually(lambda: len(tally.timings) >= before + _ANSWERS)
        ends = True
        await work
        assert again.process.poll() is None
    lost = sum(sent <= signalled for sent in tally.failed)
    counts = len(tally.timings), in_flight, lost, len(tally.failed) - lost, len(tally.errors)
    return f"{number.name}, and started again", *(f"{count:,}" for count in counts)
