"""`AutoMixTotals`: one callback hears every query, however the mix is called."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.messages import HumanMessage
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel

from langchain_automix import AutoMixRunnable, AutoMixTotals, ChatAutoMix, ThresholdRouter
from tests.ecosystem.test_langgraph import graph, steps
from tests.support.builders.agents import agent
from tests.support.builders.agents import steps as agent_steps
from tests.support.builders.mixes import by_question, mix
from tests.support.builders.scripted_replies import Body, call
from tests.support.servers.openai_server import OpenAIServer, answering, is_check

TABLE: dict[str, Any] = {
    "small": {"input": 1, "output": 2},
    "large": {"input": 10, "output": 20},
    "third": {"input": 100, "output": 200},
}
QUESTIONS = ["an easy one?", "a hard one?", "another easy one?"]

pytestmark = pytest.mark.filterwarnings("ignore:A check draws")


class City(BaseModel):
    name: str


def billed(server: OpenAIServer) -> Decimal:
    return sum(
        (
            Decimal(
                bill["prompt_tokens"] * TABLE[bill["model"]]["input"]
                + bill["completion_tokens"] * TABLE[bill["model"]]["output"]
            )
            / 10**6
            for bill in server.billed
        ),
        Decimal(0),
    )


def cost(totals: AutoMixTotals) -> Decimal:
    assert totals.cost is not None
    return Decimal(totals.cost.removesuffix(" USD"))


def fits(totals: AutoMixTotals, server: OpenAIServer) -> None:
    assert cost(totals) == billed(server)
    assert totals.tokens["total_tokens"] == sum(bill["total_tokens"] for bill in server.billed)


def _threads(asked: Runnable[Any, Any], config: Any) -> None:
    work = [threading.Thread(target=asked.invoke, args=(q, config)) for q in QUESTIONS]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()


async def _abatch(asked: Runnable[Any, Any], config: Any) -> None:
    await asked.abatch(QUESTIONS, config)


async def _ainvoke(asked: Runnable[Any, Any], config: Any) -> None:
    for question in QUESTIONS:
        await asked.ainvoke(question, config)


async def _astream(asked: Runnable[Any, Any], config: Any) -> None:
    for question in QUESTIONS:
        _ = [chunk async for chunk in asked.astream(question, config)]


async def _events(asked: Runnable[Any, Any], config: Any) -> None:
    for question in QUESTIONS:
        _ = [event async for event in asked.astream_events(question, config, version="v2")]


SYNC: dict[str, Callable[[Runnable[Any, Any], Any], Any]] = {
    "invoke": lambda asked, config: [asked.invoke(q, config) for q in QUESTIONS],
    "batch": lambda asked, config: asked.batch(QUESTIONS, config),
    "stream": lambda asked, config: [list(asked.stream(q, config)) for q in QUESTIONS],
    "threads": _threads,
}
ASYNC = {"ainvoke": _ainvoke, "abatch": _abatch, "astream": _astream, "events": _events}


@pytest.mark.parametrize("form", ["mix", "chain", "chat model"])
class TestEachWay:
    def asked(self, server: OpenAIServer, form: str) -> Runnable[Any, Any]:
        server.script = by_question()
        models = [server.model(name, stream_usage=True) for name in ("small", "large")]
        fields: Any = {"models": models, "prices": TABLE, "router": ThresholdRouter(threshold=0.5)}
        if form == "chat model":
            return ChatAutoMix(**fields)
        asked = AutoMixRunnable(**fields)
        return asked if form == "mix" else RunnableLambda(lambda q: [HumanMessage(q)]) | asked

    def same(self, totals: AutoMixTotals, server: OpenAIServer) -> None:
        assert (totals.queries, totals.escalations, totals.verdicts) == (3, 1, 24)
        assert totals.models == {"small": 2, "large": 1}
        assert (totals.without_tokens, totals.unpriced) == (0, {})
        assert totals.saved_is_estimate
        fits(totals, server)

    @pytest.mark.parametrize("how", SYNC)
    def test_sync(self, server: OpenAIServer, form: str, how: str) -> None:
        totals = AutoMixTotals()
        SYNC[how](self.asked(server, form), {"callbacks": [totals]})
        self.same(totals, server)

    @pytest.mark.parametrize("how", ASYNC)
    async def test_async(self, server: OpenAIServer, form: str, how: str) -> None:
        totals = AutoMixTotals()
        await ASYNC[how](self.asked(server, form), {"callbacks": [totals]})
        self.same(totals, server)


class TestElsewhere:
    def test_a_node_of_a_graph(self, server: OpenAIServer) -> None:
        server.script = steps([call("weather", city="Turku"), "s"], ["l", "Rain"], "a")
        totals = AutoMixTotals()
        state = {"messages": [HumanMessage("How is the weather in Turku?")]}
        graph(server).invoke(state, {"callbacks": [totals]})
        assert (totals.queries, totals.models) == (2, {"small": 2})

    async def test_an_agent(self, server: OpenAIServer) -> None:
        server.script = agent_steps([call("weather", city="Turku"), "It rains."])
        for run in ("invoke", "ainvoke"):
            totals = AutoMixTotals()
            config: Any = {"callbacks": [totals]}
            asked = {"messages": [HumanMessage("How is the weather?")]}
            mixed = agent(server, None, prices=TABLE)
            _ = (
                mixed.invoke(asked, config)
                if run == "invoke"
                else await mixed.ainvoke(asked, config)
            )
            assert totals.queries == 1, run
            assert totals.cost is not None

    def test_structured_output(self, server: OpenAIServer) -> None:
        server.script = answering('{"name": "Turku"}', '{"name": "Turku"}')
        totals = AutoMixTotals()
        asked = mix(server, prices=TABLE).with_structured_output(City, method="json_schema")
        assert asked.batch(QUESTIONS, {"callbacks": [totals]}) == [City(name="Turku")] * 3
        assert totals.queries == 3
        fits(totals, server)

    @pytest.mark.parametrize("kind", [AutoMixRunnable, ChatAutoMix])
    @pytest.mark.parametrize("how", ["invoke", "stream", "batch", "threads"])
    def test_a_mix_in_a_mix_counts_once(self, server: OpenAIServer, kind: Any, how: str) -> None:
        server.script = by_question()
        small, large, third = (server.model(name, stream_usage=True) for name in TABLE)
        fields: Any = {"router": ThresholdRouter(threshold=0.5), "prices": TABLE}
        inner = kind(models=[small, large], **fields)
        totals = AutoMixTotals()
        asked = AutoMixRunnable.from_models(inner, third, **fields)
        SYNC[how](asked, {"callbacks": [totals]})
        assert totals.queries == 3
        fits(totals, server)

    def test_a_failed_query_is_no_answer(self, server: OpenAIServer) -> None:
        server.script = by_question()
        totals = AutoMixTotals()
        asked = [*QUESTIONS, "a bad one?"]
        mix(server, prices=TABLE).batch(asked, {"callbacks": [totals]}, return_exceptions=True)
        assert totals.queries == 3

    @pytest.mark.parametrize("fails", ["check", "escalate"])
    @pytest.mark.parametrize("how", ["batch", "stream"])
    def test_what_a_failed_query_had_cost_is_counted(
        self, server: OpenAIServer, fails: str, how: str
    ) -> None:
        def script(body: Body) -> Any:
            if (is_check(body) and fails == "check") or body["model"] == "large":
                return 500
            return answering("s", "l", verdicts="r")(body)

        server.script = script
        totals, asked = AutoMixTotals(), mix(server, prices=TABLE)
        config: Any = {"callbacks": [totals]}
        if how == "batch":
            [error] = asked.batch(["easy"], config, return_exceptions=True)
            assert isinstance(error, Exception)
        else:
            with pytest.raises(Exception, match="scripted"):
                list(asked.stream("easy", config))
        assert (totals.queries, totals.unfinished) == (0, 1)
        assert totals.tokens["total_tokens"] == sum(b["total_tokens"] for b in server.billed) > 0
        assert "1 more failed" in str(totals)

    async def test_events_of_others_are_not_ours(self) -> None:
        def tell(_: Any) -> None:
            dispatch_custom_event("automix", {"verdicts": 3})
            dispatch_custom_event("automix", "text")
            dispatch_custom_event("other", {"alone": {}})

        async def atell(_: Any) -> None:
            await adispatch_custom_event("automix", {})

        totals = AutoMixTotals()
        RunnableLambda(tell).invoke("", {"callbacks": [totals]})
        await RunnableLambda(atell).ainvoke("", {"callbacks": [totals]})
        assert totals.queries == 0


class TestUnknown:
    def test_it_stays_unknown_and_is_named(self, server: OpenAIServer) -> None:
        server.script = by_question()
        totals = AutoMixTotals()
        asked = mix(server, prices={"small": TABLE["small"]})
        for question in [*QUESTIONS, "easy again?"]:
            asked.invoke(question, {"callbacks": [totals]})
        assert (totals.cost, totals.saved) == (None, None)
        assert totals.unpriced == {"large": 1}
        assert totals.queries == 4
        assert not totals.saved_is_estimate
        assert "cost unknown (no price or no tokens: large)" in str(totals)
        assert "what the largest alone would have cost is unknown" in str(totals)

    def test_tokens_that_are_not_reported(self, server: OpenAIServer) -> None:
        models = [server.model(name, stream_usage=False) for name in ("small", "large")]
        totals = AutoMixTotals()
        asked = AutoMixRunnable.from_models(*models, prices=TABLE, force_model=1)
        list(asked.stream("Where?", {"callbacks": [totals]}))
        assert (totals.without_tokens, totals.cost) == (1, None)


class TestAsText:
    def test_none_one_many(self, server: OpenAIServer) -> None:
        server.script = by_question()
        totals = AutoMixTotals()
        assert str(totals) == "0 queries"
        assert (totals.cost, totals.saved) == ("0 USD", "0 USD")
        config: Any = {"callbacks": [totals]}
        mix(server, prices=TABLE).invoke(QUESTIONS[1], config)
        assert str(totals).startswith("1 query, 1 escalated, 8 verdicts; kept: large 1; cost 0.")
        assert str(totals).endswith(" USD more than the largest alone")
        totals = AutoMixTotals()
        mix(server, prices=lambda _: 0.1).batch(QUESTIONS * 10, {"callbacks": [totals]})
        assert str(totals) == (
            "30 queries, 10 escalated, 240 verdicts; kept: small 20, large 10; "
            "cost 7.0 USD, 4.0 USD more than the largest alone, estimated\n"
            "This mix loses money: fit a policy to your own questions, check by something cheaper, "
            "or ask the largest model alone."
        )


def test_the_verdicts_of_every_check_are_counted(server: OpenAIServer) -> None:
    server.script = by_question()
    models = [server.model(name) for name in ("small", "large", "third")]
    router = ThresholdRouter(threshold=0.5)
    totals = AutoMixTotals()
    message = AutoMixRunnable.from_models(*models, router=router).invoke(
        "hard", {"callbacks": [totals]}
    )
    record = message.response_metadata["automix"]
    checked = sum(int(body.get("n") or 1) for body in server.requests if is_check(body))
    assert totals.verdicts == record["drawn"] == checked == 16
    assert len(record["verdicts"]) == 8


@pytest.mark.parametrize("form", [AutoMixRunnable, ChatAutoMix])
def test_totals_that_are_given_twice_count_once(server: OpenAIServer, form: Any) -> None:
    server.script = by_question()
    totals = AutoMixTotals()
    models = [server.model(name) for name in ("small", "large")]
    asked = form(models=models, force_model="small").with_config(callbacks=[totals])
    asked.invoke("easy", {"callbacks": [totals]})
    assert totals.queries == 1


class _Afar(AsyncCallbackHandler):
    """Sends what it hears by the loop that it was made in, as a web socket does."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.heard: list[str] = []

    async def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        sent = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop)
        await asyncio.wait_for(asyncio.wrap_future(sent), 3)
        self.heard.append(data["model"])


@pytest.mark.parametrize("how", ASYNC)
async def test_a_listener_may_await_its_own_loop(server: OpenAIServer, how: str) -> None:
    server.script = by_question()
    listener = _Afar()
    await ASYNC[how](mix(server), {"callbacks": [listener]})
    assert sorted(listener.heard) == ["large", "small", "small"]
