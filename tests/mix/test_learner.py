"""The hook of a learner: one version decides a query, and hears of its end, whatever that is."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from pydantic import BaseModel

from langchain_automix import (
    AutoMixError,
    AutoMixMiddleware,
    AutoMixRunnable,
    ChatAutoMix,
    DefaultVerifier,
    ThresholdRouter,
    Verification,
)
from tests.support.builders.learners import FakeLearner
from tests.support.builders.mixes import ACCEPTS, REJECTS, mix, record_of, weather
from tests.support.servers.openai_server import OpenAIServer

WAYS = ("invoke", "ainvoke", "batch", "abatch", "stream", "astream")


class Tracer(BaseTracer):
    """Keeps the root runs."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.roots.append(run)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def ask(automix: Any, way: str, config: Any = None) -> Any:
    match way:
        case "invoke":
            return automix.invoke("Where?", config)
        case "batch":
            return automix.batch(["Where?"], config)[0]
        case "stream":
            return sum_of(list(automix.stream("Where?", config)))
    return asyncio.run(aask(automix, way, config))


async def aask(automix: Any, way: str, config: Any) -> Any:
    if way == "ainvoke":
        return await automix.ainvoke("Where?", config)
    if way == "abatch":
        return (await automix.abatch(["Where?"], config))[0]
    return sum_of([chunk async for chunk in automix.astream("Where?", config)])


def sum_of(chunks: list[Any]) -> Any:
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total


class TestHook:
    @pytest.mark.parametrize("way", WAYS)
    def test_a_query_has_one_ticket_which_hears_of_its_end_once(
        self, server: OpenAIServer, way: str
    ) -> None:
        learner, tracer = FakeLearner(), Tracer()
        automix = mix(server, learning=learner, verifier=ACCEPTS)
        message = ask(automix, way, {"callbacks": [tracer], "configurable": {"tenant": "acme"}})
        [ticket], [(id, ended)] = learner.begun, learner.ended
        assert (ticket.id, ended.query.record) == (id, record_of(message))
        assert record_of(message)["learning"] == {"id": id, "version": 7, "stage": "policy"}
        [root] = tracer.roots
        assert ended.run_id == root.id
        assert ended.run_config["configurable"]["tenant"] == "acme"
        assert (root.extra or {})["metadata"]["automix_policy_version"] == 7

    @pytest.mark.parametrize("way", WAYS)
    def test_what_is_prescribed_is_asked_without_a_check(
        self, server: OpenAIServer, way: str
    ) -> None:
        learner = FakeLearner()
        learner.asks_largest = True
        message = ask(mix(server, learning=learner), way)
        assert [body["model"] for body in server.requests] == ["large"]
        assert message.content == "a large answer"
        assert record_of(message)["why"] == "It warms up."

    def test_the_version_decides_and_not_the_mix(self, server: OpenAIServer) -> None:
        learner = FakeLearner(router=ThresholdRouter(threshold=0.0))
        automix = mix(server, learning=learner, verifier=REJECTS)  # whose own router escalates
        assert automix.invoke("Where?").content == "a small answer"
        learner.router = ThresholdRouter(threshold=1.0)
        assert automix.invoke("Where?").content == "a large answer"

    def test_one_version_decides_although_another_one_comes(self, server: OpenAIServer) -> None:
        learner = FakeLearner(router=ThresholdRouter(threshold=0.0), version=1)

        def check(_: Any) -> Verification:
            learner.router, learner.version = ThresholdRouter(threshold=1.0), 2
            return Verification(score=0.5)

        automix = mix(server, learning=learner, verifier=RunnableLambda(check))
        first, second = automix.invoke("Where?"), automix.invoke("Where?")
        assert [m.content for m in (first, second)] == ["a small answer", "a large answer"]
        assert [record_of(m)["learning"]["version"] for m in (first, second)] == [1, 2]

    def test_the_loops_of_few_versions_are_kept(self, server: OpenAIServer) -> None:
        learner = FakeLearner()
        automix = mix(server, learning=learner, verifier=ACCEPTS)
        for threshold in range(10):
            learner.router = ThresholdRouter(threshold=threshold / 10)
            automix.invoke("Where?")
        loop = automix._loop
        assert len(loop._versions) == 4
        kept = next(reversed(loop._versions.values()))
        automix.invoke("Where?")
        assert kept is next(reversed(loop._versions.values()))

    def test_the_check_of_a_version_is_its_policys_own(self, server: OpenAIServer) -> None:
        learner = FakeLearner(router=ThresholdRouter(threshold=0.0))
        models = [server.model("small"), server.model("large")]
        automix = AutoMixRunnable.from_models(*models, learning=learner)
        assert isinstance(automix.verifier, DefaultVerifier)
        automix.invoke("Where?")
        [(_, ended)] = learner.ended
        assert not isinstance(ended.config.verifier, DefaultVerifier)
        assert len(server.checks) == 1  # and its check is made


class TestEnds:
    def test_a_query_that_fails_is_told(self, server: OpenAIServer) -> None:
        server.script = lambda _: 500
        learner = FakeLearner()
        with pytest.raises(Exception, match="500|scripted"):
            mix(server, learning=learner).invoke("Where?")
        [(_, ended)] = learner.ended
        assert ended.query.record is None
        assert set(ended.query.errors) == {0, 1}

    def test_a_query_that_is_wrong_is_told(self, server: OpenAIServer) -> None:
        learner = FakeLearner()
        with pytest.raises(AutoMixError):
            mix(server, learning=learner).invoke([])
        assert len(learner.ended) == len(learner.begun) == 1

    async def test_a_query_that_is_cancelled_is_told(self, server: OpenAIServer) -> None:
        asked, going = threading.Event(), threading.Event()

        def wait(_: Any) -> float:
            asked.set()
            going.wait(5)
            return 0.0

        server.delay = wait
        learner = FakeLearner()
        task = asyncio.create_task(mix(server, learning=learner).ainvoke("Where?"))
        await asyncio.to_thread(asked.wait, 5)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        going.set()
        [(_, ended)] = learner.ended
        assert ended.query.record is None
        assert ended.query.ledger.calls  # what may be billed is known

    def test_a_stream_that_is_left_is_told(self, server: OpenAIServer) -> None:
        learner = FakeLearner()
        learner.asks_largest = True
        stream = mix(server, learning=learner).stream("Where?")
        next(stream)
        assert not learner.ended
        stream.close()  # type: ignore[attr-defined]
        [(_, ended)] = learner.ended
        assert ended.query.record is None

    def test_in_a_batch_each_query_is_told_of(self, server: OpenAIServer) -> None:
        learner = FakeLearner()
        server.script = lambda body: 500 if "bad" in body["messages"][-1]["content"] else ["fine"]
        automix = mix(server, learning=learner, verifier=ACCEPTS)
        found = automix.batch(["a", "bad", "c"], return_exceptions=True)
        assert [isinstance(each, Exception) for each in found] == [False, True, False]
        records = {id: ended.query.record for id, ended in learner.ended}
        assert len(records) == 3
        assert list(records.values()).count(None) == 1


class TestFailures:
    @pytest.mark.parametrize("place", ["begin", "finish"])
    def test_a_learner_that_fails_fails_no_query(self, server: OpenAIServer, place: str) -> None:
        automix = mix(server, learning=FakeLearner(fails_at=place), verifier=ACCEPTS)
        message = automix.invoke("Where?")
        assert message.content == "a small answer"
        assert ("learning" in record_of(message)) is (place == "finish")

    def test_nothing_is_learned_of_a_forced_model(self, server: OpenAIServer) -> None:
        learner = FakeLearner()
        message = mix(server, learning=learner, force_model=0).invoke("Where?")
        assert not learner.begun
        assert "learning" not in record_of(message)

    def test_nothing_can_be_learned_without_a_check(self, server: OpenAIServer) -> None:
        with pytest.raises(ValueError, match="verification"):
            mix(server, learning=FakeLearner(), verification=False)

    def test_what_is_no_learner_is_refused(self, server: OpenAIServer) -> None:
        with pytest.raises(ValueError, match="must be a Learning"):
            mix(server, learning="sqlite:///automix.db")


class Place(BaseModel):
    """A place."""

    name: str


class TestForms:
    def test_copies_share_it(self, server: OpenAIServer) -> None:
        learner = FakeLearner()
        automix = mix(server, learning=learner)
        chosen = automix.configurable_fields(max_latency=ConfigurableField(id="time"))
        copies: list[Any] = [
            automix.model_copy(),
            automix.bind_tools([weather]),
            automix.with_structured_output(Place),
            automix.with_answer_settings({"temperature": 0.0}),
            copy.copy(automix),
            chosen._prepare({"configurable": {"time": 9.0}})[0],  # type: ignore[attr-defined]
        ]
        assert all(each.learning is learner for each in copies)
        assert all(each._loop.learner is learner for each in copies)
        assert learner.prepared

    def test_a_deep_copy_shares_it(self) -> None:
        learner = FakeLearner()
        models = [FakeListChatModel(responses=[name]) for name in ("small", "large")]
        automix = AutoMixRunnable.from_models(*models, learning=learner)
        assert copy.deepcopy(automix).learning is learner
        assert automix.model_copy(deep=True).learning is learner

    def test_a_call_with_arguments_has_a_ticket_too(self, server: OpenAIServer) -> None:
        learner = FakeLearner()
        server.script = lambda _: ['{"name": "Turku"}']
        structured = mix(server, learning=learner, verifier=ACCEPTS).with_structured_output(
            Place, method="json_schema"
        )
        assert structured.invoke("Where?", stop=["x"]) == Place(name="Turku")
        assert len(learner.ended) == 1

    @pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "batch"])
    def test_a_chat_model_has_one(self, server: OpenAIServer, way: str) -> None:
        learner = FakeLearner()
        models = [server.model("small"), server.model("large")]
        chat = ChatAutoMix(models=models, learning=learner, verifier=ACCEPTS, router=0.5)
        message = ask(chat, way)
        assert chat.learning is learner
        assert record_of(message)["learning"]["id"] == learner.ended[0][0]
        assert len(learner.ended) == 1

    def test_an_agent_has_one_for_each_step(self, server: OpenAIServer) -> None:
        learner = FakeLearner()
        models = [server.model("small"), server.model("large")]
        middleware = AutoMixMiddleware(models, learning=learner, verifier=ACCEPTS, router=0.5)
        agent = create_agent(models[0], middleware=[middleware])
        agent.invoke({"messages": [("human", "Where?")]})  # type: ignore[call-overload]
        assert middleware.learning is learner
        assert len(learner.ended) == 1


def test_run_ids_are_those_of_the_runs(server: OpenAIServer) -> None:
    learner, run_id = FakeLearner(), UUID(int=5)
    mix(server, learning=learner, verifier=ACCEPTS).invoke("Where?", {"run_id": run_id})
    assert learner.ended[0][1].run_id == run_id
