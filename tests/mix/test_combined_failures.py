"""What is promised also holds where time or money is short, and where several things go wrong."""

from __future__ import annotations

import concurrent.futures.thread
import copy
import threading
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.runnables import ConfigurableField, RunnableLambda

from langchain_automix import (
    AutoMixRunnable,
    ChatAutoMix,
    CircuitBreaker,
    POMDPRouter,
    SelfVerifier,
    SpendLimit,
)
from langchain_automix.errors import CutShortError
from langchain_automix.flow.runnable import FlowRunnable
from langchain_automix.flow.steps import Call, call
from langchain_automix.flow.stream_guard import StreamGuard
from langchain_automix.models.failures import is_model_failure
from langchain_automix.types import Verification
from tests.support.builders.faults import ACCEPT, PRICES, REJECT, WAYS, Desk, ask
from tests.support.builders.mixes import mix, pay, record_of
from tests.support.builders.scripted_replies import Body
from tests.support.builders.spending import spend
from tests.support.builders.synthetic_logs import world
from tests.support.builders.waiting import Gate, own_threads, wait_for
from tests.support.servers.openai_server import OpenAIServer, is_check

every_way = pytest.mark.parametrize("way", WAYS)
ROUTER = POMDPRouter.fit(world(300))
BY_ONE = POMDPRouter.fit(world(300, k=1))
LIMIT = 1.5
LONG = 8.0


def timed(server: OpenAIServer, **fields: Any) -> Any:
    return mix(server, **{"max_latency": LIMIT, "prices": PRICES, **fields})


def slow(server: OpenAIServer, **seconds: float) -> None:
    def delay(body: Body) -> float:
        return seconds.get("check" if is_check(body) else body["model"], 0.0)

    server.delay = delay


class TestAFittedRouterWithoutTime:
    def test_what_it_leaves_out_is_told(self, server: OpenAIServer) -> None:
        desk = Desk(server, check=REJECT, small="By the small.", large="By the large.")
        mixed = timed(server, router=BY_ONE)
        mixed._pace.learn("answer", 1, LIMIT * 0.5)
        mixed._pace.learn("verify", 0, 0.0)
        slow(server, check=LIMIT * 0.6)
        message = mixed.invoke("Where?")
        assert (message.content, "large" in desk.asked()) == ("By the small.", False)
        assert "did not suffice" in record_of(message)["degraded"]

    @pytest.mark.parametrize("router", [ROUTER, BY_ONE], ids=["many", "one"])
    def test_and_is_tried_again_some_day(self, server: OpenAIServer, router: POMDPRouter) -> None:
        desk = Desk(server, check=REJECT, small="By the small.", large="By the large.")
        # Nothing is slow here, so that a long limit takes no time, and leaves a slow machine some.
        mixed = timed(server, router=router, max_latency=60.0)
        mixed._pace.learn("answer", 1, 120.0)
        for _ in range(12):
            mixed.invoke("Where?")
        assert "large" in desk.asked()


class TestAHedgeWithoutTime:
    def hedged(self, server: OpenAIServer, **fields: Any) -> Any:
        # What is quick here must be done in time, also on a machine that is busy.
        return timed(server, **{"router": ROUTER, "hedge": 0.0, "max_latency": LONG / 2, **fields})

    @pytest.mark.parametrize("way", ["invoke", "ainvoke"])
    async def test_the_answer_that_is_there_is_not_lost(
        self, server: OpenAIServer, way: str
    ) -> None:
        Desk(server, check=REJECT, small="By the small.", large="By the large.")
        slow(server, check=LONG)
        message = await ask(way, self.hedged(server))
        assert message.content == "By the large."
        assert {it["stage"] for it in record_of(message)["failed"]} == {"verify"}

    @pytest.mark.parametrize("way", ["invoke", "ainvoke"])
    async def test_nor_what_the_check_found(self, server: OpenAIServer, way: str) -> None:
        Desk(server, check=ACCEPT, small="By the small.", large="By the large.")
        slow(server, large=LONG)
        message = await ask(way, self.hedged(server, router=BY_ONE))
        record = record_of(message)
        assert (message.content, record["degraded"]) == ("By the small.", None)
        assert (record["confidence"], record["cost"]) == (1.0, None)

    def test_an_answer_that_is_paid_for_is_taken_whatever_the_circuit(
        self, server: OpenAIServer
    ) -> None:
        breaker = CircuitBreaker(failures=1)
        mixed = self.hedged(server, circuit_breaker=breaker)
        desk = Desk(server, check=REJECT, small="By the small.", large="By the large.")

        def delay(body: Body) -> float:
            if is_check(body):  # by now the large one is being asked
                breaker.failed(mixed.models[1])
            return 0.0

        server.delay = delay
        assert mixed.invoke("Where?").content == "By the large."
        assert desk.asked().count("large") == 1

    def test_a_hedge_that_fails_counts(self, server: OpenAIServer) -> None:
        breaker = CircuitBreaker(failures=1)
        Desk(server, check=ACCEPT, small="By the small.", large=500)
        mixed = self.hedged(server, circuit_breaker=breaker)
        mixed.invoke("Where?")
        assert breaker.state(mixed.models[1]) == "open"


class TestWhatIsGivenUp:
    def test_leaves_its_place_in_a_batch(self, server: OpenAIServer) -> None:
        def script(body: Body) -> Any:
            if is_check(body):
                return [ACCEPT] * (body.get("n") or 1)
            return [body["messages"][-1]["content"]]

        server.script = script
        server.delay = lambda body: LONG if "hangs" in str(body["messages"]) else 0.0
        found = timed(server).batch(
            ["It hangs", "a", "b"], {"max_concurrency": 1}, return_exceptions=True
        )
        assert isinstance(found[0], TimeoutError)
        assert [message.content for message in found[1:]] == ["a", "b"]

    def test_makes_no_further_call(self, server: OpenAIServer) -> None:
        Desk(server, small="By the small.", large="By the large.")
        server.delay = gate = Gate(lambda body: "Is it so" in str(body["messages"]))
        before = own_threads()
        timed(server, verifier=asking_twice(server)).invoke("Where?")
        asked = len(server.requests)
        gate.open()  # what was given up goes on in its thread, and ends there
        wait_for(lambda: own_threads() <= before)
        assert len(server.requests) == asked == 2

    def test_keeps_no_process_alive(self, server: OpenAIServer) -> None:
        Desk(server, check=ACCEPT, small="By the small.", large="By the large.")
        slow(server, check=LONG / 2)
        before = set(threading.enumerate())
        timed(server, verifier=SelfVerifier(samples=3, sampling="parallel")).invoke("Where?")
        left = [it for it in threading.enumerate() if it not in before]
        assert any(thread.name == "automix" for thread in left)
        joined_at_exit = (
            concurrent.futures.thread._threads_queues
        )  # whether they are daemons or not
        assert not [thread for thread in left if thread in joined_at_exit]

    def test_shows_nothing_any_more(self) -> None:
        showing = StreamGuard()
        assert showing.give_up()
        with pytest.raises(TimeoutError):
            showing.on_llm_new_token("A token")
        told = StreamGuard()
        told.on_llm_new_token("A token")
        assert not told.give_up()


def asking_twice(server: OpenAIServer) -> Any:
    """A check that asks a model twice, one call after the other."""
    model = server.model("small")

    class Twice(FlowRunnable[Any, Any]):
        def _flow(self, input: Any, **kwargs: Any) -> Any:
            del input, kwargs
            yield from call(Call(model, "Is it so?"))
            yield from call(Call(model, "Is it so?"))
            return Verification(score=0.9)

    return Twice()


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_what_is_being_shown_goes_on_however_the_mix_is_called(
    server: OpenAIServer, how: str
) -> None:
    Desk(server, small="By the small and the brave.", large="By the large.")
    server.token_delay = 1.0
    mixed = timed(server, verification=False)
    if how == "sync":
        chain: Any = RunnableLambda(mixed.invoke)
    else:

        async def answered(asked: str) -> Any:
            return await mixed.ainvoke(asked)

        chain = RunnableLambda(answered)
    shown = ""
    async for event in chain.astream_events("Where?", version="v2"):
        if event["event"] == "on_chat_model_stream":
            shown += event["data"]["chunk"].content
    assert shown == "By the small and the brave."


class TestWithoutMoney:
    def spent(self, **fields: Any) -> SpendLimit:
        limit = SpendLimit("1 USD", **fields)
        spend(limit, "1")
        return limit

    def test_an_answer_that_was_not_checked_for_want_of_it_says_so(
        self, server: OpenAIServer
    ) -> None:
        Desk(server, small="By the small.", large="By the large.")
        record = record_of(mix(server, prices=PRICES, spend_limit=self.spent()).invoke("Where?"))
        assert "spend limit" in record["degraded"]

    @every_way
    async def test_a_call_that_only_a_larger_model_may_make_is_not_made(
        self, server: OpenAIServer, way: str
    ) -> None:
        function = {"name": "pay", "arguments": '{"amount": 1.0}'}
        call = {"id": "1", "type": "function", "function": function}
        Desk(server, small={"content": None, "tool_calls": [call]}, large="By the large.")
        mixed = mix(
            server, prices=PRICES, spend_limit=self.spent(), always_escalate_tools=["pay"]
        ).bind_tools([pay])
        message = await ask(way, mixed)
        record = record_of(message)
        assert not message.tool_calls
        assert (record["action"], message.content) == ("abstain", mixed.abstention)
        assert "only a larger model may call" in record["degraded"]


def test_a_copy_of_a_limit_has_its_own_terms_and_the_same_books() -> None:
    limit = SpendLimit("1 USD")
    spend(limit, "0.5")
    more = limit.model_copy(update={"limit": Decimal(5)})
    assert (limit.terms.limit, more.terms.limit) == (10**9, 5 * 10**9)
    assert more.used() == limit.used()
    assert limit.shares_ledger_with(more)
    assert not limit.shares_ledger_with(SpendLimit("1 USD"))


def test_a_deep_copy_shares_what_is_shared() -> None:
    limit, breaker = SpendLimit("1 USD"), CircuitBreaker()
    mixed = AutoMixRunnable.from_models(
        *(FakeListChatModel(responses=["x"]) for _ in range(2)),
        circuit_breaker=breaker,
    )
    again = copy.deepcopy(mixed)
    assert again.circuit_breaker is breaker
    assert again._pace is mixed._pace
    assert copy.deepcopy(limit).books is limit.books


def test_what_calls_take_is_known_to_all_copies(server: OpenAIServer) -> None:
    Desk(server, check=ACCEPT, small="By the small.", large="By the large.")
    models = [server.model("small"), server.model("large")]
    chat = ChatAutoMix(models=models, max_latency=LIMIT)
    chat.model_copy(update={"max_latency": LIMIT * 2}).invoke("Where?")
    assert chat._runnable._pace.expected("answer", 0) is not None
    mixed = timed(server)
    field = ConfigurableField(id="time")
    configured = mixed.configurable_fields(max_latency=field)
    configured.with_config(configurable={"time": 5.0}).invoke("Where?")
    assert mixed._pace.expected("answer", 0) is not None


def test_an_interrupt_says_nothing_of_a_model() -> None:
    from langgraph.errors import GraphInterrupt  # noqa: PLC0415  (not of the package)

    assert not is_model_failure(GraphInterrupt())
    assert is_model_failure(CutShortError("It ended."))
