"""Records for a learning store, and processes that use one."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Mapping
from typing import Any

from langchain_automix.learning.records import (
    AnswerRecord,
    GradeRecord,
    PolicyVersion,
    QueryRecord,
    RequestRecord,
    ShadowRecord,
)
from langchain_automix.learning.store.store import LearningStore
from langchain_automix.learning.store.writer import StoreWriter

Say = Callable[[Any], None]


def query(id: str = "q", at: float = 0.0, **fields: Any) -> QueryRecord:
    """A query of two models that the first one answered, and that a check found right."""
    values: dict[str, Any] = {
        "epoch": "e",
        "version": 0,
        "stage": "policy",
        "kept": 0,
        "share": 0.25,
        "is_drawn": True,
        "ending": "answered",
        "cost": 0.001,
        "alone": 0.01,
        "answers": (AnswerRecord(0, 0.0008, {"verdicts": [True, False, None], "fixed_cost": 0.0}),),
        "requests": (RequestRecord("query", "small", 100, 10, 0.0008),),
        "run_id": f"run-{id}",
    }
    return QueryRecord(id, at, **{**values, **fields})


def shadow(query_id: str = "q", at: float = 1.0, **fields: Any) -> ShadowRecord:
    """The shadow that asked the second model."""
    values: dict[str, Any] = {
        "answers": (AnswerRecord(1, 0.01, is_shadow=True),),
        "requests": (RequestRecord("shadow", "large", 100, 10, 0.01),),
        "cost": 0.01,
    }
    return ShadowRecord(query_id, at, **{**values, **fields})


def grade(query_id: str = "q", model: int = 0, quality: float = 1.0, **fields: Any) -> GradeRecord:
    return GradeRecord(
        **{
            "query_id": query_id,
            "model": model,
            "quality": quality,
            "source": "agreement",
            "at": 2.0,
            **fields,
        }
    )


def version(epoch: str = "e", **fields: Any) -> PolicyVersion:
    values: dict[str, Any] = {"number": 0, "epoch": epoch, "at": 1.0, "policy": "{}"}
    return PolicyVersion(**{**values, "status": "challenger", "why": "It was fitted.", **fields})


class Child:
    """A process that carries out a verb below: a fork, which starts in no time."""

    def __init__(self, verb: str, url: str, given: Mapping[str, Any]) -> None:
        context = multiprocessing.get_context("fork")
        self._said, end = context.Pipe(duplex=False)
        self._process = context.Process(target=_carry_out, args=(verb, url, given, end.send))
        self._process.start()
        end.close()

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def hear(self) -> Any:
        """Wait for what it says next."""
        return self._said.recv()

    def rest(self) -> list[Any]:
        """Return what it has said until it ended."""
        found = []
        with contextlib.suppress(EOFError):
            while True:
                found.append(self.hear())
        return found

    def finish(self) -> list[Any]:
        found = self.rest()
        self._process.join(60)
        assert self._process.exitcode == 0
        return found

    def kill(self) -> list[Any]:
        """Kill it; return what it had said by then."""
        self._process.kill()
        self._process.join()
        return self.rest()


def start(verb: str, url: str, **given: Any) -> Child:
    return Child(verb, url, given)


def _carry_out(verb: str, url: str, given: Mapping[str, Any], say: Say) -> None:
    _VERBS[verb](LearningStore.open(url), say, **given)


def _write(
    store: LearningStore, say: Say, name: str, rows: int, flush_every: int, epoch: str = "e"
) -> None:
    """Put queries, and say after each flush how many of them, from the first one on, are stored.

    What comes after the last flush is written at the end of the process.
    """
    writer = StoreWriter(store, size=rows)
    say(0)
    for i in range(1, rows + 1):
        assert writer.put(query(f"{name}-{i}", float(i), epoch=epoch))
        if i % flush_every == 0:
            assert writer.flush(60)
            say(i)


def _spend(
    store: LearningStore, say: Say, amount: float, limit: float, seconds: float, *, die: bool
) -> None:
    """Reserve and settle until the limit refuses; say what was spent."""
    spent, until = 0.0, time.monotonic() + seconds
    while time.monotonic() < until:
        token = store.reserve_spend("shadows", amount, limit)
        if token is None:
            break
        if die and spent > 0:
            say({"spent": spent, "reserved": amount})
            time.sleep(60)  # is killed here
        store.settle_spend(token, amount)
        spent = round(spent + amount, 9)
    say({"spent": spent, "reserved": 0.0})


def _hold(store: LearningStore, say: Say, seconds: float) -> None:
    """Hold a lock until the process is killed."""
    with store.lock("fit", seconds) as is_held:
        say(is_held)
        time.sleep(60)


def _take_turns(store: LearningStore, say: Say, turns: int) -> None:
    """Take a lock some times; say from when until when it was held."""
    held: list[tuple[float, float]] = []
    while len(held) < turns:
        with store.lock("fit", 5) as is_held:
            if is_held:
                begun = time.time()
                time.sleep(0.01)
                held.append((begun, time.time()))
        time.sleep(0.005)
    say(held)


def _promote(store: LearningStore, say: Say, numbers: list[int], turns: int) -> None:
    """Promote and roll back, whatever the others do."""
    for turn in range(turns):
        store.promote(numbers[turn % len(numbers)], "It is better.")
        store.rollback("e", "It loses.")
    say("done")


def _open(store: LearningStore, say: Say) -> None:
    say(store.totals().queries)


_VERBS: Mapping[str, Callable[..., None]] = {
    "open": _open,
    "write": _write,
    "spend": _spend,
    "hold": _hold,
    "take turns": _take_turns,
    "promote": _promote,
}
