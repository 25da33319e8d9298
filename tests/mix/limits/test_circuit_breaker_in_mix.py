"""A failing model is passed over by the mix, over the wire, until it answers again."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from langchain_automix import ChatAutoMix, CircuitBreaker, POMDPRouter, SpendLimit, ThresholdRouter
from langchain_automix.errors import CircuitOpenError, DeadlineError, ModelsFailedError
from tests.support.builders.mixes import mix, record_of
from tests.support.builders.scripted_replies import Body, Error
from tests.support.builders.spending import PRICES
from tests.support.builders.synthetic_logs import world
from tests.support.builders.waiting import Gate
from tests.support.servers.openai_server import OpenAIServer, answering, is_check

ROUTER = POMDPRouter.fit(world(300))


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _failing(*models: str, status: int = 500) -> Any:
    well = answering("a small answer", "a large answer")
    return lambda body: status if body["model"] in models else well(body)


def _asked(server: OpenAIServer) -> list[str]:
    found = [body["model"] for body in server.requests]
    server.requests.clear()
    return found


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


def test_it_opens_and_closes_again(server: OpenAIServer, clock: _Clock) -> None:
    breaker = CircuitBreaker(3, 30, clock=clock)
    automix = mix(server, circuit_breaker=breaker)
    small = automix.models[0]
    server.script = _failing("small")
    for _ in range(3):
        assert record_of(automix.invoke("a"))["model"] == "large"
    assert _asked(server) == ["small", "large"] * 3
    assert breaker.state(small) == "open"

    record = record_of(asyncio.run(automix.ainvoke("a")))
    assert _asked(server) == ["large"]
    assert [(each["model"], each["error"]) for each in record["failed"]] == [
        ("small", "CircuitOpenError")
    ]

    clock.now = 30
    list(automix.stream("a"))  # the trial
    assert _asked(server) == ["small", "large"]
    assert breaker.state(small) == "open"

    clock.now = 60
    server.script = answering("a small answer", "a large answer")
    assert record_of(automix.batch(["a"])[0])["model"] == "small"
    assert breaker.state(small) == "closed"


def test_what_is_passed_over_costs_nothing(server: OpenAIServer, clock: _Clock) -> None:
    limit = SpendLimit(100)
    automix = mix(
        server, circuit_breaker=CircuitBreaker(1, 30, clock=clock), spend_limit=limit, prices=PRICES
    )
    server.script = _failing("small")
    automix.invoke("a")
    record = record_of(automix.invoke("a"))
    assert record["unpriced"] == []
    assert record["cost"] == record["alone"]["large"]["cost"]


def test_the_fault_of_a_request_is_not_the_models(server: OpenAIServer) -> None:
    breaker = CircuitBreaker(1)
    automix = mix(server, circuit_breaker=breaker)
    server.script = _failing("small", status=400)
    for _ in range(3):
        assert record_of(automix.invoke("a"))["model"] == "large"
    assert _asked(server) == ["small", "large"] * 3


def test_an_upstream_error_in_an_answer_with_status_200(server: OpenAIServer) -> None:
    breaker = CircuitBreaker(2)
    automix = mix(server, circuit_breaker=breaker)
    failed = Error(200, '{"error": {"message": "Provider returned error", "code": 502}}')
    well = _failing()
    server.script = lambda body: failed if body["model"] == "small" else well(body)
    for _ in range(3):
        assert record_of(automix.invoke("a"))["model"] == "large"
    assert _asked(server) == ["small", "large", "small", "large", "large"]


@pytest.mark.parametrize("hedge", [None, 0.0])
@pytest.mark.parametrize(("model", "state"), [("small", "open"), ("large", "closed")])
def test_a_deadline_counts_where_there_was_time(
    server: OpenAIServer, model: str, state: str, hedge: float | None
) -> None:
    """The large model comes after a check that took most of the time: it may be well."""
    breaker = CircuitBreaker(1)
    fields: dict[str, Any] = {"router": ROUTER, "hedge": hedge, "max_latency": 4.0}
    automix = mix(server, circuit_breaker=breaker, on_escalation_error="answer", **fields)
    server.script = answering("a small answer", "a large answer", verdicts="r")
    # Who is given up answers when all is over; small takes more than half of the time, and leaves
    # a slow machine more than a second for the rest.
    is_over = threading.Event()

    def delay(body: Body) -> float:
        if body["model"] == model and not is_check(body):
            is_over.wait(60)
        return 2.2 if body["model"] == "small" and model == "large" and not is_check(body) else 0.0

    server.delay = delay
    with contextlib.suppress(DeadlineError):
        automix.invoke("a")
    is_over.set()
    assert model in _asked(server)
    assert breaker.state(automix.models[model == "large"]) == state


def test_mixes_share_it(server: OpenAIServer) -> None:
    breaker = CircuitBreaker(1)
    models: Any = [server.model("small"), server.model("large")]
    one = mix(server, circuit_breaker=breaker)
    other = ChatAutoMix(models=models, circuit_breaker=breaker, router=ThresholdRouter())
    server.script = _failing("small")
    one.invoke("a")
    other.invoke("a")
    other.bind_tools([]).invoke("a")
    assert _asked(server) == ["small", "large", "large", "large"]


def test_where_all_are_open_the_error_says_so(server: OpenAIServer) -> None:
    automix = mix(server, circuit_breaker=CircuitBreaker(1))
    server.script = _failing("small", "large")
    with pytest.raises(ModelsFailedError):
        automix.invoke("a")
    server.requests.clear()
    with pytest.raises(ModelsFailedError, match="large was not asked: its circuit") as told:
        automix.invoke("a")
    assert [type(error) for error in told.value.exceptions] == [CircuitOpenError] * 2
    assert server.requests == []


async def test_a_trial_that_is_cancelled_says_nothing(server: OpenAIServer, clock: _Clock) -> None:
    breaker = CircuitBreaker(1, 30, clock=clock)
    automix = mix(server, circuit_breaker=breaker)
    server.script = _failing("small")
    await automix.ainvoke("a")
    clock.now = 30
    server.delay = gate = Gate()
    task = asyncio.create_task(automix.ainvoke("a"))
    await gate.reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open()
    server.delay, server.script = 0.0, answering("a small answer", "a large answer")
    assert record_of(await automix.ainvoke("a"))["model"] == "small"  # another one may try


def test_by_default_every_model_is_asked(server: OpenAIServer) -> None:
    server.script = _failing("small")
    automix = mix(server)
    for _ in range(8):
        automix.invoke("a")
    assert _asked(server).count("small") == 8
