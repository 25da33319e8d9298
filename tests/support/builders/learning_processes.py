"""Processes with a mix each that learn from one store, and the bill of all their requests."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import random
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from typing_extensions import override

from langchain_automix import AutoMixRunnable, Learning, SelfVerifier
from langchain_automix.learning.budget import PURSE
from langchain_automix.learning.records import Event, PolicyVersion, StoredQuery
from langchain_automix.learning.reviewing import Reviewer
from langchain_automix.learning.store.store import LearningStore
from langchain_automix.mix.shadow import SHADOW_TAG
from tests.support.builders.scripted_replies import ACCEPT, REJECT

NAMES = "abcd"
PRICES = {"small": {"input": 1, "output": 2}, "large": {"input": 10, "output": 20}}
AT_ONCE = 25
"""Queries between two flushes."""

AT_MOST = 5.0
"""Seconds from a promotion until all processes decide by it."""

Line = dict[str, Any]


class Billed(BaseChatModel):
    """Answers at once with the number of a house, and notes each request in a file.

    The small one is right about seven of ten houses, and its check mostly tells.
    """

    name_of_model: str
    bill: int
    """A file that is open for appending: what is written there outlives a kill."""

    temperature: float = 0.0

    @property
    @override
    def _llm_type(self) -> str:
        return "billed"

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        asked = "".join(str(message.text) for message in messages)
        house = _house(asked)
        chance = random.Random(house)
        is_known = chance.random() < 0.7
        tells = chance.random() < 0.9
        tokens = {"input": len(asked) // 4, "output": 3 + chance.randrange(20)}
        if "You check answers" in asked:
            text = ACCEPT if is_known == tells else REJECT
        else:
            text = house if is_known or self.name_of_model == "large" else "none"
        tags = run_manager.tags if run_manager else []
        line: Line = {
            "house": house,
            "stage": "shadow" if SHADOW_TAG in tags else "query",
            "micros": sum(PRICES[self.name_of_model][k] * n for k, n in tokens.items()),
        }
        os.write(self.bill, f"{json.dumps(line)}\n".encode())
        usage = {f"{kind}_tokens": number for kind, number in tokens.items()}
        message = AIMessage(
            text,
            usage_metadata={**usage, "total_tokens": sum(usage.values())},
            response_metadata={"model_name": self.name_of_model},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def mix_on(url: str, bill: int, **settings: Any) -> AutoMixRunnable:
    """Return a mix of two such models that learns from a store."""
    small, large = (Billed(name_of_model=name, bill=bill) for name in PRICES)
    settings = {"max_loss": 0.1, "keep_texts": True, "share": 0.1, **settings}
    learning = Learning(url, **settings)
    check = SelfVerifier(samples=1)
    return AutoMixRunnable.from_models(
        small, large, verifier=check, prices=PRICES, learning=learning
    )


class Learner:
    """A process that asks a mix again and again, and says what it has seen.

    It says the number of its queries that are acknowledged, each version when it first decides a
    query, and when it reviewed.
    """

    def __init__(
        self, name: str, url: str, bill: Path, queries: int, pause: float, **settings: Any
    ) -> None:
        context = multiprocessing.get_context("fork")
        self.name = name
        self._said, end = context.Pipe(duplex=False)
        args = (name, url, bill, queries, pause, settings, end)
        self.process = context.Process(target=_work, args=args)
        self.process.start()
        end.close()
        self.acknowledged = 0
        self.heard = 0.0
        """When it acknowledged its last queries so far."""

        self.versions: list[tuple[float, int]] = []
        """When it first decided by which version, each time that it changed."""

        self.reviews: list[tuple[float, float]] = []

    def listen(self, seconds: float) -> bool:
        """Take in what it says for a while; False: it has ended."""
        until = time.monotonic() + seconds
        try:
            while self._said.poll(max(0.0, until - time.monotonic())):
                kind, value = self._said.recv()
                if kind == "acknowledged":
                    self.acknowledged, self.heard = value
                else:
                    (self.versions if kind == "version" else self.reviews).append(value)
        except EOFError:
            return False
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        while self.listen(0.1):
            pass


def _work(
    name: str,
    url: str,
    bill: Path,
    queries: int,
    pause: float,
    settings: dict[str, Any],
    end: Any,
) -> None:
    opened = os.open(bill, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    mix = mix_on(url, opened, **settings)
    learning: Any = mix.learning
    version = 0
    with _timed_reviews(end):
        for i in range(1, queries + 1):
            record = mix.invoke(f"What is the number of house {name}{i}?").response_metadata
            if (found := record["automix"]["learning"]["version"]) != version:
                version = found
                end.send(("version", (time.time(), version)))
            if i % AT_ONCE == 0 or i == queries:
                if not learning.flush(60):
                    raise AssertionError(learning.status())
                end.send(("acknowledged", (i, time.time())))
                time.sleep(pause)
    learning.close()


@contextmanager
def _timed_reviews(end: Any) -> Iterator[None]:
    """Have it said from when to when reviews were made."""
    whole = Reviewer._review

    def timed(reviewer: Reviewer, store: LearningStore) -> Any:
        begun = time.time()
        found = whole(reviewer, store)
        end.send(("review", (begun, time.time())))
        return found

    with patch.object(Reviewer, "_review", timed):
        yield


@dataclass
class Outcome:
    """What became of some processes, the first of which was killed."""

    each: int
    """Queries of a process that was not killed."""

    learners: Sequence[Learner]
    rows: list[StoredQuery]
    events: list[Event]
    versions: list[PolicyVersion]
    bill: list[Line]
    spent: float
    """US dollars in the purse of the shadows."""

    seconds: float
    repeated: int
    """Rows of a house that has another one."""

    counted: dict[tuple[str, str], int] = field(init=False)
    """Millionths of a dollar, by house and stage."""

    def __post_init__(self) -> None:
        counted = defaultdict[tuple[str, str], int](int)
        for line in self.bill:
            counted[line["house"], line["stage"]] += line["micros"]
        self.counted = dict(counted)

    @property
    def houses(self) -> dict[str, StoredQuery]:
        """The rows, by the house that was asked for."""
        return {house_of(row): row for row in self.rows}

    @property
    def lost(self) -> list[str]:
        """Houses whose query was acknowledged, and is not in the store."""
        asked = {f"{one.name}{i}" for one in self.learners for i in range(1, one.acknowledged + 1)}
        return sorted(asked - self.houses.keys())

    @property
    def at_once(self) -> int:
        """Pairs of reviews that overlap."""
        reviews = sorted(span for one in self.learners for span in one.reviews)
        pairs = itertools.pairwise(reviews)
        return sum(later[0] < earlier[1] for earlier, later in pairs)

    def waits(self, at_most: float = AT_MOST) -> list[float]:
        """Return the seconds from each change of the champion until each process decided by it.

        Infinity: it went on for longer than `at_most` and never did. Where a process was about to
        end, or the champion to change again, it says nothing.
        """
        changes = [e for e in self.events if e.kind in ("promoted", "rolled back")]
        found = []
        for event, until in zip(changes, [*(e.at for e in changes[1:]), math.inf], strict=False):
            for one in self.learners[1:]:
                seen = [at for at, number in one.versions if number == event.detail["version"]]
                wait = min((at for at in seen if event.at <= at), default=math.inf) - event.at
                if math.isfinite(wait) or min(until, one.heard) - event.at > at_most:
                    found.append(wait)
        return found

    @property
    def wrong(self) -> list[str]:
        """Houses whose row does not say what its requests cost, its shadow's included."""
        return [house for house, row in self.houses.items() if not self._is_right(house, row)]

    def _is_right(self, house: str, row: StoredQuery) -> bool:
        own, beside = (self.counted.get((house, stage), 0) for stage in ("query", "shadow"))
        is_right = row.query.cost is not None and round(row.query.cost * 1e6) == own
        if row.is_shadowed:
            return (
                is_right and row.shadow_cost is not None and round(1e6 * row.shadow_cost) == beside
            )
        # Only a kill may come between a shadow and its row.
        return is_right and (beside == 0 or house.startswith(self.learners[0].name))

    def total(self, stage: str) -> float:
        """Return the dollars of the bill."""
        return sum(m for (_, kind), m in self.counted.items() if kind == stage) / 1e6

    @property
    def booked(self) -> float:
        """Dollars of all rows, shadows included."""
        return math.fsum((row.query.cost or 0) + (row.shadow_cost or 0) for row in self.rows)

    @property
    def billed(self) -> float:
        """Dollars of all requests that belong to a row, or to the shadow of one."""
        known = {(house, "query") for house in self.houses}
        known |= {(house, "shadow") for house, row in self.houses.items() if row.is_shadowed}
        return sum(self.counted.get(key, 0) for key in known) / 1e6

    @property
    def dearest_shadow(self) -> float:
        return (
            max((m for (_, kind), m in self.counted.items() if kind == "shadow"), default=0) / 1e6
        )


def house_of(row: StoredQuery) -> str:
    texts: Any = row.query.texts
    return _house(str(texts["question"]))


def _house(asked: str) -> str:
    found = re.search(r"number of house (\w+)", asked)
    assert found is not None
    return found[1]


def run_processes(
    url: str, folder: Path, queries: int, pause: float = 0.0, **settings: Any
) -> Outcome:
    """Have four processes ask so many queries in all; the first is killed in the middle.

    Args:
        url: Of the store.
        folder: Where the bill is kept.
        queries: Of all processes.
        pause: Seconds that each waits after it flushed, so that few queries last for many reviews.
        **settings: Of their `Learning`.
    """
    begun = time.monotonic()
    bill, each = folder / "bill.jsonl", queries // len(NAMES)
    learners = [Learner(name, url, bill, each, pause, **settings) for name in NAMES]
    running = list(learners)
    while running:
        for one in list(running):
            if not one.listen(0.05):
                running.remove(one)
        if learners[0] in running and learners[0].acknowledged >= each // 2:
            learners[0].kill()
            running.remove(learners[0])
    for one in learners[1:]:
        one.process.join(60)
        assert one.process.exitcode == 0, one.name
    seconds = time.monotonic() - begun
    store = LearningStore.open(url)
    epoch = store.newest_epoch()
    assert epoch is not None
    rows, _ = store.read(epoch)
    return Outcome(
        each,
        learners,
        rows,
        store.events(epoch),
        store.versions(epoch),
        [json.loads(line) for line in bill.read_text().splitlines()],
        store.spent(PURSE),
        seconds,
        len(rows) - len({house_of(row) for row in rows}),
    )
