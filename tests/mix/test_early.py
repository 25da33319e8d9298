"""`give_up_early`: a draft whose check can find nothing that keeps it is not waited for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from langchain_automix import (
    AutoMixError,
    AutoMixRunnable,
    AutoMixTotals,
    ChatAutoMix,
    CombinedVerifier,
    Learning,
    LogProbabilityVerifier,
    SelfVerifier,
    SpendLimit,
    ThresholdRouter,
    explain,
)
from tests.support.builders.faults import PRICES, WAYS, ask
from tests.support.builders.mixes import Witness, record_of, weather
from tests.support.builders.score_policies import ANSWER, ESCALATE, score_router
from tests.support.builders.scripted_replies import Body, Cut
from tests.support.builders.waiting import eventually, wait_for
from tests.support.servers.openai_server import OpenAIServer, token

every_way = pytest.mark.parametrize("way", WAYS)
LEAST = LogProbabilityVerifier(statistic="min")
WORDS = 200


def draft(improbable: int | None = 3, **fields: Any) -> dict[str, Any]:
    """A long draft, one of whose words the model was not sure of."""
    chances = [0.1 if i == improbable else 0.9 for i in range(WORDS)]
    words = [token(f"Zebra{i} ", chance) for i, chance in enumerate(chances)]
    return {"content": "".join(word["token"] for word in words), "logprobs": words, **fields}


def scripted(server: OpenAIServer, small: Any) -> None:
    def script(body: Body) -> Any:
        found = small if body["model"] == "small" else "By the large."
        return found if isinstance(found, Cut) else [found]

    server.script = script


def early(server: OpenAIServer, *names: str, **fields: Any) -> AutoMixRunnable:
    models = [server.model(name, stream_usage=True) for name in names or ("small", "large")]
    router = ThresholdRouter(threshold=0.5)
    given = {"verifier": LEAST, "router": router, "prices": PRICES, "give_up_early": True}
    return AutoMixRunnable.from_models(*models, **{**given, **fields})


def asked(server: OpenAIServer, model: str) -> list[Body]:
    return [body for body in server.requests if body["model"] == model]


@every_way
class TestGivenUp:
    async def test_the_large_model_is_asked_before_the_draft_is_written(
        self, server: OpenAIServer, way: str
    ) -> None:
        scripted(server, draft())
        sent = 0

        def until_asked(body: Body) -> float:
            nonlocal sent
            sent += body["model"] == "small"
            if body["model"] == "small" and sent > 6:
                wait_for(lambda: asked(server, "large"))
                return 0.01
            return 0.0

        server.token_delay = until_asked
        witness = Witness()
        message = await ask(way, early(server), config={"callbacks": [witness]})
        assert message.content == "By the large."
        [(_, written)] = await eventually(lambda: [e for e in server.written if e[0] == "small"])
        assert written < WORDS, "its connection was closed"
        assert "Zebra" not in "".join(witness.tokens)
        assert not witness.open
        assert witness.failed == ["draft"]

    async def test_the_record_says_so(self, server: OpenAIServer, way: str) -> None:
        scripted(server, draft())
        totals = AutoMixTotals()
        message = await ask(way, early(server), config={"callbacks": [totals]})
        record = record_of(message)
        assert record["given_up"] == [
            {
                "model": "small",
                "tokens": 4,
                "confidence_at_most": pytest.approx(0.1),
                "price_of_tokens": "0.000008 USD",
            }
        ]
        assert record["escalated"]
        assert (record["confidence"], record["cost"], record["saved"]) == (None, None, None)
        assert record["failed"] == []
        [check] = record["checks"]
        assert (check["confidence"], check["problem"]) == (None, "the draft was given up")
        assert "could score it 0.10 at most" in record["why"]
        assert (totals.given_up, totals.given_up_tokens, totals.cost) == (1, 4, None)
        assert "1 of them mid-draft, after 4 tokens" in str(totals)
        assert "small given up after 4 tokens" in explain(message)

    async def test_one_that_is_kept_is_as_without(self, server: OpenAIServer, way: str) -> None:
        scripted(server, draft(improbable=None))
        message = await ask(way, early(server))
        plain = await ask(way, early(server, give_up_early=False))
        assert asked(server, "large") == []
        assert message.content == plain.content
        mine, theirs = record_of(message), record_of(plain)
        assert mine == theirs
        assert mine["given_up"] == []
        assert mine["cost"] is not None
        if "stream" not in way:
            assert type(message) is AIMessage

    @pytest.mark.parametrize(
        "ending",
        [
            draft(),
            draft(finish_reason="content_filter"),
            draft(finish_reason="length"),
            Cut(draft(), after=20),
        ],
        ids=["stop", "filtered", "out of tokens", "broken off"],
    )
    async def test_the_same_answer_however_it_would_have_ended(
        self, server: OpenAIServer, way: str, ending: Any
    ) -> None:
        scripted(server, ending)
        message = await ask(way, early(server))
        assert record_of(message)["given_up"]
        plain = await ask(way, early(server, give_up_early=False))
        kept, theirs = record_of(message), record_of(plain)
        assert message.content == plain.content
        names = ("model", "model_index", "action", "escalated")
        assert [kept[name] for name in names] == [theirs[name] for name in names]


class TestNotGivenUp:
    @pytest.mark.parametrize(
        "fields",
        [
            {"give_up_early": False},
            {"max_latency": 60.0},
            {"on_escalation_error": "answer"},
            {"retries_if_unusable": 1},
            {"verifier": LogProbabilityVerifier(statistic="mean")},
            {"router": score_router([0.5], [ESCALATE, ANSWER], own_cost=True)},
            {"router": score_router([0.05, 0.5], [ANSWER, ESCALATE, ANSWER])},
            {"router": score_router([0.05], [ANSWER, ANSWER])},
        ],
        ids=str,
    )
    def test_where_it_might_be_kept(self, server: OpenAIServer, fields: dict[str, Any]) -> None:
        scripted(server, draft())
        message = early(server, **fields).invoke("Where?")
        assert record_of(message)["given_up"] == []
        assert record_of(message)["cost"] is not None

    @pytest.mark.parametrize("fields", [{"force_model": "small"}, {"verification": False}], ids=str)
    def test_where_nothing_is_checked(self, server: OpenAIServer, fields: dict[str, Any]) -> None:
        scripted(server, draft())
        message = early(server, **fields).invoke("Where?")
        assert message.content.startswith("Zebra0")

    def test_by_a_router_of_ones_own(self, server: OpenAIServer) -> None:
        scripted(server, draft())
        router = RunnableLambda(ThresholdRouter(threshold=0.5).decide)
        message = early(server, router=router).invoke("Where?")
        assert (message.content, record_of(message)["given_up"]) == ("By the large.", [])

    @pytest.mark.parametrize("on_unknown", ["escalate", "answer"])
    def test_a_draft_that_may_yet_call_a_tool(self, server: OpenAIServer, on_unknown: Any) -> None:
        """The check cannot read a call: what the router does of the unknown must be the same."""
        scripted(server, draft())
        router = ThresholdRouter(threshold=0.5, on_unknown=on_unknown)
        message = early(server, router=router).bind_tools([weather]).invoke("Where?")
        assert message.content == "By the large."
        assert bool(record_of(message)["given_up"]) == (on_unknown == "escalate")

    @pytest.mark.parametrize("wraps", ["retry", "fallbacks", "several", "not streamed", "own"])
    def test_a_model_whose_stream_is_another_thing(self, server: OpenAIServer, wraps: str) -> None:
        scripted(server, draft())
        small: Any = server.model("small")
        match wraps:
            case "retry":
                small = small.with_retry()
            case "fallbacks":
                small = small.with_fallbacks([server.model("large")])
            case "own":  # of a model's own callbacks nobody can take away its tokens
                small = server.model("small", callbacks=[Witness()])
            case "several":
                small = server.model("small", n=2)
            case _:
                small = server.model("small", disable_streaming=True)
        large = server.model("large")
        mix = AutoMixRunnable.from_models(
            small, large, verifier=LEAST, router=ThresholdRouter(), give_up_early=True
        )
        message = mix.invoke("Where?")
        assert (message.content, record_of(message)["given_up"]) == ("By the large.", [])
        assert not asked(server, "small")[0].get("stream")

    def test_an_answer_that_a_cache_may_have(self, server: OpenAIServer, cache: None) -> None:
        scripted(server, draft())
        mix = early(server)
        assert [record_of(mix.invoke("Where?"))["given_up"] for _ in range(2)] == [[], []]
        assert len(asked(server, "small")) == 1

    @pytest.fixture
    def cache(self) -> Iterator[None]:
        set_llm_cache(InMemoryCache())
        yield
        set_llm_cache(None)

    def test_a_draft_that_came_whole(self, server: OpenAIServer) -> None:
        """Nothing is saved any more, and its usage would be lost: LangChain does not stream it."""
        scripted(server, draft())
        models = [server.model(name, streaming=False) for name in ("small", "large")]
        mix = AutoMixRunnable.from_models(
            *models, verifier=LEAST, router=ThresholdRouter(), prices=PRICES, give_up_early=True
        )
        record = record_of(mix.invoke("Where?"))
        assert (record["model"], record["given_up"]) == ("large", [])
        assert record["cost"] is not None

    def test_without_log_probabilities(self, server: OpenAIServer) -> None:
        scripted(server, {**draft(), "logprobs": []})
        message = early(server).invoke("Where?")
        assert (message.content, record_of(message)["given_up"]) == ("By the large.", [])


class TestWhere:
    async def test_a_bound_model(self, server: OpenAIServer) -> None:
        scripted(server, draft())
        small: Any = server.model("small").bind(stop=["#"]).with_config(tags=["of the mix"])
        large = server.model("large").bind(stop=["#"])
        for way in ("invoke", "ainvoke"):
            witness = Witness()
            mix = AutoMixRunnable.from_models(
                small, large, verifier=LEAST, router=ThresholdRouter(), give_up_early=True
            )
            message = await ask(way, mix, config={"callbacks": [witness]})
            assert record_of(message)["given_up"]
            assert asked(server, "small")[0]["stop"] == ["#"]
            assert not witness.open
            assert witness.failed == ["draft"]
            assert any("of the mix" in tags for tags in witness.tags)

    def test_by_a_policy(self, server: OpenAIServer) -> None:
        scripted(server, draft())
        router = score_router([0.05, 0.3], [ESCALATE, ESCALATE, ANSWER])
        record = record_of(early(server, router=router).invoke("Where?"))
        assert [each["tokens"] for each in record["given_up"]] == [4]
        assert record["belief"] == {"small": pytest.approx(0.2), "large": pytest.approx(0.8)}

    def test_by_one_of_several_checks(self, server: OpenAIServer) -> None:
        scripted(server, draft())
        verifier = CombinedVerifier(checks={"least": LEAST, "self": SelfVerifier()})
        record = record_of(early(server, verifier=verifier).invoke("Where?"))
        assert record["given_up"]
        assert len(server.requests) == 2

    def test_one_draft_after_the_other(self, server: OpenAIServer) -> None:
        server.script = lambda body: ["By the third." if body["model"] == "third" else draft()]
        message = early(server, "small", "large", "third").invoke("Where?")
        assert message.content == "By the third."
        assert [each["model"] for each in record_of(message)["given_up"]] == ["small", "large"]

    def test_a_chat_model(self, server: OpenAIServer) -> None:
        scripted(server, draft())
        models = [server.model(name) for name in ("small", "large")]
        mix = ChatAutoMix(
            models=models, verifier=LEAST, router=ThresholdRouter(), give_up_early=True
        )
        assert record_of(mix.invoke("Where?"))["given_up"]

    def test_many_at_once(self, server: OpenAIServer) -> None:
        scripted(server, draft())
        messages = early(server).batch(["Where?"] * 8, {"max_concurrency": 3})
        assert all(record_of(message)["given_up"] for message in messages)
        assert server.most_at_once <= 4, "one more may not have noticed yet that it was left"

    async def test_under_a_spend_limit_it_counts_as_a_lost_request(
        self, server: OpenAIServer
    ) -> None:
        scripted(server, draft())
        mix = early(server, spend_limit=SpendLimit("1 USD", query_cost="0.01 USD"))
        with pytest.warns(UserWarning, match="its cost is unknown"):
            message = await mix.ainvoke("Where?")
        assert record_of(message)["given_up"]

    def test_what_is_learned_is_learned_of_whole_drafts(
        self, server: OpenAIServer, tmp_path: Any
    ) -> None:
        learning = Learning(f"sqlite:///{tmp_path}/a.db", cost_weight=1.0)
        with pytest.raises(AutoMixError, match="leave out give_up_early"):
            early(server, learning=learning)


class TestNeverShown:
    """What a user may see of a draft that is streamed: nothing, until it is kept."""

    @pytest.mark.parametrize("streaming", [False, True])
    @pytest.mark.parametrize("version", ["v1", "v2"])
    async def test_events(self, server: OpenAIServer, version: Any, streaming: bool) -> None:
        scripted(server, draft())
        models = [server.model(name, streaming=streaming) for name in ("small", "large")]
        mix = AutoMixRunnable.from_models(
            *models, verifier=LEAST, router=ThresholdRouter(), give_up_early=True
        )
        events = [event async for event in mix.astream_events("Where?", version=version)]
        assert "Zebra" not in repr(events)
        told = [e["data"]["chunk"].text for e in events if e["event"] == "on_chat_model_stream"]
        assert "".join(told) == ("By the large." if streaming else "")

    @pytest.mark.parametrize("mode", ["messages", "updates", "debug"])
    @pytest.mark.parametrize("improbable", [3, None])
    async def test_a_graph(self, server: OpenAIServer, mode: str, improbable: int | None) -> None:
        scripted(server, draft(improbable))
        mix = early(server)

        async def node(state: MessagesState) -> dict[str, Any]:
            return {"messages": [await mix.ainvoke(state["messages"])]}

        graph: Any = StateGraph(MessagesState)
        graph.add_node("answer", node)
        graph.add_edge(START, "answer")
        asked = {"messages": [("human", "Where?")]}
        parts = [part async for part in graph.compile().astream(asked, stream_mode=mode)]
        assert ("Zebra199" in repr(parts)) == (improbable is None)
        if mode == "messages":
            kept = "By the large." if improbable else draft(None)["content"]
            assert "".join(part.text for part, _ in parts) == kept


class TestNoEffect:
    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"max_latency": 1.0}, "given after all"),
            ({"on_escalation_error": "answer"}, "given after all"),
            ({"verifier": SelfVerifier()}, "can only find less"),
            ({"verifier": LogProbabilityVerifier(statistic="length")}, "can only find less"),
            (
                {"router": RunnableLambda(ThresholdRouter().decide)},
                "more than the check may decide",
            ),
            ({"router": score_router([0.5], [ESCALATE, ANSWER], own_cost=True)}, "own_cost"),
        ],
        ids=str,
    )
    def test_a_setting_that_does_nothing_says_so(
        self, server: OpenAIServer, fields: dict[str, Any], reason: str
    ) -> None:
        with pytest.warns(UserWarning, match=f"give_up_early has no effect: .*{reason}"):
            early(server, **fields)

    def test_a_model_that_cannot_stream(self, server: OpenAIServer) -> None:
        models = [server.model("small", disable_streaming=True), server.model("large")]
        with pytest.warns(UserWarning, match="no model before the last"):
            AutoMixRunnable.from_models(
                *models, verifier=LEAST, router=ThresholdRouter(), give_up_early=True
            )
