"""A mix under spend limits, over the wire: what is counted, for whom, and what is saved."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda

from langchain_automix import (
    AutoMixRunnable,
    ChatAutoMix,
    POMDPRouter,
    RoutingState,
    SelfVerifier,
    SpendLimit,
    SpendLimitReachedError,
    SpendWarning,
    UncalibratedWarning,
)
from langchain_automix.errors import AutoMixError, DeadlineError
from langchain_automix.mix.limits import stores as _stores
from langchain_automix.models.prices import PriceWarning, dollars_of
from langchain_automix.policy.decision.prior import prior_policy
from langchain_automix.policy.decision.reweighting import cost_weight_under_pressure
from langchain_automix.types import Decision
from tests.support.builders.mixes import by_question, mix, record_of, rejecting
from tests.support.builders.spending import PRICES, billed, limited, spend, used
from tests.support.builders.waiting import Gate
from tests.support.servers.openai_server import OpenAIServer

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{UncalibratedWarning.__module__}.UncalibratedWarning"
)


class TestWhatIsCounted:
    def test_every_way_to_call(self, server: OpenAIServer) -> None:
        server.script = rejecting()
        limit = SpendLimit("100 USD")
        models = [server.model(name, stream_usage=True) for name in ("small", "large")]
        automix = AutoMixRunnable.from_models(*models, spend_limit=limit, prices=PRICES)

        async def awaited() -> None:
            await automix.ainvoke("a")
            await automix.abatch(["b", "c"])
            async for _ in automix.astream("d"):
                pass

        automix.invoke("e")
        automix.batch(["f", "g", "h"])
        list(automix.stream("i"))
        asyncio.run(awaited())
        assert used(limit) == billed(server) > 0
        assert limit.books.status("all", limit.terms).active == 0

    def test_chat_models_and_structured_output(self, server: OpenAIServer) -> None:
        server.script = rejecting()
        limit = SpendLimit(100)
        models: Any = [server.model("small"), server.model("large")]
        chat = ChatAutoMix(models=models, spend_limit=limit, prices=PRICES)
        chat.invoke("a")
        schema = {"title": "Town", "type": "object", "properties": {"name": {"type": "string"}}}
        chat.with_structured_output(schema, method="json_mode", include_raw=True).invoke("b")
        assert used(limit) == billed(server) > 0

    def test_queries_that_fail(self, server: OpenAIServer) -> None:
        server.script = by_question(rejected="", failing="large")  # the draft is paid for

        def script(body: dict[str, Any]) -> Any:
            return 500 if body["model"] == "large" else by_question(rejected="")(body)

        server.script = script
        limit = SpendLimit(100)
        with pytest.raises(Exception, match="500|scripted"):
            limited(server, limit).invoke("a")
        assert used(limit) == billed(server) > 0

    def test_a_stream_that_is_left(self, server: OpenAIServer) -> None:
        """What the call that was broken off has cost is not known: as much as a dearest query."""
        server.script = rejecting()
        limit = SpendLimit(100)
        automix = limited(server, limit, force_model=1)
        automix.invoke("a")
        standing = limit.books.status("all", limit.terms)
        chunks: Any = automix.stream("b")
        next(chunks)
        chunks.close()
        assert used(limit) == billed(server, "large") / 2 + Decimal(standing.max_cost) / 10**9
        assert limit.books.status("all", limit.terms).active == 0

    @pytest.mark.parametrize("method", ["astream", "_astream"])
    async def test_a_chat_model_that_is_left(self, server: OpenAIServer, method: str) -> None:
        """Once its stream is closed, its place is given away, and not some time later."""
        server.script = by_question()
        limit = SpendLimit(100)
        models: Any = [server.model("small"), server.model("large")]
        chat = ChatAutoMix(models=models, spend_limit=limit, prices=PRICES, force_model=0)
        chunks: Any = getattr(chat, method)([HumanMessage("a")])
        await anext(chunks)
        with pytest.warns(SpendWarning):
            await chunks.aclose()
        assert limit.books.status("all", limit.terms).active == 0

    async def test_a_query_that_is_cancelled(self, server: OpenAIServer) -> None:
        limit = SpendLimit(100)
        automix = limited(server, limit)
        await automix.ainvoke("a")
        before, most = used(limit), limit.books.status("all", limit.terms).max_cost
        server.delay = gate = Gate()
        task = asyncio.create_task(automix.ainvoke("b"))
        await gate.reached()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()
        assert used(limit) == before + Decimal(most) / 10**9

    @pytest.mark.parametrize("how", ["cancelled", "timed out"])
    async def test_the_first_query_of_which_nothing_more_is_heard(
        self, server: OpenAIServer, how: str
    ) -> None:
        """It counts as a dearest one as soon as one is known, and not as the whole limit."""
        server.script = by_question()
        server.delay = gate = Gate(lambda body: "slow" in str(body["messages"]))
        limit = SpendLimit(100)
        latency = {} if how == "cancelled" else {"max_latency": 1.0, "force_model": 0}
        automix = limited(server, limit, **latency)
        with pytest.warns(SpendWarning, match="as soon as one is known"):
            if how == "cancelled":
                task = asyncio.create_task(automix.ainvoke("slow"))
                await gate.reached()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                with pytest.raises(DeadlineError):
                    await automix.ainvoke("slow")
        gate.open()
        assert used(limit) == 0
        record = record_of(await limited(server, limit).ainvoke("quick"))
        assert record["degraded"] is None
        most = Decimal(limit.books.status("all", limit.terms).max_cost) / 10**9
        assert used(limit) == dollars_of(record["cost"]) + most > most > 0

    def test_an_unknown_cost_is_the_dearest(self, server: OpenAIServer) -> None:
        def price(call: Any) -> float | None:
            return None if hidden and call.usage["total_tokens"] > 2 else 0.01

        hidden = False
        limit = SpendLimit(100)
        automix = mix(server, spend_limit=limit, prices=price)
        automix.invoke("a")
        before, most = used(limit), limit.books.status("all", limit.terms).max_cost
        hidden = True
        with pytest.warns(SpendWarning, match="dearest") as told:
            automix.batch(["b", "c"], {"max_concurrency": 1})
        assert len([each for each in told if each.category is SpendWarning]) == 1
        assert used(limit) == before + 2 * Decimal(most) / 10**9

    def test_prices_that_fail_lose_neither_the_answer_nor_the_place(
        self, server: OpenAIServer
    ) -> None:
        def price(call: Any) -> float:
            if call.usage["total_tokens"] == 2:
                return 0.01
            if wrong is not None:
                return wrong
            raise KeyError(call.model)

        wrong: float | None = None
        limit = SpendLimit(100)
        automix = mix(server, spend_limit=limit, prices=price)
        with pytest.warns(PriceWarning, match="KeyError"):
            assert record_of(automix.invoke("a"))["cost"] is None
        wrong = -1.0
        with pytest.raises(AutoMixError, match="no amount of dollars"):
            automix.invoke("b")
        assert limit.books.status("all", limit.terms).active == 0

    @pytest.mark.filterwarnings("error::langchain_automix.mix.limits.spend_store.SpendWarning")
    def test_a_warning_as_an_error_takes_the_place_of_no_answer(self, server: OpenAIServer) -> None:
        automix = mix(
            server,
            spend_limit=SpendLimit(100, when_spent="raise"),
            prices=lambda call: 0.01 if call.usage["total_tokens"] == 2 else None,
        )
        assert record_of(automix.invoke("q"))["cost"] is None

    def test_a_cost_that_was_never_known_is_the_whole_limit(self, server: OpenAIServer) -> None:
        limit = SpendLimit(100, when_spent="raise")
        automix = mix(
            server,
            spend_limit=limit,
            prices=lambda call: 0.01 if call.usage["total_tokens"] == 2 else None,
        )
        with pytest.warns(SpendWarning):
            automix.invoke("a")
        with pytest.raises(SpendLimitReachedError):
            automix.invoke("b")


class TestWhoIsLimited:
    def test_by_tag(self, server: OpenAIServer) -> None:
        limit = SpendLimit(1, tag="cheap", when_spent="raise")
        automix = limited(server, limit)
        spend(limit, "1")
        automix.invoke("a")
        automix.invoke("a", {"tags": ["other"]})
        for given in (automix, RunnableLambda(lambda x: x) | automix, automix.with_config(tags=[])):
            with pytest.raises(SpendLimitReachedError, match=r"\$1 is reached"):
                given.invoke("a", {"tags": ["cheap"]})
        assert used(limit) == 1

    @pytest.mark.parametrize("place", ["configurable", "metadata"])
    def test_by_tenant(self, server: OpenAIServer, place: str) -> None:
        limit = SpendLimit(1, by="tenant", when_spent="raise")
        automix = limited(server, limit)
        spend(limit, "1", "of:acme")
        config: Any = {place: {"tenant": "acme"}}
        with pytest.raises(SpendLimitReachedError, match="'acme'"):
            automix.invoke("a", config)
        other: Any = {place: {"tenant": "other"}}
        automix.invoke("a", other)
        assert used(limit, "other") == billed(server) > 0
        automix.invoke("a")
        assert used(limit) > 0
        assert used(limit, "acme") == 1

    def test_several_limits(self, server: OpenAIServer) -> None:
        whole = SpendLimit(1, name="whole")
        each = SpendLimit(1, by="tenant", when_spent="raise", name="each")
        automix = limited(server, [whole, each])
        automix.invoke("a", {"configurable": {"tenant": "x"}})
        assert used(whole) == used(each, "x") == billed(server)
        spend(whole, "1")
        automix.invoke("a", {"configurable": {"tenant": "x"}})
        assert used(whole) == 1 + used(each, "x") == 1 + billed(server)
        spend(each, "1", "of:x")
        with pytest.raises(SpendLimitReachedError):
            automix.invoke("a", {"configurable": {"tenant": "x"}})
        assert whole.books.status("all", whole.terms).active == 0

    def test_a_window_passes(self, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 10**12
        monkeypatch.setattr(_stores, "now_ms", lambda: now)
        limit = SpendLimit(1, per=timedelta(milliseconds=600), when_spent="raise")
        automix = limited(server, limit)
        spend(limit, "1")
        with pytest.raises(SpendLimitReachedError, match=r"\$1 per 0:00:00.6"):
            automix.invoke("a")
        now += 600
        with pytest.raises(SpendLimitReachedError):
            automix.invoke("a")
        now += 10  # the part in which it was spent leaves the window as a whole
        automix.invoke("a")


class TestNearTheLimit:
    def test_at_the_limit_the_cheapest_model_answers_unchecked(self, server: OpenAIServer) -> None:
        server.script = rejecting()
        limit = SpendLimit(1)
        spend(limit, "1")
        for found in (
            limited(server, limit).invoke("a"),
            limited(server, limit, force_model=1).invoke("a"),
            ChatAutoMix(
                models=[server.model("small"), server.model("large")],
                spend_limit=limit,
                prices=PRICES,
            ).invoke("a"),
        ):
            record = record_of(found)
            assert (record["model_index"], record["drawn"]) == (0, 0)
            assert record["why"] == (
                "The spend limit of $1 is reached: small is asked, and not checked."
            )
        assert billed(server, "large") == 0
        assert used(limit) == 1 + billed(server)  # what is paid beyond is counted

    def test_an_answer_that_cannot_be_used_leads_no_further(self, server: OpenAIServer) -> None:
        server.script = lambda _: [{"content": "no JSON"}]
        limit = SpendLimit(1)
        spend(limit, "1")
        schema = {"title": "Town", "type": "object", "properties": {"name": {"type": "string"}}}
        found = (
            limited(server, limit)
            .with_structured_output(schema, method="json_mode", include_raw=True)
            .invoke("a")
        )
        assert found["parsed"] is None
        assert {body["model"] for body in server.requests} == {"small"}

    def test_the_cost_weight_rises_with_what_is_spent(self, server: OpenAIServer) -> None:
        seen: list[float | None] = []

        class Watching(POMDPRouter):
            def decide(self, state: RoutingState) -> Decision:
                seen.append(state.cost_weight)
                return super().decide(state)

        limit = SpendLimit(100, soft=0.5)
        automix = limited(server, limit, router=Watching(), verifier=SelfVerifier())
        automix.invoke("a")
        for _ in range(4):
            spend(limit, "12.4", "all")
            if used(limit) > 50:
                automix.invoke("a")
        assert seen[0] is None  # below the soft share nothing is changed
        for step in ("25", "13", "6", "5"):
            spend(limit, step)
            answer = automix.invoke("a")
        weights = [weight for weight in seen[1:] if weight is not None]
        assert weights == sorted(weights)
        assert len(weights) >= 3
        assert record_of(answer)["model_index"] == 0
        assert "cost weight is raised to" in record_of(automix.invoke("a"))["why"]

    def test_with_a_threshold_a_falling_share_may_escalate(self, server: OpenAIServer) -> None:
        server.script = by_question(rejected="")
        shares = []
        for spent in ("500", "850", "950", "1000"):
            limit = SpendLimit(1000, query_cost=0.1)
            spend(limit, spent)
            found = limited(server, limit).batch([f"Question {i}" for i in range(24)])
            shares.append(sum(record_of(each)["escalated"] for each in found) / 24)
        assert shares[0] == 1
        assert shares[-1] == 0
        assert shares == sorted(shares, reverse=True)
        assert 0.5 < shares[1] < 1
        assert 0.05 < shares[2] < 0.5

    def test_the_pressed_weight(self) -> None:
        policy = prior_policy()
        weights = [
            cost_weight_under_pressure(policy, None, pressure / 10) for pressure in range(11)
        ]
        assert weights[0] == policy.cost_weight
        assert weights[-1] == 1 / policy.fit.cost[1]  # no gain in quality is worth more than 1
        assert weights == sorted(weights)  # type: ignore[type-var]
        assert cost_weight_under_pressure(policy, 5, 0.5) == 5  # what was set is never lowered
