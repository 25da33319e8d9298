"""What a mix adds to its models' calls, beside what users write by hand and what peers add.

Processor time of all threads, with models that answer at once. All are measured in turns, and the
ratios are those of one round, so that what else the machine does falls on all alike.
"""

# ruff: noqa: T201

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from langchain_automix import (
    AutoMixRunnable,
    LogProbabilityVerifier,
    POMDPRouter,
    RoutingLog,
    SelfVerifier,
    ThresholdRouter,
)
from tests.benchmarks import peers
from tests.benchmarks.by_hand import FORMS, LEAST, SURE, UNSURE, Instant, Plain
from tests.benchmarks.event_loop import blocked
from tests.benchmarks.surface import EASY_QUESTION, HARD_QUESTION, quietly
from tests.benchmarks.timing import compared, frozen, in_turns
from tests.support.builders.synthetic_logs import query

ANSWER = "The Halcyon was built in Turku, at the yard of Crichton-Vulcan, in 1938, as a ferry."
QUESTIONS = {"kept": EASY_QUESTION, "escalated": HARD_QUESTION}
SMALL, LARGE = "gpt-4o-mini", "gpt-4o"
"""Names of which cascadeflow knows the prices: it prints a line a call for others."""

PRICES = {SMALL: {"input": 0.15, "output": 0.6}, LARGE: {"input": 2.5, "output": 10}}
KEPT_BY = {"kept": SMALL, "escalated": LARGE}

Row = tuple[str, ...]
Way = Callable[[Any, str, int], None]


class Contender(NamedTuple):
    """Something that answers a question."""

    name: str
    answers: Any
    check: str
    """`free` or `self`: by which of the ways by hand it is measured."""


def contenders(sleep: float = 0.0) -> list[Contender]:
    """Return all that are compared, of models that answer after so many seconds."""
    small, checked, large = (
        Instant(name_of_model=name, model_name=name, text=text, sleep=sleep)
        for name, text in ((SMALL, ANSWER), (SMALL, None), (LARGE, ANSWER))
    )
    told = small.model_copy(update={"logprobs": True})
    found = [Contender("one model call", small, "free")]
    found += [
        Contender(f"by hand, free check: {form}", build(told, large, self_check=False), "free")
        for form, build in FORMS.items()
    ]
    found += [
        Contender(f"mix, free check: {name}", mix, "free") for name, mix in _free(small, large)
    ]
    found += [
        Contender(name, peer, "free") for name, peer in peers.cascadeflow(small, large).items()
    ]
    found.append(Contender("with_fallbacks", peers.fallbacks(small, large), "free"))
    found += [
        Contender(f"by hand, self-check: {form}", build(checked, large, self_check=True), "self")
        for form, build in FORMS.items()
    ]
    found += [
        Contender(f"mix, self-check: {name}", mix, "self") for name, mix in _self(checked, large)
    ]
    return found


def _free(small: Instant, large: Instant) -> Iterator[tuple[str, AutoMixRunnable]]:
    verifier = LogProbabilityVerifier(statistic="min")
    for name, router in _routers(lambda right: SURE if right else UNSURE):
        fields: dict[str, Any] = {"verifier": verifier, "router": router, "prices": PRICES}
        yield name, AutoMixRunnable.from_models(small, large, **fields)


def _self(small: Instant, large: Instant) -> Iterator[tuple[str, AutoMixRunnable]]:
    verifier = SelfVerifier(samples=1)
    for name, router in _routers(lambda right: [right]):
        fields: dict[str, Any] = {"verifier": verifier, "router": router, "prices": PRICES}
        yield name, AutoMixRunnable.from_models(small, large, **fields)


def _routers(finding: Callable[[bool], Any]) -> Iterator[tuple[str, Any]]:
    """Yield a threshold, and a policy fitted to queries of which a check tells what is right."""
    log = RoutingLog([query(i, float(i % 2), 1.0, finding(bool(i % 2))) for i in range(200)])
    with quietly():
        yield "threshold", ThresholdRouter(threshold=LEAST)
        yield "fitted policy", POMDPRouter.fit(log, cost_weight=0.05)


def _invoke(each: Any, question: str, size: int) -> None:
    for _ in range(size):
        each.invoke(question)


def _ainvoke(each: Any, question: str, size: int) -> None:
    async def ask() -> None:
        for _ in range(size):
            await each.ainvoke(question)

    asyncio.run(ask())


def _batch(each: Any, question: str, size: int) -> None:
    if isinstance(each, Plain):
        with ThreadPoolExecutor() as pool:
            list(pool.map(each.invoke, [question] * size))
    else:
        each.batch([question] * size)


async def abatch(each: Any, question: str, size: int) -> None:
    """Ask a question so many times at once."""
    if isinstance(each, Plain):
        await asyncio.gather(*(each.ainvoke(question) for _ in range(size)))
    else:
        await each.abatch([question] * size)


def _abatch(each: Any, question: str, size: int) -> None:
    asyncio.run(abatch(each, question, size))


WAYS: dict[str, Way] = {
    "invoke": _invoke,
    "ainvoke": _ainvoke,
    "batch": _batch,
    "abatch": _abatch,
}


def check_answers(found: list[Contender]) -> None:
    """Fail unless each answers by the model that it is to answer by."""
    for each in found[1:]:
        for case, question in QUESTIONS.items():
            answer = each.answers.invoke(question)
            assert answer.response_metadata["model_name"] == KEPT_BY[case], (each.name, case)


def rows(found: list[Contender], way: str, size: int, rounds: int) -> Iterator[Row]:
    """Yield each contender's time a call, and its ratio to the ways by hand."""
    works = {
        (each.name, case): partial(WAYS[way], each.answers, question, size)
        for each in found
        for case, question in QUESTIONS.items()
        if each.name != found[0].name or case == "kept"
    }
    taken = in_turns(works, rounds)
    checks = {each.name: each.check for each in found}
    for name, case in works:
        spent = taken[name, case]
        hands = [f"by hand, {_CHECKS[checks[name]]}: {form}" for form in FORMS]
        ratios = ("1" if name == hand else compared(spent, taken[hand, case]) for hand in hands)
        label = name if name == found[0].name else f"{name}, {case}"
        yield label, f"{median(spent) / size * 1e3:.2f}", *ratios


_CHECKS = {"free": "free check", "self": "self-check"}


def tables(
    single: tuple[int, int] = (50, 15), batch: tuple[int, int] = (1_000, 5)
) -> Iterator[tuple[Row, list[Row]]]:
    """Yield a table a way to ask, and one of how long the event loop is blocked.

    Args:
        single: Calls in a round, and rounds, of `invoke` and `ainvoke`.
        batch: The same of `batch` and `abatch`.
    """
    with quietly():
        found = contenders()
        check_answers(found)
        if not any(each.name.startswith("cascadeflow") for each in found):
            print(f"{peers.WITHOUT}\n")
        for way in WAYS:
            size, rounds = batch if "batch" in way else single
            heads = f"{way}, {rounds} rounds of {size:,}", "ms a call", *(f"/ {f}" for f in FORMS)
            yield heads, list(rows(found, way, size, rounds))
        with frozen():
            heads = f"abatch after gc.freeze(), {heads[0].partition(', ')[2]}", *heads[1:]
            yield heads, list(rows(found, "abatch", *batch))
        yield HEADS, list(blocked_rows(batch[0], min(batch[1], 3)))


HEADS = (
    "asyncio; the longest of the loop's thread, ms of processor time",
    "one step",
    "between two beats",
    "ms on the clock",
)


def blocked_rows(size: int, rounds: int) -> Iterator[Row]:
    """Yield how long each keeps the event loop from everything else: the longest of all rounds."""
    cases: dict[str, tuple[float, Callable[[Any], Any]]] = {
        f"abatch of {size:,}, instant models": (0.0, partial(_at_once, size=size)),
        f"abatch of {size:,}, models of 20 ms": (0.02, partial(_at_once, size=size)),
        "ainvokes one by one, models of 1 ms": (0.001, partial(_one_by_one, size=size // 10)),
    }
    for case, (sleep, work) in cases.items():
        for each in contenders(sleep):
            _abatch(each.answers, HARD_QUESTION, 1)  # what the first call alone does
            found = [asyncio.run(blocked(partial(work, each.answers))) for _ in range(rounds)]
            columns = (f"{max(column) * 1e3:.1f}" for column in zip(*found, strict=True))
            yield f"{case}: {each.name}", *columns


async def _at_once(each: Any, size: int) -> None:
    await abatch(each, HARD_QUESTION, size)


async def _one_by_one(each: Any, size: int) -> None:
    for _ in range(size):
        await each.ainvoke(HARD_QUESTION)
