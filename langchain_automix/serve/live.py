"""`LiveView`: ended queries as server-sent events, for whoever watches an app."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from langchain_automix.serve.errors import SERVER_ERROR, ApiError
from langchain_automix.serve.learners import Learners
from langchain_automix.serve.limits import Slots
from langchain_automix.serve.mixes import Mixes
from langchain_automix.serve.observing import Observers, ServedQuery
from langchain_automix.serve.streaming import to_event
from langchain_automix.serve.traffic import Traffic
from langchain_automix.utils.text import printable

KEPT = 1_000
"""Events that are kept for those who come, or come again."""

MOST_WATCHERS = 32
"""Who may watch at a time: each costs a connection, and a share of the processor."""

_NUMBER = re.compile("[0-9]{1,18}")
"""The number of an event: no more digits than Python reads as an integer."""

_TICK = 1.0
"""Seconds after which the state of the app is looked at again."""

_HEARTBEAT = 15.0
"""Seconds without an event after which a comment shows that the stream is alive."""

_PAUSE = 0.1
"""Seconds in which events are gathered, so that a busy app costs a watcher few writes."""


class LiveView:
    """What the queries of an app come to, kept for watchers who each read at their own speed.

    A watcher is a position among the events that are kept, and has no queue of its own: one that
    is slow loses the oldest, is told how many, and holds up nobody.

    Args:
        mixes: The mixes.
        slots: Counts the queries under way.
        observers: Count what they were not told.
    """

    def __init__(self, mixes: Mixes, slots: Slots, observers: Observers) -> None:
        self._mixes, self._slots, self._observers = mixes, slots, observers
        self.learning = Learners(mixes)
        self._traffic = Traffic()
        self._started = time.time()
        self._process = secrets.token_hex(4)  # the numbers of another process are not these
        self._events: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._last = 0
        self._lock = threading.Lock()
        self._watchers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._state: tuple[float, dict[str, Any]] = (float("-inf"), {})
        self._summing: asyncio.Task[None] | None = None

    @property
    def watchers(self) -> int:
        """How many watch."""
        return len(self._watchers)

    def observe(self, query: ServedQuery) -> None:
        """Add a query that has ended, and wake the watchers."""
        self._traffic.add(query)
        with self._lock:
            self._last += 1
            id = f"{self._process}-{self._last}"
            self._events.append((self._last, to_event(query_to_json(query), name="query", id=id)))
        for woken, loop in list(self._watchers.items()):
            if not woken.is_set():
                with contextlib.suppress(RuntimeError):  # its loop has just been closed
                    loop.call_soon_threadsafe(woken.set)

    def position(self, last_event_id: str | None, wanted: int) -> int:
        """Return where a watcher begins: after the event that it had last, if that was one of ours.

        Args:
            last_event_id: The header `Last-Event-ID`; None: there is none.
            wanted: How many earlier events are wanted by who comes for the first time.
        """
        process, _, number = (last_event_id or "").partition("-")
        if process == self._process and _NUMBER.fullmatch(number):
            return min(int(number), self._last)
        return max(0, self._last - (KEPT if last_event_id else wanted))

    @contextlib.contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """Yield what is set as soon as there is something new, for the length of a `with` block.

        Raises:
            ApiError: Too many watch.
        """
        if self.watchers >= MOST_WATCHERS:
            raise ApiError(
                503,
                f"{MOST_WATCHERS} watch already, and no more may: close another page.",
                type=SERVER_ERROR,
                code="too_many_watchers",
                headers={"Retry-After": "10"},
            )
        woken = asyncio.Event()
        self._watchers[woken] = asyncio.get_running_loop()
        try:
            yield woken
        finally:
            del self._watchers[woken]

    async def stream(
        self, woken: asyncio.Event, position: int, is_over: Callable[[], bool]
    ) -> AsyncGenerator[bytes]:
        """Yield events from a position on, the state of the app as it changes, and heartbeats.

        Args:
            woken: What `watching` yields.
            position: Number of the event that the watcher had last.
            is_over: Whether the app is about to stop.
        """
        told: dict[str, Any] = {}
        sent_at = time.monotonic()
        while not is_over():
            woken.clear()
            position, found = self._after(position)
            self.learning.refresh()
            state = await self.state()
            if state != told:
                told = state
                found.append(to_event({**state, "now": time.time()}, name="state"))
            if not found and time.monotonic() - sent_at >= _HEARTBEAT:
                found.append(b": still here\n\n")
            if found:
                sent_at = time.monotonic()
                yield b"".join(found)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await woken.wait()
                await asyncio.sleep(_PAUSE)
        yield to_event({}, name="stopping")

    async def state(self) -> dict[str, Any]:
        """Return what is so now, and the figures of the traffic; at most a second old."""
        if time.monotonic() - self._state[0] >= _TICK:
            if self._summing is None or self._summing.done():
                # For all watchers, and in a thread: an hour of many mixes takes 20 ms.
                self._summing = asyncio.create_task(asyncio.to_thread(self._sum_up))
            await asyncio.shield(self._summing)
        return self._state[1]

    def _sum_up(self) -> None:
        state = {
            "started": self._started,
            "mixes": [self._mix(served.name) for served in self._mixes],
            "dropped": self._observers.dropped,
            "in_flight": self._slots.taken,
            **self._traffic.to_json(time.time()),
        }
        self._state = (time.monotonic(), state)

    def _after(self, position: int) -> tuple[int, list[bytes]]:
        """Return the last number, and the events after a position; first, how many are lost."""
        with self._lock:
            number = min(self._last - position, len(self._events))
            missed = self._last - position - number
            new = [self._events[k][1] for k in range(-number, 0)]
            last = self._last
        lost = [to_event({"number": missed}, name="missed")] if missed else []
        return last, lost + new

    def _mix(self, name: str) -> dict[str, Any]:
        status = self.learning.statuses.get(name)
        learning = None
        if status is not None:
            away = ["The learning store cannot be used at present."]  # its address is not told
            learning = away if status.is_away else str(status).splitlines()
        return {
            "name": name,
            "models": list(self._mixes.get(name).current.mix.model_names),
            "policy": self.learning.policy(name),
            "learning": learning,
        }


def query_to_json(query: ServedQuery) -> dict[str, Any]:
    """Return what watchers are told of a query."""
    told: dict[str, Any] = {
        name: getattr(query, name)
        for name in ("at", "id", "mix", "outcome", "model", "policy", "status", "streamed", "key")
    }
    costs = {"cost": query.cost, "largest_alone": query.largest_alone}
    texts = {name: getattr(query, name) for name in ("why", "degraded", "error", "question")}
    return {
        **told,
        **{name: None if cost is None else float(cost) for name, cost in costs.items()},
        "is_estimate": query.is_estimate,
        "seconds": dict(query.seconds),
        "duration": query.duration,
        **{name: None if text is None else _short(text) for name, text in texts.items()},
    }


_LONGEST = 1_000


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
