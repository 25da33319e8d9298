"""The mix over real HTTP: the way of a query, its record, its trace, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_core.tracers.context import collect_runs

from langchain_automix import (
    AutoMixError,
    AutoMixRunnable,
    Decision,
    POMDPRouter,
    RoutingState,
    SelfVerifier,
    ThresholdRouter,
    UncalibratedWarning,
    Verification,
)
from tests.support.servers.openai_server import OpenAIServer, answering, is_check

RECORD = (
    *("model", "model_index", "action", "confidence"),
    *("verdicts", "escalated", "cost", "why"),
)
RAG_PROMPT = ChatPromptTemplate.from_template("Read: {context}\nAnswer: {question}")


def mix(server: OpenAIServer, **fields: Any) -> AutoMixRunnable:
    fields = {"router": ThresholdRouter(threshold=0.5), **fields}
    return AutoMixRunnable.from_models(server.model("small"), server.model("large"), **fields)


def record_of(message: AIMessage) -> dict[str, Any]:
    record: dict[str, Any] = message.response_metadata["automix"]
    return record


async def by(how: str, runnable: Runnable[Any, AIMessage], given: Any) -> AIMessage:
    if how == "invoke":
        return runnable.invoke(given)
    if how == "ainvoke":
        return await runnable.ainvoke(given)
    if how == "batch":
        return runnable.batch([given, given])[1]
    return (await runnable.abatch([given, given]))[1]


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "batch", "abatch"])
class TestWay:
    async def test_an_accepted_answer_is_kept(self, server: OpenAIServer, how: str) -> None:
        server.script = answering("small says", "large says", verdicts="a")
        message = await by(how, mix(server), "Where?")
        assert message.content == "small says"
        record = record_of(message)
        assert {key: record[key] for key in RECORD} == {
            "model": "small",
            "model_index": 0,
            "action": "answer",
            "confidence": 1.0,
            "verdicts": [True] * 8,
            "escalated": False,
            "cost": None,
            "why": "8 of 8 verdicts accept the answer: the confidence 1.00 reaches the threshold "
            "0.50.",
        }
        assert {body["model"] for body in server.requests} == {"small"}

    async def test_a_rejected_answer_is_escalated(self, server: OpenAIServer, how: str) -> None:
        server.script = answering("small says", "large says", verdicts="rrra")
        message = await by(how, mix(server), "Where?")
        assert message.content == "large says"
        record = record_of(message)
        assert (record["model"], record["model_index"]) == ("large", 1)
        assert (record["action"], record["escalated"]) == ("escalate", True)
        assert (record["confidence"], len(record["verdicts"])) == (0.25, 8)
        json.dumps(record)
        assert message.response_metadata["model_name"] == "large"

    async def test_no_valid_verdict_is_unknown(self, server: OpenAIServer, how: str) -> None:
        server.script = answering("small says", "large says", verdicts="i")
        asked = mix(server, router=POMDPRouter(), verifier=SelfVerifier())
        message = await by(how, asked, "Where?")
        record = record_of(message)
        assert record["confidence"] is None
        assert record["escalated"]
        assert "unknown" in record["why"]


class TestChains:
    def test_where_a_model_was(self, server: OpenAIServer) -> None:
        prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{q}")])
        server.script = answering("Turku", "Helsinki")
        assert (prompt | mix(server) | StrOutputParser()).invoke({"q": "Where?"}) == "Turku"

    def test_as_the_answer_stage_of_rag(self, server: OpenAIServer) -> None:
        documents = [Document("The Halcyon was built in Turku.")]
        rag = {
            "context": RunnableLambda(lambda _: documents),
            "question": RunnablePassthrough(),
        } | mix(server, prompt=RAG_PROMPT)
        rag.invoke("Where was she built?")
        asked, check = server.requests
        assert "Answer: Where was she built?" in asked["messages"][0]["content"]
        read = check["messages"][-1]["content"]
        assert "Context: The Halcyon was built in Turku.\n" in read
        assert "Question: Where was she built?\n" in read
        assert "Read:" not in read, "the verifier gets question and context as such"
        assert asked["messages"][0]["content"].startswith("Read: The Halcyon was built in Turku.\n")

    def test_other_keys(self, server: OpenAIServer) -> None:
        prompt = ChatPromptTemplate.from_template("{papers} {ask}")
        asked = mix(server, prompt=prompt, question_key="ask", context_key="papers")
        asked.invoke({"ask": "Where?", "papers": "Turku."})
        read = server.checks[0]["messages"][-1]["content"]
        assert "Context: Turku.\n" in read
        assert "Question: Where?\n" in read

    def test_keyword_arguments_reach_the_answering_models(self, server: OpenAIServer) -> None:
        mix(server).bind(stop=["\n"]).invoke("Where?")
        assert [body.get("stop") for body in server.requests] == [["\n"], None]

    def test_the_verifier_reads_the_conversation(self, server: OpenAIServer) -> None:
        mix(server).invoke(
            [HumanMessage("Built in Turku."), AIMessage("Yes."), ("human", "Where?")]
        )
        read = server.checks[0]["messages"][-1]["content"]
        assert "Built in Turku." in read
        assert "Question: Where?" in read


class TestParts:
    def test_three_models_go_one_by_one(self, server: OpenAIServer) -> None:
        server.script = answering("one", "two", "three", verdicts="r")
        models = [server.model(name) for name in ("small", "large", "third")]
        message = AutoMixRunnable(models=models, router=ThresholdRouter()).invoke("Where?")
        assert message.content == "three"
        order = [(body["model"], is_check(body)) for body in server.requests]
        assert order == [
            ("small", False),
            ("small", True),
            ("large", False),
            ("large", True),
            ("third", False),
        ]

    def test_the_verifier_may_have_a_model_of_its_own(self, server: OpenAIServer) -> None:
        mix(server, verifier=SelfVerifier(model=server.model("third"))).invoke("Where?")
        assert [body["model"] for body in server.checks] == ["third"]

    def test_a_bound_verifier_still_gets_the_answering_model(self, server: OpenAIServer) -> None:
        verifier = SelfVerifier(samples=2).with_retry().with_config(tags=["mine"])
        mix(server, verifier=verifier).invoke("Where?")
        assert [(body["model"], body["n"]) for body in server.checks] == [("small", 2)]

    def test_a_verifier_with_fallbacks_still_checks(self, server: OpenAIServer) -> None:
        own: Any = RunnableLambda(lambda _: Verification(problem="the check failed"))
        mix(server, verifier=SelfVerifier().with_fallbacks([own])).invoke("Where?")
        assert [body["model"] for body in server.checks] == ["small"]
        server.script = lambda body: 500 if is_check(body) else ["large says"]
        message = mix(server, verifier=SelfVerifier().with_fallbacks([own])).invoke("Where?")
        assert record_of(message)["why"].startswith("The check failed: unknown")

    def test_names_through_fallbacks_and_bindings(self, server: OpenAIServer) -> None:
        first = server.model("small").with_fallbacks([server.model("third")])
        found = AutoMixRunnable.from_models(first, server.model("large").bind(model="huge"))
        assert found.model_names == ("small", "huge")

    def test_an_answer_from_the_cache_costs_nothing(self, server: OpenAIServer) -> None:
        pytest.importorskip("genai_prices")
        cached = [server.model(n, cache=InMemoryCache()) for n in ("gpt-5.4-mini", "gpt-5.5")]
        server.script = lambda body: answering()(body) if is_check(body) else ["words here"]
        asked = AutoMixRunnable.from_models(*cached, router=ThresholdRouter())
        first, second = (record_of(asked.invoke("Where?"))["cost"] for _ in range(2))
        assert float(second.split()[0]) < float(first.split()[0])

    def test_a_verifier_and_a_router_of_the_users_own(self, server: OpenAIServer) -> None:
        def short_enough(asked: Any) -> Verification:
            return Verification(score=float(len(asked["answer"].text) < 5))

        def decide(state: RoutingState) -> Decision:
            found = state.current.verification
            assert found is not None
            if found.confidence == 0:
                return Decision(action="escalate", model_index=1, samples=0)
            return Decision(action="answer", model_index=0)

        fields = {"verifier": RunnableLambda(short_enough), "router": RunnableLambda(decide)}
        server.script = answering("a long answer", "large")
        assert mix(server, **fields).invoke("Where?").content == "large"

    def test_a_router_may_ask_for_more_verdicts_and_keep_an_earlier_answer(
        self, server: OpenAIServer
    ) -> None:
        seen: list[RoutingState] = []

        def decide(state: RoutingState) -> Decision:
            seen.append(state)
            if len(seen) == 1:
                return Decision(action="verify", model_index=0, samples=3)
            if len(seen) == 2:
                return Decision(action="escalate", model_index=1, samples=1)
            return Decision(action="answer", model_index=0, why="the earlier one is better")

        router = RunnableLambda(decide)
        verifier = SelfVerifier(samples=2)
        message = mix(server, router=router, verifier=verifier).invoke("Where?")
        assert message.content == "a small answer"
        checks = [
            len(visit.verification.verdicts) for visit in seen[-1].visits if visit.verification
        ]
        assert checks == [5, 1]
        assert record_of(message)["escalated"]

    def test_an_empty_draft_is_not_checked(self, server: OpenAIServer) -> None:
        server.script = answering("", "large says")
        message = mix(server).invoke("Where?")
        assert message.content == "large says"
        assert not server.checks
        assert record_of(message)["why"] == "The answer is empty: large is asked."

    def test_the_uncalibrated_prior_says_so_once(self, server: OpenAIServer) -> None:
        asked = mix(server, router=POMDPRouter(), verifier=SelfVerifier())
        with pytest.warns(UncalibratedWarning, match="not calibrated") as caught:
            for _ in range(3):
                assert "not calibrated" in record_of(asked.invoke("Where?"))["why"]
        assert len(caught) == 1

    def test_every_call_is_in_the_cost(self, server: OpenAIServer) -> None:
        prices = pytest.importorskip("genai_prices")
        server.script = lambda body: (
            answering(verdicts="r")(body) if is_check(body) else ["words here"]
        )
        models = [server.model(name) for name in ("gpt-5.4-mini", "gpt-5.5")]
        message = AutoMixRunnable.from_models(*models, router=ThresholdRouter()).invoke("Where?")
        assert [billed["model"] for billed in server.billed] == ["gpt-5.4-mini"] * 2 + ["gpt-5.5"]
        expected = sum(
            prices.calc_price(
                prices.Usage(
                    input_tokens=billed["prompt_tokens"], output_tokens=billed["completion_tokens"]
                ),
                model_ref=billed["model"],
                provider_id="openai",
            ).total_price
            for billed in server.billed
        )
        assert record_of(message)["cost"] == f"{expected:f} USD"


class TestTrace:
    def test_one_tree(self, server: OpenAIServer) -> None:
        server.script = answering("s", "l", verdicts="r")
        with collect_runs() as collected:
            mix(server).invoke("Where?", {"run_name": "root", "tags": ["mine"]})
        [root] = collected.traced_runs
        assert (root.name, root.run_type) == ("root", "chain")
        children = [(run.name, run.run_type) for run in root.child_runs]
        assert children == [
            ("draft", "llm"),
            ("SelfVerifier", "chain"),
            ("ThresholdRouter", "chain"),
            ("escalate", "llm"),
        ]
        [verify] = root.child_runs[1].child_runs
        assert (verify.name, verify.run_type) == ("verify", "llm")
        for run in (*root.child_runs, verify):
            assert "mine" in (run.tags or [])
        assert "automix:verify" in (verify.tags or [])
        assert "automix:verify" not in (root.child_runs[3].tags or [])

    async def test_the_same_tree_asynchronously(self, server: OpenAIServer) -> None:
        with collect_runs() as collected:
            await mix(server).ainvoke("Where?")
        [root] = collected.traced_runs
        assert [run.name for run in root.child_runs] == ["draft", "SelfVerifier", "ThresholdRouter"]


class TestRefused:
    @pytest.mark.parametrize("count", [0, 1])
    def test_fewer_than_two_models(self, server: OpenAIServer, count: int) -> None:
        with pytest.raises(AutoMixError, match=f"two or more models.*given: {count}"):
            AutoMixRunnable.from_models(*[server.model("small")] * count)

    def test_models_in_the_wrong_order_of_price(self, server: OpenAIServer) -> None:
        pytest.importorskip("genai_prices")
        with pytest.raises(AutoMixError, match=r"gpt-5.5 costs .* swap them"):
            AutoMixRunnable.from_models(server.model("gpt-5.5"), server.model("gpt-5.4-mini"))

    def test_unknown_prices_are_in_any_order(self, server: OpenAIServer) -> None:
        AutoMixRunnable.from_models(server.model("large"), server.model("small"))

    @pytest.mark.parametrize(
        "question", ["", "  \n", [], [("system", "Be brief."), ("human", " ")]]
    )
    def test_an_empty_question(self, server: OpenAIServer, question: Any) -> None:
        with pytest.raises(AutoMixError, match="question is empty"):
            mix(server).invoke(question)
        assert not server.requests

    async def test_an_empty_question_in_a_dict(self, server: OpenAIServer) -> None:
        with pytest.raises(AutoMixError, match=r"question is empty \(key 'question'"):
            await mix(server, prompt=RAG_PROMPT).ainvoke({"question": " ", "context": "c"})
        assert not server.requests

    def test_a_dict_without_a_prompt(self, server: OpenAIServer) -> None:
        with pytest.raises(AutoMixError, match="give AutoMixRunnable the prompt"):
            mix(server).invoke({"question": "Where?"})

    def test_a_dict_without_the_question(self, server: OpenAIServer) -> None:
        with pytest.raises(AutoMixError, match=r"key 'question'.*has the keys \['q'\]"):
            mix(server, prompt=RAG_PROMPT).invoke({"q": "Where?"})

    @pytest.mark.parametrize(
        ("decision", "message"),
        [
            ("keep it", "returned str, not a Decision"),
            (Decision(action="escalate", model_index=7), "model 7, which is not in the mix"),
            (Decision(action="escalate", model_index=0), "model 0, which has been asked already"),
            (Decision(action="answer", model_index=1), "keeps model 1's answer, but it gave none"),
            (Decision(action="verify", model_index=1), "checks model 1, which gave no answer"),
            (Decision(action="verify", model_index=0), "more than 100 steps"),
        ],
    )
    def test_a_router_that_makes_no_sense(
        self, server: OpenAIServer, decision: Any, message: str
    ) -> None:
        verifier: Any = RunnableLambda(lambda _: Verification(score=0.5))
        server.script = answering("small says", "large says")
        found = mix(server, router=RunnableLambda(lambda _: decision), verifier=verifier).invoke(
            "Q"
        )
        assert found.content == "large says", "no answer is lost"
        assert message in record_of(found)["degraded"]

    def test_a_model_that_is_no_chat_model(self, server: OpenAIServer) -> None:
        models: list[Any] = [server.model("small") | StrOutputParser(), server.model("large")]
        with pytest.raises(AutoMixError, match="Model 0 returned .*, not an AIMessage"):
            AutoMixRunnable(models=models, verifier=SelfVerifier()).invoke("Where?")

    @pytest.mark.parametrize("how", ["invoke", "ainvoke"])
    async def test_a_failing_check_is_the_models_own_error_where_it_is_wanted(
        self, server: OpenAIServer, how: str
    ) -> None:
        server.script = lambda body: 500 if is_check(body) else ["fine"]
        with pytest.raises(openai.InternalServerError, match="scripted"):
            await by(how, mix(server, on_verification_error="raise"), "Where?")
