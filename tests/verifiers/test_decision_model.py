"""Decision models as a check: OpenAI's over HTTP, and those of langchain-core where it has any."""

from __future__ import annotations

import http.server
import importlib
import importlib.util
import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from pydantic import SecretStr

from langchain_automix import DecisionVerifier
from tests.support.builders.checks import asked
from tests.support.builders.mixes import mix, record_of
from tests.support.builders.scripted_replies import Body, Error
from tests.support.servers.loopback import send
from tests.support.servers.openai_server import OpenAIServer

decisions: Any = pytest.importorskip("langchain_openai.decisions")
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")

HAS_CORE = importlib.util.find_spec("langchain_core.decisions") is not None


class DecisionServer(OpenAIServer):
    """Serves OpenAI's Decisions API beside the chat."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: dict[str, Any] = {"type": "predicate", "probability": 0.75}
        self.usage: Any = {"input_tokens": 40, "output_tokens": 1}
        self.asked: list[Body] = []
        self.status = 200

    def _serve(self, handler: http.server.BaseHTTPRequestHandler, path: str, body: Body) -> None:
        if not path.endswith("/decisions"):
            return super()._serve(handler, path, body)
        self.asked.append(body)
        [question] = body["questions"]
        answer = {"name": question["name"], **self.answer}
        shown = {"model": body["model"], "answers": [answer], "usage": self.usage}
        return send(handler, Error(self.status, shown if self.status == 200 else self._failure()))

    def decider(self) -> Any:
        return decisions.OpenAIDecisions(
            model="decider", base_url=self.base_url, api_key=SecretStr("test"), max_retries=0
        )


@pytest.fixture
def deciding() -> Iterator[DecisionServer]:
    with DecisionServer() as running:
        yield running


class TestOpenAIs:
    @pytest.mark.parametrize("how", ["sync", "async"])
    async def test_the_probability_is_the_score(self, deciding: DecisionServer, how: str) -> None:
        verifier = DecisionVerifier(model=deciding.decider())
        found = verifier.invoke(asked()) if how == "sync" else await verifier.ainvoke(asked())
        assert found.score == 0.75
        [call] = found.calls
        assert (call.model, call.provider) == ("decider", "openai")
        assert call.usage == {"input_tokens": 40, "output_tokens": 1, "total_tokens": 41}
        [body] = deciding.asked
        [question] = body["questions"]
        assert question["type"] == "predicate"
        assert "right answer" in question["instructions"]
        assert self.state_of(body) == {
            "question": "Where was the Halcyon built?",
            "context": "The ferry Halcyon was built in Turku in 1931.",
            "answer": "Turku",
        }

    def state_of(self, body: Body) -> Any:
        [message] = body["input"]
        [part] = message["content"]
        return json.loads(part["text"])

    def test_a_conversation(self, deciding: DecisionServer) -> None:
        verifier = DecisionVerifier(model=deciding.decider(), instructions="Is it polite?")
        said = [HumanMessage("Hello."), HumanMessage("Where?")]
        verifier.invoke({"answer": "Turku", "messages": said})
        [body] = deciding.asked
        assert body["questions"][0]["instructions"] == "Is it polite?"
        assert self.state_of(body)["question"] == "Where?"
        assert "Hello." in self.state_of(body)["conversation"]

    def test_what_it_declines_is_unknown(self, deciding: DecisionServer) -> None:
        deciding.answer = {"type": "refusal"}
        found = DecisionVerifier(model=deciding.decider()).invoke(asked())
        assert found.score is None
        assert found.problem == "the decision model gave no probability (refusal)"
        assert len(found.calls) == 1, "it was paid for"

    def test_tokens_that_are_not_told_are_unknown(self, deciding: DecisionServer) -> None:
        deciding.usage = {"input_tokens": 40}
        [call] = DecisionVerifier(model=deciding.decider()).invoke(asked()).calls
        assert call.usage is None

    def test_an_error_is_raised(self, deciding: DecisionServer) -> None:
        deciding.status = 500
        verifier = DecisionVerifier(model=deciding.decider())
        with pytest.raises(Exception, match="scripted"):
            verifier.invoke(asked())

    def test_retries_and_fallbacks_are_kept(self, deciding: DecisionServer) -> None:
        wrapped = deciding.decider().with_retry().with_fallbacks([deciding.decider()])
        assert DecisionVerifier(model=wrapped).invoke(asked()).score == 0.75

    def test_in_a_mix(self, deciding: DecisionServer) -> None:
        deciding.answer["probability"] = 0.25
        prices = {name: {"input": 1.0, "output": 1.0} for name in ("small", "large", "decider")}
        verifier = DecisionVerifier(model=deciding.decider())
        kept = mix(deciding, verifier=verifier, prices=prices).invoke("Where?")
        assert kept.text == "a large answer"
        record = record_of(kept)
        chats = sum(billed["total_tokens"] for billed in deciding.billed)
        assert record["confidence"] == 0.25
        assert record["tokens"]["total_tokens"] == chats + 41

    def test_an_empty_answer_is_not_asked_about(self, deciding: DecisionServer) -> None:
        found = DecisionVerifier(model=deciding.decider()).invoke(asked(answer=" "))
        assert found.problem == "the answer is empty"
        assert not deciding.asked


class TestOthers:
    @pytest.mark.parametrize("model", [RunnableLambda(lambda given: given), None])
    def test_what_is_no_decision_model_is_refused(self, server: OpenAIServer, model: Any) -> None:
        with pytest.raises(ValueError, match=r"is no decision model.*OpenAIDecisions") as raised:
            DecisionVerifier(model=model or server.model("small"))
        assert "langchain-core 1.8 or later" in str(raised.value)
        assert ("is installed" in str(raised.value)) != HAS_CORE

    def test_the_fingerprint(self, deciding: DecisionServer) -> None:
        one = DecisionVerifier(model=deciding.decider())
        other = DecisionVerifier(model=deciding.decider(), instructions="Is it polite?")
        assert one.fingerprint == DecisionVerifier(model=deciding.decider()).fingerprint
        assert one.fingerprint != other.fingerprint


@pytest.mark.skipif(not HAS_CORE, reason="langchain-core has decision models from 1.8")
class TestCores:
    @pytest.mark.parametrize("usage", [None, {"input_tokens": 30, "output_tokens": 2}])
    async def test_the_probability_is_the_score(self, usage: Any) -> None:
        core = importlib.import_module("langchain_core.decisions")
        seen: list[Any] = []

        class Own(core.BaseDecisionModel):  # type: ignore[misc,name-defined]
            @property
            def _provider(self) -> str:
                return "own"

            def _classify(self, state: Any, questions: Any) -> Any:
                seen.append((state, questions))
                answers = {name: {"type": "noul", "noul": 0.125} for name in questions}
                body = {"model": "own-1", "answers": answers, "usage": usage}
                return core.ClassifierResponse.model_validate(body)

        verifier = DecisionVerifier(model=Own(model="own"))
        for found in (verifier.invoke(asked()), await verifier.ainvoke(asked())):
            assert found.score == 0.125
            [call] = found.calls
            assert (call.model, call.provider) == ("own-1", "own")
            assert call.usage == (usage and {**usage, "total_tokens": 32})
        state, questions = seen[0]
        assert state["answer"] == "Turku"
        assert [type(each).__name__ for each in questions.values()] == ["Noul"]

    async def test_one_of_another_kind_of_answer_is_unknown(self) -> None:
        core = importlib.import_module("langchain_core.decisions")

        class Own(core.BaseDecisionModel):  # type: ignore[misc,name-defined]
            @property
            def _provider(self) -> str:
                return "own"

            def _classify(self, state: Any, questions: Any) -> Any:
                return core.ClassifierResponse(model="own-1", answers={})

        found = DecisionVerifier(model=Own(model="own")).invoke(asked())
        assert found.problem == "the decision model gave no probability (nothing)"
