"""`Learning` in every form of a mix: a row a query, whatever it answers with."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel

from langchain_automix import (
    AutoMixMiddleware,
    AutoMixRunnable,
    ChatAutoMix,
    SelfVerifier,
    Verification,
)
from tests.support.builders.learning_mixes import (
    PRICES,
    Make,
    learns,
    rows,
    run,
)
from tests.support.builders.mixes import weather
from tests.support.builders.scripted_replies import call
from tests.support.servers.openai_server import OpenAIServer, answering, is_check


class TestForms:
    def test_a_batch_has_a_row_a_query(self, server: OpenAIServer, make: Make) -> None:
        automix = learns(server, make())
        run(automix.abatch([f"Where is {i}?" for i in range(20)]))
        found = rows(automix)
        assert len({row.query.id for row in found}) == 20
        assert len({row.query.run_id for row in found}) == 20

    def test_structured_output(self, server: OpenAIServer, make: Make) -> None:
        class Place(BaseModel):
            """A place."""

            name: str

        def script(body: Any) -> Any:
            if is_check(body):
                return answering("")(body)
            return ['{"name":  "Turku"}' if body["model"] == "small" else '{"name": "Turku"}']

        server.script = script
        structured = learns(server, make()).with_structured_output(Place, method="json_schema")
        assert structured.invoke("Where?") == Place(name="Turku")
        assert {g.model: g.quality for g in rows(structured)[0].grades} == {0: 1.0, 1: 1.0}

    def test_an_agent(self, server: OpenAIServer, make: Make) -> None:
        def script(body: Any) -> Any:
            if is_check(body):
                return answering("")(body)
            if body["messages"][-1]["role"] == "tool":
                return ["Sunny."]
            return [call("weather", city="Turku" if body["model"] == "large" else "Oulu")]

        server.script = script
        models = [server.model("small"), server.model("large")]
        middleware = AutoMixMiddleware(
            models, learning=make(), verifier=SelfVerifier(samples=1), prices=PRICES, router=0.5
        )
        agent = create_agent(models[0], tools=[weather], middleware=[middleware])
        state = agent.invoke({"messages": [("human", "What is it like in Turku?")]})  # type: ignore[call-overload]
        assert state["messages"][-1].content == "Sunny."
        calls, last = rows(middleware)
        assert {g.model: g.quality for g in calls.grades} == {0: 0.0, 1: 1.0}
        assert {g.model: g.quality for g in last.grades} == {0: 1.0, 1: 1.0}

    def test_a_chat_model(self, server: OpenAIServer, make: Make) -> None:
        models = [server.model("small"), server.model("large")]
        chat = ChatAutoMix(
            models=models,
            learning=make(),
            verifier=SelfVerifier(samples=1),
            prices=PRICES,
            router=0.5,
        )
        assert chat.invoke("Where?").content == "a large answer"
        assert rows(chat)[0].is_shadowed

    def test_models_that_are_asynchronous_only(self, make: Make) -> None:
        class Async(BaseChatModel):
            text: str

            @property
            def _llm_type(self) -> str:
                return "async"

            def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
                raise NotImplementedError

            async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
                await asyncio.sleep(0)
                usage = UsageMetadata(input_tokens=10, output_tokens=1, total_tokens=11)
                message = AIMessage(self.text, usage_metadata=usage)
                return ChatResult(generations=[ChatGeneration(message=message)])

        check: Runnable[Any, Any] = RunnableLambda(lambda _: Verification(score=0.5))
        automix = AutoMixRunnable.from_models(
            Async(text="a"),
            Async(text="b"),
            learning=make(),
            verifier=check,
            router=0.5,
            prices=lambda _: 0.001,
        )
        for _ in range(2):
            run(automix.ainvoke("Where?"))
            automix.learning.flush()  # type: ignore[union-attr]
        for row in rows(automix):
            assert row.query.answers[0].verification == {"score": 0.5, "cost": 0.0}
            assert {g.model: g.quality for g in row.grades} == {0: 0.0, 1: 1.0}

    def test_the_default_check_is_known_by_its_names(
        self, server: OpenAIServer, make: Make
    ) -> None:
        automix = (
            learns(server, make(), verifier=None)
            if False
            else AutoMixRunnable.from_models(
                server.model("small"), server.model("large"), learning=make(), prices=PRICES
            )
        )
        automix.invoke("Where?")
        [row] = rows(automix)
        small = row.query.answers[0]
        assert small.verification is None
        assert small.checks["tokens"]["score"] == pytest.approx(0.9, abs=0.2)
