"""A mix made without a check: what it buys, at every door, over HTTP."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from langchain_core.load import dumpd, load
from langchain_core.runnables import ConfigurableField
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from langchain_automix import (
    AutoMixMiddleware,
    AutoMixRunnable,
    ChatAutoMix,
    CircuitBreaker,
    DefaultVerifier,
    POMDPRouter,
    SelfVerifier,
    SpendLimit,
    ThresholdRouter,
    Verification,
    calibrate,
    explain,
)
from langchain_automix.models.refusals import LOGPROBS
from langchain_automix.utils.default_checks import AGREEMENT, TOKENS
from tests.support.builders.mixes import DRAFT, KEPT, Witness, record_of, weather
from tests.support.builders.scripted_replies import Body, Error, call, is_check
from tests.support.builders.synthetic_logs import world
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.openai_server import OpenAIServer, token

pytestmark = pytest.mark.filterwarnings("ignore::langchain_automix.UncalibratedWarning")

HOW = ("invoke", "ainvoke", "batch", "abatch", "stream", "astream")


def prices(ratio: float = 10.0) -> dict[str, dict[str, float]]:
    return {
        "small": {"input": 1.0, "output": 4.0},
        "third": {"input": 2.0, "output": 8.0},
        "large": {"input": ratio, "output": 4.0 * ratio},
    }


def default(server: OpenAIServer, ratio: float = 10.0, **fields: Any) -> AutoMixRunnable:
    models = [server.model("small"), server.model("large")]
    return AutoMixRunnable.from_models(*models, **{"prices": prices(ratio), **fields})


def saying(*, sure: bool, draft: str = f"{DRAFT} it is.", kept: str = KEPT) -> Any:
    """The small model is sure of its draft, or not; the large one says something else."""

    def script(body: Body) -> Any:
        text = draft if body["model"] == "small" else kept
        words = [token(f"{word} ", 0.99 if sure else 0.3) for word in text.split()]
        return [{"content": text, "logprobs": words}] * (body.get("n") or 1)

    return script


def silent(draft: str = "Turku", kept: str = KEPT, others: str | None = None) -> Any:
    """A server that takes the field `logprobs`, and sends none."""

    def script(body: Body) -> Any:
        resampled = body["model"] == "small" and "temperature" in body
        text = (others or draft) if resampled else draft
        text = text if body["model"] == "small" else kept
        return [{"content": text, "logprobs": {"content": None}}] * (body.get("n") or 1)

    return script


def refusing(status: int = 400, words: str = "logprobs are not supported", **how: Any) -> Any:
    """A server that refuses the field."""
    answer = silent(**how)

    def script(body: Body) -> Any:
        if body.get("logprobs"):
            return Error(status, {"error": {"message": words, "type": "invalid_request_error"}})
        return answer(body)

    return script


async def by(how: str, asked: Any, question: Any = "Where was it built?") -> Any:
    if how == "invoke":
        return asked.invoke(question)
    if how == "ainvoke":
        return await asked.ainvoke(question)
    if how == "batch":
        return asked.batch([question])[0]
    if how == "abatch":
        return (await asked.abatch([question]))[0]
    whole: Any = None
    if how == "stream":
        for chunk in asked.stream(question):
            whole = chunk if whole is None else whole + chunk
        return whole
    async for chunk in asked.astream(question):
        whole = chunk if whole is None else whole + chunk
    return whole


@pytest.mark.parametrize("how", HOW)
class TestEveryWay:
    async def test_a_sure_draft_costs_nothing_but_itself(
        self, server: OpenAIServer, how: str
    ) -> None:
        server.script = saying(sure=True)
        record = record_of(message := await by(how, default(server)))
        assert [body["model"] for body in server.requests] == ["small"]
        assert record["cost"] == record["alone"]["small"]["cost"]
        assert (record["model"], record["escalated"]) == ("small", False)
        assert record["confidence"] == pytest.approx(0.99)
        [check] = record["checks"]
        assert (check["check"], check["model"]) == (TOKENS, "small")
        assert "tokens" in record["why"]
        assert DRAFT in str(message.text)

    async def test_a_draft_that_is_not_kept_is_never_shown(
        self, server: OpenAIServer, how: str
    ) -> None:
        server.script = saying(sure=False)
        seen = Witness()
        asked = default(server).with_config(callbacks=[seen])
        record = record_of(message := await by(how, asked))
        assert [body["model"] for body in server.requests] == ["small", "large"]
        assert str(message.text) == KEPT
        assert DRAFT not in "".join(seen.tokens)
        assert record["escalated"]
        assert not seen.open

    async def test_log_probabilities_that_only_the_mix_wanted_are_not_handed_on(
        self, server: OpenAIServer, how: str
    ) -> None:
        server.script = saying(sure=True)
        message = await by(how, default(server))
        assert server.requests[0]["logprobs"] is True
        assert message.response_metadata.get("logprobs") is None
        models = [server.model("small", logprobs=True), server.model("large")]
        own = await by(how, AutoMixRunnable.from_models(*models, prices=prices()))
        assert own.response_metadata["logprobs"] is not None, "the user asked for them"

    async def test_what_the_server_refuses_is_asked_for_once(
        self, server: OpenAIServer, how: str
    ) -> None:
        server.script = refusing(words="not for this model")
        asked = default(server, 60.0)
        for _ in range(2):
            record = record_of(await by(how, asked))
            assert (record["model"], record["failed"]) == ("small", [])
            assert record["cost"] is not None
        refused = [body for body in server.requests if body.get("logprobs")]
        assert len(refused) == 1
        assert LOGPROBS.knows(server.model("small"))
        assert not LOGPROBS.knows(server.model("third")), "that says nothing of another model"


class TestWhereThereAreNoLogProbabilities:
    def test_a_refusal_that_says_so_leads_to_the_largest_before_anything_is_paid(
        self, server: OpenAIServer
    ) -> None:
        server.script = refusing()
        record = record_of(default(server, 5.0).invoke("Where was it built?"))
        assert [body["model"] for body in server.requests] == ["small", "large"]
        assert record["cost"] == record["alone"]["large"]["cost"]
        assert not record["escalated"]
        assert "asked at once" in record["why"]

    @pytest.mark.parametrize("status", [400, 403, 501])
    def test_a_refusal_is_no_failure_of_the_model(self, server: OpenAIServer, status: int) -> None:
        server.script = refusing(status)
        breaker = CircuitBreaker(failures=1)
        asked = default(server, 5.0, circuit_breaker=breaker)
        record = record_of(asked.invoke("Where was it built?"))
        assert (record["model"], record["failed"]) == ("large", [])
        assert breaker.state(server.model("small")) == "closed"
        assert asked.mix_config.pace.expected("answer", 0) is None, "it did not answer"

    @pytest.mark.parametrize("status", [400, 403, 422])
    def test_a_request_that_is_refused_in_any_case_says_nothing(
        self, server: OpenAIServer, status: int
    ) -> None:
        server.script = lambda body: status if body["model"] == "small" else [KEPT]
        record = record_of(default(server).invoke("Where was it built?"))
        assert (record["model"], len(record["failed"])) == ("large", 1)
        assert not LOGPROBS.knows(server.model("small"))

    def test_a_server_that_sends_none_is_not_asked_again(self, server: OpenAIServer) -> None:
        server.script = silent()
        asked = default(server, 60.0)
        for _ in range(3):
            asked.invoke("Where was it built?")
        drafts = [body for body in server.requests if "temperature" not in body]
        assert [body.get("logprobs") for body in drafts] == [True, None, None]

    @pytest.mark.parametrize(("others", "model"), [("Turku", "small"), ("Oslo", "large")])
    def test_short_new_answers_are_bought_where_they_are_worth_it(
        self, server: OpenAIServer, others: str, model: str
    ) -> None:
        server.script = silent(others=others)
        record = record_of(message := default(server, 25.0).invoke("Where was it built?"))
        _, again, *_ = server.requests
        assert again["n"] in (2, 4), "in one request"
        assert again["max_completion_tokens"] <= 100
        assert (record["model"], record["verdicts"]) == (model, [others == "Turku"] * again["n"])
        assert record["confidence"] == float(others == "Turku")
        assert record["drawn"] == again["n"]
        assert f"{AGREEMENT} of small" in explain(message)

    def test_a_long_answer_is_not_asked_for_again(self, server: OpenAIServer) -> None:
        answer = silent(draft="word " * 200)
        accepting = "It is so.\nVerification Decision: Correct"
        server.script = lambda body: (
            [accepting] * (body.get("n") or 1) if is_check(body) else answer(body)
        )
        record = record_of(default(server, 60.0).invoke("Tell me all of it."))
        bought = [check["check"] for check in record["checks"] if check["verdicts"]]
        assert all(name.startswith("self") for name in bought)
        assert bought, "at this ratio a verdict is worth its price"
        assert bought[0] in record["why"]

    def test_where_nothing_is_worth_buying_the_second_query_goes_to_the_largest(
        self, server: OpenAIServer
    ) -> None:
        server.script = silent()
        asked = default(server, 5.0)
        first, second = (record_of(asked.invoke("Where was it built?")) for _ in range(2))
        assert (first["model"], first["confidence"], first["drawn"]) == ("small", None, 0)
        assert "No check of the answer" in first["why"]
        assert second["cost"] == second["alone"]["large"]["cost"]

    def test_a_model_without_the_field(self) -> None:
        with AnthropicServer() as server:
            server.script = silent()
            models = [server.model("small"), server.model("large")]
            asked = AutoMixRunnable.from_models(*models, prices=prices(5.0))
            record = record_of(asked.invoke("Where was it built?"))
            assert (record["model"], len(server.requests)) == ("large", 1)
            assert "logprobs" not in server.requests[0]

    def test_a_model_with_fallbacks_is_not_asked(self, server: OpenAIServer) -> None:
        server.script = refusing()
        first = server.model("small").with_fallbacks([server.model("large")])
        asked = AutoMixRunnable.from_models(first, server.model("large"), prices=prices(25.0))
        record = record_of(asked.invoke("Where was it built?"))
        assert record["model"] == "small"
        assert not any(body.get("logprobs") for body in server.requests)


class TestDoors:
    def test_chat_model(self, server: OpenAIServer) -> None:
        models = [server.model("small"), server.model("large")]
        for sure in (True, False):
            server.requests.clear()
            server.script = saying(sure=sure)
            message = ChatAutoMix(models=models, prices=prices()).invoke("Where was it built?")
            assert (str(message.text) == KEPT) == (not sure)
            assert len(server.requests) == 2 - sure
            assert message.response_metadata.get("logprobs") is None

    def test_agents(self, server: OpenAIServer) -> None:
        from langchain.agents import create_agent  # noqa: PLC0415  (slow to import)

        server.script = saying(sure=True)
        models = [server.model("small"), server.model("large")]
        middleware = AutoMixMiddleware(models, prices=prices())
        agent: Any = create_agent(server.model("small"), tools=[weather], middleware=[middleware])
        for sure in (True, False):
            server.requests.clear()
            server.script = saying(sure=sure)
            [_, last] = agent.invoke({"messages": [("human", "Where was it built?")]})["messages"]
            assert (str(last.text) == KEPT) == (not sure)
            assert len(server.requests) == 2 - sure
            assert last.response_metadata.get("logprobs") is None

    def test_tool_calls_have_no_probabilities_and_are_asked_for_again(
        self, server: OpenAIServer
    ) -> None:
        for others, model in (("Turku", "small"), ("Oslo", "large")):

            def script(body: Body, others: str = others) -> Any:
                city = others if "temperature" in body else "Turku"
                return [call("weather", city=city) for _ in range(body.get("n") or 1)]

            server.script = script
            asked = default(server, 25.0).bind_tools([weather])
            record = record_of(asked.invoke("What is the weather like?"))
            assert record["model"] == model
            assert record["checks"][-1]["check"] == AGREEMENT

    def test_structured_output(self, server: OpenAIServer) -> None:
        class Port(BaseModel):
            city: str

        for sure in (True, False):
            server.script = saying(sure=sure, draft='{"city": "Turku"}', kept='{"city": "Oslo"}')
            asked = default(server).with_structured_output(Port, include_raw=True)
            found = asked.invoke("Where was it built?")
            assert found["parsed"] == Port(city="Turku" if sure else "Oslo")
            assert found["raw"].response_metadata.get("logprobs") is None

    def test_a_mix_of_mixes(self, server: OpenAIServer) -> None:
        inner = ChatAutoMix(models=[server.model("small"), server.model("third")], prices=prices())
        server.script = saying(sure=True)
        asked = AutoMixRunnable.from_models(inner, server.model("large"), prices=prices())
        record = record_of(asked.invoke("Where was it built?"))
        assert record["cost"] is not None
        assert record["model"] in ("small+third", "large")

    def test_three_models(self, server: OpenAIServer) -> None:
        models = [server.model(name) for name in ("small", "third", "large")]
        server.script = saying(sure=False)
        record = record_of(AutoMixRunnable.from_models(*models, prices=prices()).invoke("Where?"))
        assert [body["model"] for body in server.requests] == ["small", "third", "large"] or [
            body["model"] for body in server.requests
        ] == ["small", "third"]
        assert record["escalated"]
        assert "logprobs" not in server.requests[-1] or server.requests[-1]["model"] != "large"

    @pytest.mark.parametrize("limit", [0.5, 60.0])
    def test_a_deadline_never_leaves_out_what_takes_no_time(
        self, server: OpenAIServer, limit: float
    ) -> None:
        server.script = saying(sure=True)
        asked = default(server, max_latency=limit)
        asked._pace.learn("verify", 0, 3_600.0)
        record = record_of(asked.invoke("Where was it built?"))
        assert (record["degraded"], record["confidence"]) == (None, pytest.approx(0.99))

    def test_a_spend_limit(self, server: OpenAIServer) -> None:
        server.script = saying(sure=False)
        limit = SpendLimit(0.001, soft=0.0)
        asked = default(server, spend_limit=limit)
        found = [record_of(asked.invoke(f"Where was number {i}?")) for i in range(12)]
        assert {record["model"] for record in found} == {"small", "large"}
        assert any("near" in record["why"] or "reached" in record["why"] for record in found)

    def test_a_check_that_fails(self, server: OpenAIServer) -> None:
        answer = silent()
        server.script = lambda body: 500 if "temperature" in body else answer(body)
        for how, model in (("escalate", "large"), ("keep", "small")):
            asked = default(server, 25.0, on_verification_error=how)
            record = record_of(asked.invoke("Where was it built?"))
            assert record["model"] == model
            assert record["failed"]

    def test_without_verification_or_by_force_nothing_is_asked_for(
        self, server: OpenAIServer
    ) -> None:
        server.script = saying(sure=False)
        for fields in ({"verification": False}, {"force_model": 0}):
            record = record_of(default(server, **fields).invoke("Where was it built?"))
            assert (record["model"], record["checks"]) == ("small", [])
        assert not any(body.get("logprobs") for body in server.requests)

    def test_calibrate_logs_its_checks(self, server: OpenAIServer, tmp_path: Any) -> None:
        server.script = saying(sure=True)
        answer = server.script
        accepting = "It is so.\nVerification Decision: Correct"
        server.script = lambda body: (
            [accepting] * (body.get("n") or 1) if is_check(body) else answer(body)
        )
        examples = [{"question": f"Where was {i}?", "answer": f"{DRAFT} it is."} for i in range(3)]
        log = calibrate(examples, default(server), out=tmp_path / "log.jsonl")
        names = {name for query in log for name in query.answers[0].checks}
        assert {TOKENS, AGREEMENT} <= names

    def test_calibrate_where_log_probabilities_are_refused(
        self, server: OpenAIServer, tmp_path: Any
    ) -> None:
        answer = refusing()
        accepting = "It is so.\nVerification Decision: Correct"
        server.script = lambda body: (
            [accepting] * (body.get("n") or 1) if is_check(body) else answer(body)
        )
        examples = [{"question": f"Where was {i}?", "answer": "Turku"} for i in range(3)]
        log = calibrate(examples, default(server), out=tmp_path / "log.jsonl")
        assert len(log) == 3


class TestWhoHasIt:
    def test_the_papers_check_is_as_it_was(self, server: OpenAIServer) -> None:
        accepting = "It is so.\nVerification Decision: Correct"
        server.script = lambda body: [accepting] * body["n"] if is_check(body) else ["Turku"]
        asked = default(server, verifier=SelfVerifier(samples=8))
        record = record_of(asked.invoke("Where was it built?"))
        assert [body.get("n") for body in server.requests] == [None, 8]
        assert not any("logprobs" in body for body in server.requests)
        assert (record["verdicts"], record["confidence"]) == ([True] * 8, 1.0)

    def test_only_an_uncalibrated_policy_router_chooses(self, server: OpenAIServer) -> None:
        assert isinstance(default(server).verifier, DefaultVerifier)
        for router in (ThresholdRouter(), POMDPRouter.fit(world(300))):
            assert type(default(server, router=router).verifier) is SelfVerifier

    def test_a_router_set_at_run_time(self, server: OpenAIServer) -> None:
        server.script = saying(sure=True)
        field = ConfigurableField(id="router")
        asked = default(server).configurable_fields(router=field)
        threshold: Any = {"configurable": {"router": ThresholdRouter(threshold=0.5)}}
        assert len(record_of(asked.invoke("Where?", threshold))["verdicts"]) == 8
        assert record_of(asked.invoke("Where?"))["checks"][0]["check"] == TOKENS

    def test_saved_and_loaded(self, server: OpenAIServer) -> None:
        asked = default(server)
        again = load(
            dumpd(asked),
            allowed_objects=[AutoMixRunnable, DefaultVerifier, POMDPRouter, ChatOpenAI],
            valid_namespaces=["langchain_automix"],
            secrets_map={"OPENAI_API_KEY": "test"},
        )
        server.script = saying(sure=True)
        assert record_of(again.invoke("Where?")) == record_of(asked.invoke("Where?"))

    def test_sent_to_another_process(self, server: OpenAIServer) -> None:
        verifier = pickle.loads(pickle.dumps(DefaultVerifier()))
        assert verifier == DefaultVerifier()

    def test_called_by_itself_it_makes_its_checks(self, server: OpenAIServer) -> None:
        accepting = "It is so.\nVerification Decision: Correct"
        server.script = lambda body: (
            [accepting if is_check(body) else "Turku"] * (body.get("n") or 1)
        )
        checking = DefaultVerifier().for_model(server.model("small"))
        found = checking.invoke({"question": "Where?", "answer": "Turku", "messages": []})
        assert isinstance(found, Verification)
        assert (found.accepts, {*found.checks}) == (8, {TOKENS, AGREEMENT})

    def test_without_prices_the_order_of_the_models_counts(self, server: OpenAIServer) -> None:
        server.script = saying(sure=False)
        record = record_of(default(server, prices=None).invoke("Where was it built?"))
        assert record["model"] == "large"
        assert "no price is known" in record["why"]
