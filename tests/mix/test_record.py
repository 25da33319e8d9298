"""The bill in a query's record: what it cost, what each model alone would have cost."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from langchain_automix import AutoMixRunnable, ChatAutoMix, Decision, RoutingState, ThresholdRouter
from tests.support.builders.mixes import mix, record_of, weather
from tests.support.builders.scripted_replies import call, is_check
from tests.support.servers.openai_server import OpenAIServer, answering

TABLE: dict[str, Any] = {
    "small": {"input": 1, "output": 2},
    "large": {"input": 10, "output": 20},
    "third": {"input": 100, "output": 200},
}


class City(BaseModel):
    name: str


class Unnamed(BaseChatModel):
    """A chat model whose replies report tokens, but no name."""

    name_of_it: str = "mine"

    @property
    def _llm_type(self) -> str:
        return "mine"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_model_name": self.name_of_it, "ls_provider": "me"}

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        usage: Any = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
        return ChatResult(
            generations=[ChatGeneration(message=AIMessage("x", usage_metadata=usage))]
        )


def price(billed: dict[str, Any]) -> Decimal:
    entry = TABLE[billed["model"]]
    tokens = (
        billed["prompt_tokens"] * entry["input"] + billed["completion_tokens"] * entry["output"]
    )
    return Decimal(tokens) / 10**6


def dollars(text: str | None) -> Decimal:
    assert text is not None
    amount, currency = text.split()
    assert currency == "USD"
    assert "E" not in amount
    return Decimal(amount)


def alone(record: dict[str, Any]) -> dict[str, tuple[Decimal | None, bool]]:
    return {
        name: (None if entry["cost"] is None else dollars(entry["cost"]), entry["estimate"])
        for name, entry in record["alone"].items()
    }


def balanced(record: dict[str, Any], server: OpenAIServer) -> None:
    """The record is JSON, and its sums are what the server billed."""
    assert json.loads(json.dumps(record)) == record
    assert dollars(record["cost"]) == sum(map(price, server.billed))
    assert record["unpriced"] == []
    for kind, theirs in (("input", "prompt"), ("output", "completion"), ("total", "total")):
        billed = sum(billed[f"{theirs}_tokens"] for billed in server.billed)
        assert record["tokens"][f"{kind}_tokens"] == billed


def same_tokens(billed: dict[str, Any], model: str) -> Decimal:
    return price({**billed, "model": model})


class TestAlone:
    def test_kept_small(self, server: OpenAIServer) -> None:
        server.script = answering("two words", "large says")
        record = record_of(mix(server, prices=TABLE).invoke("Where was it?"))
        balanced(record, server)
        draft = server.billed[0]
        would = same_tokens(draft, "large")
        assert alone(record) == {"small": (price(draft), False), "large": (would, True)}
        assert dollars(record["saved"]) == would - dollars(record["cost"])
        assert record["saved_is_estimate"]

    def test_escalated_is_known(self, server: OpenAIServer) -> None:
        server.script = answering("s", "l", verdicts="r")
        record = record_of(mix(server, prices=TABLE).invoke("Where was it?"))
        balanced(record, server)
        draft, check, large = map(price, server.billed)
        assert alone(record) == {"small": (draft, False), "large": (large, False)}
        assert dollars(record["saved"]) == -(draft + check)
        assert not record["saved_is_estimate"]

    @pytest.mark.parametrize("model", ["small", "large"])
    def test_forced(self, server: OpenAIServer, model: str) -> None:
        server.script = answering("s", "l")
        record = record_of(mix(server, prices=TABLE, force_model=model).invoke("Where?"))
        balanced(record, server)
        [billed] = server.billed
        for name, (cost, is_estimate) in alone(record).items():
            assert cost == same_tokens(billed, name)
            assert is_estimate == (name != model)
        assert (dollars(record["saved"]) > 0) == record["saved_is_estimate"] == (model == "small")

    def test_abstained(self, server: OpenAIServer) -> None:
        def decide(state: RoutingState) -> Decision:
            return Decision(action="abstain", model_index=len(state.visits) - 1)

        server.script = answering("s", "l")
        record = record_of(
            mix(server, prices=TABLE, router=RunnableLambda(decide)).invoke("Where?")
        )
        balanced(record, server)
        assert alone(record)["large"] == (same_tokens(server.billed[0], "large"), True)

    @pytest.mark.parametrize("verdicts", ["a", "rrrrrrrra", "r"])
    def test_three_models(self, server: OpenAIServer, verdicts: str) -> None:
        server.script = answering("s", "l l", "t t t", verdicts=verdicts)
        models = [server.model(name) for name in TABLE]
        router = ThresholdRouter(threshold=0.5)
        asked = AutoMixRunnable(models=models, router=router, prices=TABLE)
        record = record_of(asked.invoke("Where?"))
        balanced(record, server)
        answers = {
            b["model"]: b
            for b, r in zip(server.billed, server.requests, strict=True)
            if not is_check(r)
        }
        last = list(answers.values())[-1]
        for name, found in alone(record).items():
            asked_it = name in answers
            assert found == (same_tokens(answers.get(name, last), name), not asked_it)

    def test_each_attempt_counts(self, server: OpenAIServer) -> None:
        server.script = lambda body: (
            answering()(body) if is_check(body) else [call("wether", city="Turku")]
        )
        asked = mix(server, prices=TABLE, retries_if_unusable=2).bind_tools([weather])
        record = record_of(asked.invoke("Weather?"))
        balanced(record, server)
        small = [price(billed) for billed in server.billed if billed["model"] == "small"]
        assert len(small) == 3
        assert alone(record)["small"] == (sum(small), False)

    @pytest.mark.parametrize("stream_usage", [True, False])
    def test_a_stream_with_and_without_usage(
        self, server: OpenAIServer, *, stream_usage: bool
    ) -> None:
        models = [server.model(n, stream_usage=stream_usage) for n in ("small", "large")]
        asked = AutoMixRunnable.from_models(*models, prices=TABLE, force_model="large")
        chunks = list(asked.stream("Where?"))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        record = record_of(whole)
        if stream_usage:
            balanced(record, server)
            return
        assert json.loads(json.dumps(record)) == record
        assert (record["cost"], record["saved"], record["tokens"]) == (None, None, None)
        assert record["unpriced"] == ["large"]
        assert alone(record) == {"small": (None, True), "large": (None, False)}


class TestUnknown:
    def test_a_draft_whose_usage_the_client_loses(self, server: OpenAIServer) -> None:
        server.script = lambda body: [
            "no JSON" if body["model"] == "small" else '{"name": "Turku"}'
        ]
        asked = mix(server, prices=TABLE, verification=False)
        structured = asked.with_structured_output(City, include_raw=True, method="json_schema")
        record = record_of(structured.invoke("Where?")["raw"])
        assert record["escalated"]
        assert (record["cost"], record["unpriced"]) == (None, ["small"])
        assert record["saved"] is None
        assert alone(record) == {"small": (None, False), "large": (price(server.billed[1]), False)}

    def test_one_price_is_missing(self, server: OpenAIServer) -> None:
        record = record_of(mix(server, prices={"small": TABLE["small"]}).invoke("Where?"))
        assert dollars(record["cost"]) == sum(map(price, server.billed))
        assert (record["saved"], record["saved_is_estimate"]) == (None, False)
        assert alone(record)["large"] == (None, True)

    def test_a_function_of_the_users_own(self, server: OpenAIServer) -> None:
        record = record_of(mix(server, prices=lambda _: 0.1).invoke("Where?"))
        assert record["cost"] == "0.2 USD"
        assert record["saved"] == "-0.1 USD"

    def test_a_model_that_does_not_say_its_name(self) -> None:
        fields: dict[str, Any] = {
            "router": ThresholdRouter(),
            "prices": {"mine": TABLE["small"]},
            "verification": False,
        }
        pair = (Unnamed(), Unnamed(name_of_it="other"))
        record = record_of(AutoMixRunnable.from_models(*pair, **fields).invoke("Where?"))
        assert record["cost"] == "0.000007 USD"
        # With a fallback nobody knows which one answered.
        unsure = pair[0].with_fallbacks([pair[1]])
        record = record_of(AutoMixRunnable.from_models(unsure, pair[1], **fields).invoke("Where?"))
        assert (record["cost"], record["unpriced"]) == (None, ["a model without a name"])


class TestCached:
    def test_a_cached_answer_is_free_and_claims_no_saving(self, server: OpenAIServer) -> None:
        models = [server.model(name, cache=InMemoryCache()) for name in ("small", "large")]
        asked = AutoMixRunnable.from_models(*models, prices=TABLE, verification=False)
        first, second = (record_of(asked.invoke("Where?")) for _ in range(2))
        balanced(first, server)
        assert dollars(second["cost"]) == 0
        assert second["tokens"] == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        assert dollars(second["saved"]) == 0
        assert second["saved_is_estimate"]

    def test_a_cached_answer_without_tokens(self, server: OpenAIServer) -> None:
        class Silent(Unnamed):
            def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
                return ChatResult(generations=[ChatGeneration(message=AIMessage("x"))])

        small = Silent(cache=InMemoryCache())
        asked = AutoMixRunnable.from_models(small, server.model("large"), verification=False)
        first, second = (record_of(asked.invoke("Where?")) for _ in range(2))
        assert (first["cost"], first["unpriced"], first["tokens"]) == (None, ["mine"], None)
        assert dollars(second["cost"]) == 0


class TestAMixInAMix:
    @pytest.mark.parametrize("kind", [AutoMixRunnable, ChatAutoMix])
    @pytest.mark.parametrize("verdicts", ["a", "r", "rrrrrrrra"])
    def test_its_record_is_its_bill(self, server: OpenAIServer, kind: Any, verdicts: str) -> None:
        server.script = answering("s", "l", "t", verdicts=verdicts)
        small, large, third = (server.model(name) for name in TABLE)
        fields: dict[str, Any] = {"router": ThresholdRouter(), "prices": TABLE}
        inner = kind(models=[small, large], **fields)
        outer = AutoMixRunnable.from_models(inner, third, verification=False, **fields)
        balanced(record_of(outer.invoke("Where?")), server)

    @pytest.mark.filterwarnings("ignore:A check draws")
    @pytest.mark.parametrize("kind", [AutoMixRunnable, ChatAutoMix])
    def test_also_where_it_checks(self, server: OpenAIServer, kind: Any) -> None:
        server.script = answering("s", "l", "t")
        small, large, third = (server.model(name) for name in TABLE)
        fields: dict[str, Any] = {"router": ThresholdRouter(), "prices": TABLE}
        inner = kind(models=[small, large], **fields)
        record = record_of(AutoMixRunnable.from_models(inner, third, **fields).invoke("Where?"))
        balanced(record, server)

    def test_what_it_does_not_know_is_unknown(self, server: OpenAIServer) -> None:
        inner = ChatAutoMix(models=[server.model("small"), server.model("large")])
        outer = AutoMixRunnable.from_models(inner, server.model("third"), verification=False)
        record = record_of(outer.invoke("Where?"))
        assert (record["cost"], record["saved"], record["unpriced"]) == (None, None, ["small"])
