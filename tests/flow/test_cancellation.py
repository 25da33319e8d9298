"""A query that is cancelled, or a stream that is left, is broken off: what it cost is not lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from langchain_automix import (
    AutoMixRunnable,
    AutoMixTotals,
    SelfVerifier,
    SpendLimit,
    ThresholdRouter,
)
from langchain_automix.errors import ModelsFailedError
from tests.flow.test_batch import batch_of
from tests.support.builders.mixes import by_question, mix, rejecting
from tests.support.builders.scripted_replies import Body, Outcome
from tests.support.servers.openai_server import OpenAIServer, is_check

PRICES = {name: {"input": 1.0, "output": 2.0} for name in ("small", "large")}


class Told(BaseCallbackHandler):
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.events.append(data)


class Hanging:
    """A script whose check (or whatever is named) hangs until the test is over."""

    def __init__(self, server: OpenAIServer, stage: str) -> None:
        self.came = threading.Event()
        self.over = threading.Event()
        self._stage = stage
        server.script = rejecting()
        server.delay = self._wait

    def _wait(self, body: Body) -> float:
        stage = "check" if is_check(body) else body["model"]
        if stage == self._stage:
            self.came.set()
            self.over.wait(20)
        return 0


@pytest.fixture(params=["small", "check", "large"])
def hanging(request: Any, server: OpenAIServer) -> Iterator[Hanging]:
    found = Hanging(server, request.param)
    yield found
    found.over.set()


async def test_a_cancelled_query_tells_that_its_cost_is_unknown(
    server: OpenAIServer, hanging: Hanging
) -> None:
    totals, told = AutoMixTotals(), Told()
    mixed = mix(server, prices=PRICES, verifier=SelfVerifier(samples=2))
    config: Any = {"callbacks": [totals, told]}
    task = asyncio.create_task(mixed.ainvoke("Who built it?", config))
    await asyncio.to_thread(hanging.came.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [event] = told.events
    assert event["unfinished"]
    assert event["tokens"] is None
    assert event["cost"] is None
    assert event["unpriced"] == ["large" if hanging._stage == "large" else "small"]
    assert (totals.queries, totals.unfinished, totals.without_tokens) == (0, 1, 1)
    assert totals.cost is None


async def test_a_stream_that_is_left_tells_that_its_cost_is_unknown(server: OpenAIServer) -> None:
    server.script = rejecting(kept="It was built in Turku, and nowhere else.")
    for how in ("stream", "astream"):
        totals = AutoMixTotals()
        mixed, config = mix(server, prices=PRICES), {"callbacks": [totals]}
        if how == "stream":
            chunks = mixed.stream("Who built it?", config)  # type: ignore[arg-type]
            assert next(chunk.content for chunk in chunks if chunk.content) == "It "
            chunks.close()  # type: ignore[attr-defined]
        else:
            asyncly = mixed.astream("Who built it?", config)  # type: ignore[arg-type]
            async for chunk in asyncly:
                if chunk.content:
                    break
            await asyncly.aclose()  # type: ignore[attr-defined]
        assert (totals.queries, totals.unfinished, totals.cost) == (0, 1, None), how
        assert totals.unpriced == {"large": 1}


async def test_who_leaves_while_the_kept_answer_is_told_has_had_it(server: OpenAIServer) -> None:
    """Its record was told already: it is counted once, and as what it cost."""
    server.script = by_question()
    totals, limit = AutoMixTotals(), SpendLimit(100)
    mixed = mix(server, prices=PRICES, verifier=SelfVerifier(samples=1), spend_limit=limit)
    config: Any = {"callbacks": [totals]}
    events = mixed.astream_events("Who built it?", config, version="v2")
    async for event in events:
        if event["event"] == "on_chat_model_stream":
            break
    await events.aclose()  # type: ignore[attr-defined]
    assert (totals.queries, totals.unfinished) == (1, 0)
    assert totals.cost == limit.used()
    assert limit.books.status("all", limit.terms).active == 0


async def test_what_is_broken_off_between_two_calls_has_a_known_cost(server: OpenAIServer) -> None:
    """A batch stops at its first error; the others have paid for what they have asked so far."""

    def script(body: Body) -> Outcome:
        said = str(body["messages"][-1]["content"])
        if "bad" in said:
            return 500
        return ["Verification Decision: Correct"] if is_check(body) else ["Turku."]

    server.script = script
    for how in ("batch", "abatch"):
        totals = AutoMixTotals()
        mixed = mix(server, prices=PRICES, verifier=SelfVerifier(samples=1))
        config: Any = {"callbacks": [totals], "max_concurrency": 1}
        server.billed.clear()
        with pytest.raises(ModelsFailedError):
            await batch_of(how, mixed, ["bad", "good 1", "good 2"], config)
        assert totals.queries + totals.unfinished == 3, how
        assert totals.tokens["input_tokens"] == sum(b["prompt_tokens"] for b in server.billed)
        assert totals.cost is not None


async def test_a_cancelled_batch_is_cancelled_whatever_it_returns(server: OpenAIServer) -> None:
    """LangChain returns the cancellation as the outcome of each query, and goes on."""
    server.delay = 5
    mixed = mix(server)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await mixed.abatch(["one", "two"], return_exceptions=True)


class Interrupt(BaseException):
    pass


def test_an_interrupt_ends_a_batch_whatever_it_returns() -> None:
    def fails(given: Any) -> AIMessage:
        raise Interrupt

    mixed = AutoMixRunnable(models=[RunnableLambda(fails)] * 2, router=ThresholdRouter())
    with pytest.raises(Interrupt):
        mixed.batch(["one", "two"], return_exceptions=True)
