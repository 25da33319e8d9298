"""`ServedQuery`: what is told of a query that has ended, and who is told."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal

from langchain_core.callbacks import BaseCallbackHandler
from typing_extensions import override

from langchain_automix.flow.callbacks import is_inside_mix
from langchain_automix.models.prices import dollars_of

_LOGGER = logging.getLogger(__name__)

_MOST_WAITING = 10_000

Outcome = Literal["kept", "escalated", "abstained", "failed", "cancelled"]
"""How a query ended. `kept`: with the answer of the first model that was asked. `escalated`: more
than one model was asked. `abstained`: no answer was likely enough to be right. `failed`: with an
error. `cancelled`: its client went away."""


@dataclass(frozen=True, slots=True)
class ServedQuery:
    """A query that has ended: what it came to, and nothing of its texts unless they may be shown.

    Attributes:
        at: When it ended, in seconds since 1970.
        id: Id of the completion, such as `chatcmpl-...`.
        mix: Name of the mix.
        outcome: How it ended.
        model: The model whose answer was given; None: there was none.
        why: Why, in one sentence; None: it did not come to an answer.
        cost: US dollars of all its requests; None: unknown.
        largest_alone: US dollars of the largest model alone; None: unknown.
        is_estimate: Whether `largest_alone` is an estimate, as where that model was not asked.
        seconds: Seconds of each stage: `draft`, `verify`, `route`, `escalate`.
        duration: Seconds from the request to the end of the response.
        policy: Version of the policy that decided; None: there is none.
        status: HTTP status that the client got, or would have got; 499: it went away.
        streamed: Whether the answer was asked for as a stream.
        key: Name of the client's key; None: no keys are set.
        degraded: Why the answer is less than it would be, had nothing gone wrong.
        error: Code of the error that ended it, such as `timeout`; None: there was none.
        question: What the user said last; None: texts may not be shown.
    """

    at: float
    id: str
    mix: str
    outcome: Outcome
    model: str | None = None
    why: str | None = None
    cost: Decimal | None = None
    largest_alone: Decimal | None = None
    is_estimate: bool = False
    seconds: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    duration: float = 0.0
    policy: str | None = None
    status: int = 200
    streamed: bool = False
    key: str | None = None
    degraded: str | None = None
    error: str | None = None
    question: str | None = None

    @property
    def is_answered(self) -> bool:
        """Whether its client got an answer, be it that of a mix that abstained."""
        return self.outcome in ("kept", "escalated", "abstained")


Observer = Callable[[ServedQuery], object]
"""Is told of each query that has ended, one after the other, in a thread of its own."""


class RecordListener(BaseCallbackHandler):
    """Keeps the record that the run of a query announces, finished or not."""

    run_inline = True
    hears_requests_only = True

    def __init__(self) -> None:
        self.record: Mapping[str, Any] | None = None
        """The record, with `seconds` by stage if the query was answered; None: not begun."""

    @override
    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        is_record = name == "automix" and isinstance(data, Mapping)
        if is_record and not is_inside_mix(kwargs.get("tags")):
            self.record = data


def told_by(record: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the fields of a `ServedQuery` that its record tells."""
    if record is None:
        return {}
    cost = None if record["cost"] is None else dollars_of(record["cost"])
    if "unfinished" in record:
        return {"cost": cost}
    alone = list(record["alone"].values())[-1]
    largest = None if alone["cost"] is None else dollars_of(alone["cost"])
    return {
        "outcome": _outcome(record),
        "model": None if record["action"] == "abstain" else record["model"],
        "why": record["why"],
        "cost": cost,
        "largest_alone": largest,
        "is_estimate": bool(alone["estimate"]),
        "seconds": MappingProxyType(dict(record.get("seconds") or {})),
        "degraded": record["degraded"],
    }


def _outcome(record: Mapping[str, Any]) -> Outcome:
    if record["action"] == "abstain":
        return "abstained"
    return "escalated" if record["escalated"] else "kept"


class Observers:
    """Tells observers of ended queries, beside the queries: none can delay or break one."""

    def __init__(self) -> None:
        self._inboxes: tuple[_Inbox, ...] = ()
        self._dropped_before = 0

    @property
    def dropped(self) -> int:
        """How often an observer was not told of a query, for too many were waiting for it."""
        return self._dropped_before + sum(inbox.dropped for inbox in self._inboxes)

    def add(self, observer: Observer) -> None:
        """Have an observer told of each query that ends from now on."""
        self._inboxes = (*self._inboxes, _Inbox(observer))

    def remove(self, observer: Observer) -> None:
        """Tell an observer no more."""
        removed = [inbox for inbox in self._inboxes if inbox.observer == observer]
        self._inboxes = tuple(inbox for inbox in self._inboxes if inbox not in removed)
        for inbox in removed:
            inbox.close()
            self._dropped_before += inbox.dropped

    def tell(self, query: ServedQuery) -> None:
        """Have the observers told of a query, without waiting for them."""
        for inbox in self._inboxes:
            inbox.put(query)

    def flush(self) -> None:
        """Wait until the observers were told of every query that has ended."""
        for inbox in self._inboxes:
            inbox.flush()

    def close(self, seconds: float = 5.0) -> None:
        """Let the observers hear of what has ended, and end their threads.

        Args:
            seconds: How long to wait for them at most.
        """
        deadline = time.monotonic() + seconds
        for inbox in self._inboxes:
            inbox.close()
        for inbox in self._inboxes:
            inbox.join(deadline - time.monotonic())


class _Inbox:
    """The queries that wait for one observer, which one that is slow does not keep from others."""

    def __init__(self, observer: Observer) -> None:
        self.observer, self.dropped = observer, 0
        self._waiting: queue.Queue[ServedQuery | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, query: ServedQuery) -> None:
        with self._lock:
            try:
                self._waiting.put_nowait(query)
            except queue.Full:
                self.dropped += 1
                return
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="automix-observers", daemon=True
                )
                self._thread.start()

    def flush(self) -> None:
        self._waiting.join()

    def close(self) -> None:
        """End the thread once it has told what is waiting; a further query starts another."""
        with self._lock, contextlib.suppress(queue.Full):
            if self._thread is not None:
                self._waiting.put_nowait(None)

    def join(self, seconds: float) -> None:
        if (thread := self._thread) is not None:
            thread.join(max(0.0, seconds))

    def _run(self) -> None:
        while self._told(self._waiting.get()):
            pass

    def _told(self, query: ServedQuery | None) -> bool:
        """Tell the observer of a query; return whether more may come."""
        try:
            if query is None:
                with self._lock:
                    if self._waiting.empty():
                        self._thread = None
                        return False
                return True
            self.observer(query)
        except Exception:
            _LOGGER.warning("an observer of queries failed", exc_info=True)
        finally:
            self._waiting.task_done()
        return True
