"""A large soak: what it came to, and what the process holds after a tenth, a half and all of it."""

# ruff: noqa: T201

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

from tests.benchmarks.surface import Row
from tests.soak.soak import Held, Soak


def soaked(queries: int) -> Soak:
    """Return a soak of so many queries, which is over."""
    rounds = max(10, queries // 1_000)
    with Soak() as soak:
        for i in range(rounds):
            soak.run(queries * (i + 1) // rounds - queries * i // rounds, rounds=1)
            told = f"{soak.held[-1]}, {len(soak.tally.wrong)} wrong, {soak.seconds:.0f} s"
            print(told, file=sys.stderr, flush=True)
    return soak


def figures(soak: Soak) -> Iterator[Row]:
    """Yield what it came to."""
    tally = soak.tally
    queries = tally.ends.total()
    yield "queries", f"{queries:,} in {soak.seconds:,.0f} s, {queries / soak.seconds:.1f} a second"
    yield "ended", _told(tally.ends)
    yield "requests", f"{tally.requests:,}, of these with a fault {tally.faults.total():,}"
    yield "faults", _told(tally.faults)
    yield "errors", _told(tally.errors)
    yield "escalated", f"{tally.escalated:,}"
    yield "answered though something failed", f"{tally.passed_over:,}"
    yield "answered, and marked degraded", f"{tally.degraded:,}"
    yield "cost known, equal to the bills", f"{tally.exact:,} queries, ${tally.known:f}"
    yield "cost said to be unknown", f"{tally.unknown:,} queries, billed ${tally.unseen:f}"
    yield "of these with no fault and no break", f"{tally.late:,} (too late, as by max_latency)"
    yield "billed, hidden by the client's retries", f"{tally.hidden:,} requests"
    yield "streams of the clients closed late", f"{soak.collected:,} (by the collector)"
    yield "wrong, lost or mixed up", f"{len(tally.wrong):,}"
    yield from ((f"wrong {i + 1}", each) for i, each in enumerate(tally.wrong[:20]))


def held(soak: Soak) -> Iterator[Row]:
    """Yield what the process held when it was quiet, and at the end what is left open."""
    last = len(soak.held)
    chosen = [soak.held[i] for i in sorted({last // 10 - 1, last // 2 - 1, last - 1})]
    yield from (_row(each) for each in chosen)
    first, final = chosen[0], chosen[-1]
    slope = (final.megabytes - first.megabytes) * 2**20 / (final.queries - first.queries)
    objects = (final.objects - first.objects) / (final.queries - first.queries)
    yield "a query", f"{slope:+.1f} bytes", f"{objects:+.3f}", "", "", "", ""
    for name, (threads, sockets) in (("before", soak.before), ("after", soak.after)):
        yield name, "", "", str(threads), str(sockets), "", ""


def _row(each: Held) -> Row:
    counts = (each.objects, each.threads, each.sockets, each.connections, each.tasks)
    return f"{each.queries:,}", f"{each.megabytes:.1f} MB", *(f"{n:,}" for n in counts)


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())


HEADS = ("after queries", "resident", "objects", "threads", "sockets", "connections", "tasks")
