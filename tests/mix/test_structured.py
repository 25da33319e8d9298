"""Structured output of the mix over real HTTP, as LangChain's users write it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.runnables import ConfigurableField, Runnable
from pydantic import BaseModel, Field, ValidationError
from typing_extensions import TypedDict

from langchain_automix import AutoMixError, AutoMixRunnable, Decision, ThresholdRouter
from tests.support.builders.mixes import DRAFT, PROMPT, RAG_PROMPT, Witness, mix, record_of
from tests.support.builders.scripted_replies import Body, call
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.openai_server import OpenAIServer, answering, is_check


class Ship(BaseModel):
    """A ship."""

    name: str
    year: int = Field(ge=1000)


class ShipDict(TypedDict):
    """A ship."""

    name: str
    year: int


SCHEMA = {
    "title": "Ship",
    "description": "A ship.",
    "type": "object",
    "properties": {"name": {"type": "string"}, "year": {"type": "integer"}},
    "required": ["name", "year"],
}
GOOD = {"name": "Halcyon", "year": 1931}
BAD = {"name": DRAFT, "year": 3}
LARGE = {"name": "Halcyon the Large", "year": 1932}


def says(small: Any, large: Any, *, verdicts: str = "a", method: str = "json_schema") -> Any:
    judge = answering(verdicts=verdicts)

    def script(body: Body) -> Any:
        if is_check(body):
            return judge(body)
        said = small if body["model"] == "small" else large
        if isinstance(said, str):
            return [said]
        if method != "function_calling":
            return [json.dumps(said)]
        return [call(body["tools"][0]["function"]["name"], **said)]

    return script


def asked_of(server: OpenAIServer) -> list[tuple[str, bool]]:
    return [(body["model"], is_check(body)) for body in server.requests]


SMALL_CHECK = [("small", False), ("small", True)]
SMALL_LARGE = [("small", False), ("large", False)]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
class TestMethods:
    def test_an_answer_that_fits_is_checked_and_kept(
        self, server: OpenAIServer, method: str
    ) -> None:
        server.script = says(GOOD, LARGE, method=method)
        asked = mix(server).with_structured_output(Ship, method=method)
        assert asked.invoke("Which? As JSON.") == Ship(name="Halcyon", year=1931)
        assert asked_of(server) == SMALL_CHECK
        sent, check = server.requests
        assert ("tools" in sent) == (method == "function_calling")
        assert ("response_format" in sent) == (method != "function_calling")
        assert not {"tools", "response_format"} & check.keys()
        assert "Halcyon" in check["messages"][-1]["content"]

    async def test_an_answer_that_does_not_fit_is_never_checked(
        self, server: OpenAIServer, method: str
    ) -> None:
        server.script = says(BAD, LARGE, method=method)
        asked = mix(server).with_structured_output(Ship, method=method, include_raw=True)
        output = await asked.ainvoke("Which? As JSON.")
        assert output["parsed"] == Ship(name="Halcyon the Large", year=1932)
        assert asked_of(server) == SMALL_LARGE
        record = record_of(output["raw"])
        assert (record["escalated"], record["verdicts"]) == (True, [])
        assert "does not fit Ship" in record["why"]
        assert "year" in record["why"]
        assert DRAFT not in record["why"], "the record quotes no rejected draft"

    def test_the_last_model_fails_as_a_plain_model_does(
        self, server: OpenAIServer, method: str
    ) -> None:
        server.script = says(BAD, BAD, method=method)
        plain = server.model("large").with_structured_output(Ship, method=method)  # type: ignore[arg-type]
        with pytest.raises(Exception) as by_itself:  # noqa: PT011  (it is compared below)
            plain.invoke("Which? As JSON.")
        with pytest.raises(type(by_itself.value)):
            mix(server).with_structured_output(Ship, method=method).invoke("Which? As JSON.")


@pytest.mark.parametrize("schema", [Ship, ShipDict, SCHEMA], ids=["pydantic", "typed", "json"])
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_each_kind_of_schema(server: OpenAIServer, schema: Any, method: str) -> None:
    server.script = says(GOOD, LARGE, method=method)
    output = mix(server).with_structured_output(schema, method=method).invoke("Which?")
    assert output == (Ship(**GOOD) if schema is Ship else GOOD)


@pytest.mark.parametrize("schema", [ShipDict, SCHEMA], ids=["typed", "json"])
def test_a_dict_that_does_not_fit_escalates_too(server: OpenAIServer, schema: Any) -> None:
    server.script = says({"name": "Halcyon"}, LARGE)
    output = mix(server).with_structured_output(schema).invoke("Which?")
    assert output == LARGE
    assert asked_of(server) == SMALL_LARGE


class TestRaw:
    def test_include_raw(self, server: OpenAIServer) -> None:
        server.script = says(GOOD, LARGE, verdicts="r")
        asked = mix(server).with_structured_output(Ship, include_raw=True)
        output = asked.invoke("Which?")
        assert output.keys() == {"raw", "parsed", "parsing_error"}
        assert output["parsed"] == Ship(**LARGE)
        assert output["parsing_error"] is None
        assert record_of(output["raw"])["confidence"] == 0.0

    def test_a_failure_is_told_not_raised(self, server: OpenAIServer) -> None:
        server.script = says(BAD, "no JSON at all", method="json_mode")
        asked = mix(server).with_structured_output(Ship, include_raw=True, method="json_mode")
        output = asked.invoke("Which? As JSON.")
        assert output["parsed"] is None
        assert isinstance(output["parsing_error"], OutputParserException)


class TestWay:
    @pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
    async def test_what_was_rejected_does_not_come_back_where_the_last_does_not_fit(
        self, server: OpenAIServer, method: Any
    ) -> None:
        server.script = says(GOOD, BAD, verdicts="r", method=method)
        asked = mix(server).with_structured_output(Ship, method=method)
        alone = server.model("large").with_structured_output(Ship, method=method)
        with pytest.raises((ValidationError, OutputParserException)) as expected:
            alone.invoke("Which? As JSON.")
        for run in (asked.invoke, lambda it: asyncio.run(asked.ainvoke(it))):
            with pytest.raises(expected.type):
                await asyncio.to_thread(run, "Which? As JSON.")

    def test_unless_it_is_asked_for(self, server: OpenAIServer) -> None:
        server.script = says(GOOD, BAD, verdicts="r", method="function_calling")
        asked = mix(server, on_escalation_error="answer")
        output = asked.with_structured_output(Ship, method="function_calling", include_raw=True)
        found = output.invoke("Which?")
        assert found["parsed"] == Ship(**GOOD)
        assert "large cannot be used" in record_of(found["raw"])["degraded"]

    def test_the_same_model_again(self, server: OpenAIServer) -> None:
        tries = iter([BAD, GOOD])
        judge = answering()
        server.script = lambda body: judge(body) if is_check(body) else [json.dumps(next(tries))]
        asked = mix(server, retries_if_unusable=1).with_structured_output(Ship, method="json_mode")
        assert asked.invoke("Which? As JSON.") == Ship(**GOOD)
        assert asked_of(server) == [("small", False), *SMALL_CHECK]

    def test_prompt_and_rag(self, server: OpenAIServer) -> None:
        server.script = says(GOOD, LARGE)
        asked = mix(server, prompt=RAG_PROMPT).with_structured_output(Ship)
        assert asked.invoke({"question": "Which?", "context": "The Halcyon."}).year == 1931
        chain = PROMPT | mix(server).with_structured_output(Ship)
        assert chain.batch([{"question": "Which?"}] * 2)[1].year == 1931

    @pytest.mark.parametrize("how", ["stream", "astream", "events"])
    async def test_a_stream_shows_no_rejected_draft(self, server: OpenAIServer, how: str) -> None:
        server.script = says({**GOOD, "name": DRAFT}, LARGE, verdicts="r")
        models = [server.model(name, streaming=True) for name in ("small", "large")]
        asked = AutoMixRunnable.from_models(*models, router=ThresholdRouter())
        structured, witness = asked.with_structured_output(Ship), Witness()
        parts: list[Any]
        if how == "stream":
            parts = list(structured.stream("Which?", {"callbacks": [witness]}))
        elif how == "astream":
            parts = [part async for part in structured.astream("Which?", {"callbacks": [witness]})]
        else:
            events = structured.astream_events("Which?", {"callbacks": [witness]}, version="v2")
            parts = [event async for event in events]
        assert DRAFT not in repr(parts)
        assert "Halcyon the Large" in repr(parts[-1])
        assert DRAFT not in "".join(witness.tokens)

    def test_tools_or_a_schema(self, server: OpenAIServer) -> None:
        with pytest.raises(AutoMixError, match="tools or a schema"):
            mix(server).bind_tools([Ship]).with_structured_output(Ship)

    def test_an_abstention_holds_no_object(self, server: OpenAIServer) -> None:
        from langchain_core.runnables import RunnableLambda  # noqa: PLC0415

        server.script = says(GOOD, LARGE)
        router: Any = RunnableLambda(lambda _: Decision(action="abstain", model_index=0))
        asked = mix(server, router=router).with_structured_output(Ship)
        assert asked.invoke("Which?") is None


class TestModels:
    """Models with retries, fallbacks and bound arguments, and of two providers."""

    def asked(self, small: Runnable[Any, Any], server: OpenAIServer) -> Runnable[Any, Any]:
        found = AutoMixRunnable.from_models(small, server.model("large"), router=ThresholdRouter())
        return found.with_structured_output(Ship)

    def test_what_is_bound_reaches_the_wire(self, server: OpenAIServer) -> None:
        server.script = says(GOOD, LARGE)
        self.asked(server.model("small").bind(temperature=0.25), server).invoke("Which?")
        assert server.requests[0]["temperature"] == 0.25
        assert server.requests[0]["response_format"]["type"] == "json_schema"

    def test_a_call_with_arguments_is_as_quiet_as_one_without(self, server: OpenAIServer) -> None:
        server.script = says(GOOD, LARGE)
        asked = self.asked(server.model("small", streaming=True), server)
        assert asked.invoke("Which?", stop=["."]) == Ship(**GOOD)
        assert server.requests[0]["stop"] == ["."]
        assert not server.requests[0].get("stream")

    def test_retries(self, server: OpenAIServer) -> None:
        good, failures = says(GOOD, LARGE), iter([500])
        server.script = lambda body: next(failures, None) or good(body)
        small = server.model("small").bind(temperature=0.25)
        small_again = small.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
        assert self.asked(small_again, server).invoke("Which?") == Ship(**GOOD)
        assert asked_of(server) == [("small", False), *SMALL_CHECK]
        assert server.requests[1]["temperature"] == 0.25

    def test_a_configurable_model(self, server: OpenAIServer) -> None:
        server.script = says(GOOD, LARGE)
        small = server.model("small").configurable_fields(temperature=ConfigurableField("warmth"))
        output = self.asked(small, server).invoke("Which?", {"configurable": {"warmth": 0.75}})
        assert output == Ship(**GOOD)
        assert server.requests[0]["temperature"] == 0.75
        assert "response_format" in server.requests[0]

    def test_fallbacks(self, server: OpenAIServer) -> None:
        good = says(GOOD, GOOD)
        server.script = lambda body: 500 if body["model"] == "small" else good(body)
        small = server.model("small").with_fallbacks([server.model("third").bind(temperature=0.5)])
        assert self.asked(small, server).invoke("Which?") == Ship(**GOOD)
        drafted = server.requests[1]
        assert (drafted["model"], drafted["temperature"]) == ("third", 0.5)
        assert "response_format" in drafted

    @pytest.fixture
    def other(self) -> Iterator[AnthropicServer]:
        with AnthropicServer() as running:
            yield running

    def test_each_provider_gets_its_own_format(
        self, server: OpenAIServer, other: AnthropicServer
    ) -> None:
        server.script = says(BAD, LARGE)
        other.script = says(LARGE, LARGE, method="function_calling")
        asked = AutoMixRunnable.from_models(
            server.model("small"), other.model("large"), router=ThresholdRouter()
        )
        output = asked.with_structured_output(Ship).invoke("Which?")
        assert output == Ship(**LARGE)
        assert server.requests[0]["response_format"]["type"] == "json_schema"
        assert [tool["name"] for tool in other.requests[0]["tools"]] == ["Ship"]
        assert other.requests[0]["tool_choice"]["name"] == "Ship"


def test_another_schema_leaves_nothing_of_the_one_before(server: OpenAIServer) -> None:
    server.script = says("no JSON", GOOD)
    mixed: Any = mix(server).with_structured_output(SCHEMA, include_raw=True, method="json_mode")
    boat = {**SCHEMA, "title": "Boat"}
    whys = []
    for _ in range(2):
        copy = mixed.model_copy(update={"output": boat})
        whys += [record_of(each.invoke("JSON")["raw"])["why"] for each in (mixed, copy)]
        mixed.output = boat
    assert ["Boat" in why for why in whys] == [False, True, True, True]
