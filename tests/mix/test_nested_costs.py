"""What was paid beneath a model that failed, fell back or was retried is in every book."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda

from langchain_automix import (
    AutoMixRunnable,
    AutoMixTotals,
    ChatAutoMix,
    SelfVerifier,
    SpendLimit,
    ThresholdRouter,
)
from tests.support.builders.faults import PRICES, ask
from tests.support.builders.mixes import record_of
from tests.support.builders.scripted_replies import REJECT, Body, Cut, Outcome, is_check
from tests.support.servers.openai_server import OpenAIServer

WAYS = ("invoke", "ainvoke", "batch", "abatch", "stream", "astream")
every_way = pytest.mark.parametrize("way", WAYS)


def billed(server: OpenAIServer) -> Decimal:
    """What the provider billed, by its own account."""
    total = Decimal(0)
    for bill in server.billed:
        price = PRICES[bill["model"]]
        total += bill["prompt_tokens"] * Decimal(price["input"])
        total += bill["completion_tokens"] * Decimal(price["output"])
    return total / 1_000_000


def desk(server: OpenAIServer, **answers: Any) -> None:
    def script(body: Body) -> Outcome:
        if is_check(body):
            return [REJECT] * (body.get("n") or 1)
        found = answers[body["model"]]
        found = found(body) if callable(found) else found
        outcome: Outcome = [found] if isinstance(found, str) else found
        return outcome

    server.script = script


def mix_of(*models: Any, kind: Any = AutoMixRunnable, **fields: Any) -> Any:
    fields = {"router": ThresholdRouter(), "prices": PRICES, **fields}
    return kind(models=list(models), verifier=SelfVerifier(samples=2), **fields)


class TestAMixWithinAMix:
    @pytest.fixture(params=[AutoMixRunnable, ChatAutoMix])
    def inner(self, request: Any, server: OpenAIServer) -> Any:
        models = server.model("small", stream_usage=True), server.model("third", stream_usage=True)
        return mix_of(*models, kind=request.param)

    @every_way
    async def test_that_fails_after_it_has_paid(
        self, server: OpenAIServer, inner: Any, way: str
    ) -> None:
        """Its draft and check were billed; then its last model refused with a 429."""
        desk(server, small="A draft.", third=429, large="By the large.")
        limit, totals = SpendLimit("9 USD"), AutoMixTotals()
        outer = mix_of(inner, server.model("large", stream_usage=True), spend_limit=limit)
        message = await ask(way, outer, config={"callbacks": [totals]})
        assert message.content == "By the large."
        paid = billed(server)
        assert len({bill["model"] for bill in server.billed}) == 2
        record = record_of(message)
        assert record["cost"] == f"{paid:f} USD"
        assert record["tokens"]["total_tokens"] == sum(b["total_tokens"] for b in server.billed)
        assert totals.cost == f"{paid:f} USD"
        assert Decimal(limit.used().split()[0]) == paid

    async def test_that_fails_wholly(self, server: OpenAIServer, inner: Any) -> None:
        desk(server, small="A draft.", third=429, large=429)
        totals = AutoMixTotals()
        outer = mix_of(inner, server.model("large"))
        with pytest.raises(Exception):  # noqa: B017, PT011
            outer.invoke("Where?", {"callbacks": [totals]})
        assert totals.cost == f"{billed(server):f} USD"

    def test_by_prices_of_its_own(self, server: OpenAIServer) -> None:
        """The outer mix knows no price of the inner mix's models."""
        desk(server, small="A draft.", third=429, large="By the large.")
        inner = mix_of(server.model("small"), server.model("third"))
        outer = mix_of(inner, server.model("large"), prices={"large": PRICES["large"]})
        record = record_of(outer.invoke("Where?"))
        assert record["cost"] == f"{billed(server):f} USD"

    def test_with_a_fallback(self, server: OpenAIServer) -> None:
        desk(server, small="A draft.", third=429, large="By the large.")
        inner = mix_of(server.model("small"), server.model("third"))
        first = inner.with_fallbacks([server.model("large")])
        outer = mix_of(first, server.model("large"), force_model=0)
        record = record_of(outer.invoke("Where?"))
        assert record["cost"] == f"{billed(server):f} USD"

    def test_as_a_fallback(self, server: OpenAIServer) -> None:
        desk(server, large=Cut("Half of"), small="A draft.", third="By the third.")
        inner = mix_of(server.model("small"), server.model("third"))
        first = server.model("large").with_fallbacks([inner])
        outer = mix_of(first, server.model("third"), force_model=0)
        record = record_of(outer.invoke("Where?"))
        assert (record["cost"], record["unpriced"]) == (None, ["large"])

    def test_deep(self, server: OpenAIServer) -> None:
        desk(server, small="A draft.", third=429, large="By the large.")
        inner = mix_of(server.model("small"), server.model("third"))
        middle = mix_of(inner, server.model("third"))
        outer = mix_of(middle, server.model("large"))
        record = record_of(outer.invoke("Where?"))
        assert record["cost"] == f"{billed(server):f} USD"


class TestACutBeneathAFallback:
    @every_way
    async def test_its_cost_is_unknown(self, server: OpenAIServer, way: str) -> None:
        desk(server, small=Cut("Half of"), third="By the third.", large="By the large.")
        first = server.model("small").with_fallbacks([server.model("third")])
        asked = mix_of(first, server.model("large", stream_usage=True))
        record = record_of(await ask(way, asked))
        assert (record["cost"], record["unpriced"]) == (None, ["small"])
        assert record["tokens"] is None

    def test_of_a_retry(self, server: OpenAIServer) -> None:
        outcomes = iter([Cut("Half of"), "By the small."])
        desk(server, small=lambda _: next(outcomes), large="By the large.")
        first = server.model("small").with_retry(stop_after_attempt=2)
        record = record_of(mix_of(first, server.model("large"), force_model=0).invoke("Where?"))
        assert (record["cost"], record["unpriced"]) == (None, ["small"])

    def test_a_refusal_costs_nothing(self, server: OpenAIServer) -> None:
        desk(server, small=429, third="By the third.", large="By the large.")
        first = server.model("small").with_fallbacks([server.model("third")])
        record = record_of(mix_of(first, server.model("large"), force_model=0).invoke("Where?"))
        assert record["cost"] == f"{billed(server):f} USD"

    def test_all_that_was_retried_is_paid(self, server: OpenAIServer) -> None:
        """A reply that the user's own validation sends back has been billed."""
        seen: list[BaseMessage] = []

        def second(message: BaseMessage) -> BaseMessage:
            seen.append(message)
            if len(seen) == 1:
                raise ValueError("again")
            return message

        desk(server, small="By the small.", large="By the large.")
        first = (server.model("small") | RunnableLambda(second)).with_retry(stop_after_attempt=2)
        record = record_of(mix_of(first, server.model("large"), force_model=0).invoke("Where?"))
        assert len(server.billed) == 2
        assert record["cost"] == f"{billed(server):f} USD"

    def test_the_model_asked_ahead(self, server: OpenAIServer) -> None:
        from langchain_automix import POMDPRouter  # noqa: PLC0415
        from tests.support.builders.synthetic_logs import world  # noqa: PLC0415

        desk(server, small="A draft.", third=Cut("Half of"), large="By the large.")
        ahead = server.model("third").with_fallbacks([server.model("large")])
        asked = mix_of(server.model("small"), ahead, router=POMDPRouter.fit(world(300)), hedge=0.0)
        record = record_of(asked.invoke("Where?"))
        assert record["hedged"] is not None
        assert (record["cost"], record["unpriced"]) == (None, ["third"])


class Wrapper(BaseChatModel):
    """A user's own class around a model, which may or may not pass its usage on."""

    inner: BaseChatModel
    pass_on: Callable[[AIMessage], AIMessage] = lambda message: message

    @property
    def _llm_type(self) -> str:
        return "wrapper"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kw: Any) -> Any:
        message: Any = self.inner.invoke(messages)
        return ChatResult(generations=[ChatGeneration(message=self.pass_on(message))])


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "batch", "abatch"])
@pytest.mark.parametrize("usage", [True, False])
async def test_a_model_within_a_model_counts_once(
    server: OpenAIServer, way: str, usage: bool
) -> None:
    desk(server, small="By the small.", large="By the large.")

    def without(message: AIMessage) -> AIMessage:
        return AIMessage(message.content)

    wrapped = Wrapper(inner=server.model("small"), **({} if usage else {"pass_on": without}))
    asked = mix_of(wrapped, server.model("large"), force_model=0)
    record = record_of(await ask(way, asked))
    assert len(server.billed) == 1
    assert record["cost"] == f"{billed(server):f} USD"
