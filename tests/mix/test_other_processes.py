"""A mix and what it shares, sent to another process or inherited by a fork."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel

from langchain_automix import (
    AutoMixMiddleware,
    AutoMixRunnable,
    AutoMixTotals,
    ChatAutoMix,
    CircuitBreaker,
    SpendLimit,
    SpendWarning,
    UncalibratedWarning,
)
from langchain_automix.mix.limits.latency import LatencyEstimator
from langchain_automix.mix.limits.ledger import Settlement
from langchain_automix.mix.limits.stores import open_store

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{UncalibratedWarning.__module__}.UncalibratedWarning"
)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


EVENT = {
    "unfinished": True,
    "unpriced": [],
    "tokens": None,
    "cost": "0 USD",
    "verdicts": [],
    "escalated": False,
    "drawn": 0,
}


def models() -> Any:
    return [FakeListChatModel(responses=[text]) for text in ("Turku", "Oslo")]


def settings() -> Any:
    return {"spend_limit": SpendLimit(1), "circuit_breaker": CircuitBreaker(failures=2)}


def answer(pickled: bytes) -> str:
    return str(pickle.loads(pickled).invoke("Where?").text)


@pytest.mark.parametrize("form", [AutoMixRunnable, ChatAutoMix])
def test_a_mix_goes_to_a_spawned_process(form: Any) -> None:
    mix = form(models=models(), circuit_breaker=CircuitBreaker())
    mix.invoke("Where?")  # what it keeps from a query goes with it, or stays
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(answer, (pickle.dumps(mix),)) in ("Turku", "Oslo")


def test_everything_that_a_mix_shares_can_be_pickled() -> None:
    middleware: Any = AutoMixMiddleware(models=models(), circuit_breaker=CircuitBreaker())
    for each in (middleware, *settings().values(), AutoMixTotals(), LatencyEstimator()):
        again = pickle.loads(pickle.dumps(each))
        assert type(again) is type(each)
    limit = SpendLimit("2 USD", by="tenant", name="n", store="redis://user:secret@127.0.0.1:1/0")
    again = pickle.loads(pickle.dumps(limit))
    assert (again.limit, again.by, again.name, again.store) == (2, "tenant", "n", limit.store)
    breaker = CircuitBreaker(failures=1, cool_down=7)
    breaker.failed("model")
    again = pickle.loads(pickle.dumps(breaker))
    assert (again.failures, again.cool_down, again.state("model")) == (1, 7, "closed")


def test_totals_keep_what_they_counted() -> None:
    totals = AutoMixTotals()
    totals.queries, totals.tokens["input"] = 3, 7
    again = pickle.loads(pickle.dumps(totals))
    assert (again.queries, again.tokens["input"], again.cost) == (3, 7, totals.cost)


def in_a_fork(work: Callable[[], object]) -> int:
    """Fork, work there, and return the exit code: 0 if it returned something true."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            signal.alarm(20)
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@needs_fork
@pytest.mark.parametrize(
    ("shared", "use"),
    [
        (CircuitBreaker(), lambda breaker: breaker.state("model")),
        (LatencyEstimator(), lambda pace: pace.expected("answer", 0) is None),
        (AutoMixTotals(), lambda totals: totals.on_custom_event("automix", EVENT) is None),
    ],
    ids=["breaker", "latency", "totals"],
)
def test_a_lock_that_is_held_at_fork_does_not_hang_the_child(shared: Any, use: Any) -> None:
    with shared._lock:
        assert in_a_fork(lambda: use(shared)) == 0
    use(shared)


@needs_fork
def test_the_lock_of_a_limit_that_is_held_at_fork() -> None:
    limit = SpendLimit(1, when_spent="raise")
    with limit.books._lock:  # type: ignore[attr-defined]
        assert in_a_fork(lambda: limit.used() == "0 USD") == 0


def warned(limit: SpendLimit) -> bool:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        limit.used()
        limit.used()
    texts = [str(each.message) for each in told if each.category is SpendWarning]
    return len(texts) == 1 and "another process" in texts[0]


@needs_fork
def test_a_limit_in_memory_warns_in_a_fork_once() -> None:
    limit = SpendLimit(1)
    limit.books.settle("all", "q", Settlement(5), limit.terms)
    assert in_a_fork(lambda: warned(limit)) == 0
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert limit.used() != "0 USD"
    assert not found


def test_a_limit_in_memory_warns_in_a_spawned_process() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(warned, (SpendLimit(1),))


def test_no_dump_holds_the_password_of_a_store() -> None:
    pytest.importorskip("redis")
    for url in (
        "redis://user:secret@127.0.0.1:1/0",
        "rediss://:secret@127.0.0.1:1",
        "redis://127.0.0.1:1/0?password=secret&db=1",
        "unix://user:secret@/tmp/redis.sock",
        "redis://:a@secret@127.0.0.1:1/0",
    ):
        limit = SpendLimit(1, store=url)
        told = (repr(limit), str(limit.model_dump()), limit.model_dump_json(), limit.describe())
        assert not [text for text in told if "secret" in text]
        assert limit.store == url
        assert open_store(limit.store, "n") is not None
