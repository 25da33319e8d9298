"""LangChain's own client of OpenAI's protocol asks a served mix, alone, in agents and in a mix."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from langchain_automix import AutoMixRunnable, ChatAutoMix
from langchain_automix.models.prices import dollars_of
from tests.support.builders.mixes import (
    DRAFT,
    KEPT,
    REJECTS,
    ROUTER,
    pay,
    record_of,
    rejecting,
    weather,
)
from tests.support.builders.scripted_replies import Body, call, calls
from tests.support.builders.waiting import LONG
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, PRICES, Served, chat_mix, served, served_mix

QUESTION = "Who built it?"


class Ship(BaseModel):
    """A ship, and what it is."""

    name: str
    kind: Literal["ferry", "tug"]


HALCYON = {"name": "Halcyon", "kind": "ferry"}


def model_of(running: Served, **settings: Any) -> ChatOpenAI:
    given = {"model": MIX, "api_key": SecretStr("any"), "max_retries": 0, "timeout": LONG}
    return ChatOpenAI(base_url=running.base_url, **{**given, **settings})


def bill(provider: OpenAIServer) -> dict[str, int]:
    """The tokens of everything that the provider was asked, as LangChain counts them."""
    names = {"prompt": "input_tokens", "completion": "output_tokens", "total": "total_tokens"}
    return {
        ours: sum(each[f"{theirs}_tokens"] for each in provider.billed)
        for theirs, ours in names.items()
    }


def told_by(message: AIMessage) -> dict[str, int]:
    usage: Any = message.usage_metadata
    return {name: usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")}


@pytest.fixture
def model(running: Served) -> ChatOpenAI:
    return model_of(running)


@pytest.fixture
def escalating(server: OpenAIServer) -> Iterator[ChatOpenAI]:
    """A client of a mix whose drafts are rejected by a check that it buys."""
    server.script = rejecting()
    with served_mix(server) as running:
        yield model_of(running)


def test_usage_is_the_whole_bill(escalating: ChatOpenAI, server: OpenAIServer) -> None:
    message = escalating.invoke(QUESTION)
    assert message.text == KEPT
    assert {body["model"] for body in server.requests} == {"small", "large"}
    assert told_by(message) == bill(server)
    server.billed.clear()
    whole = None
    parts = []
    for chunk in escalating.stream(QUESTION, stream_usage=True):
        parts.append(chunk.text)
        whole = chunk if whole is None else whole + chunk
    assert len(list(filter(None, parts))) > 1
    assert isinstance(whole, AIMessageChunk)
    assert whole.text == KEPT
    assert told_by(whole) == bill(server)
    assert DRAFT not in str(message) + str(whole)


async def test_batch_and_without_a_thread(model: ChatOpenAI, provider: OpenAIServer) -> None:
    provider.script = lambda body: [f"On {body['messages'][-1]['content']}"]
    questions = [f"question {i}" for i in range(6)]
    wanted = [f"On {question}" for question in questions]
    assert [each.text for each in model.batch([*questions])] == wanted
    assert [each.text for each in await model.abatch([*questions])] == wanted
    assert (await model.ainvoke(questions[0])).text == wanted[0]
    assert "".join([each.text async for each in model.astream(questions[1])]) == wanted[1]


async def test_events_show_no_draft(escalating: ChatOpenAI) -> None:
    events = [each async for each in escalating.astream_events(QUESTION, version="v2")]
    shown = [
        each["data"]["chunk"].text for each in events if each["event"] == "on_chat_model_stream"
    ]
    assert "".join(shown) == KEPT
    assert DRAFT not in str(events)


def test_tools(model: ChatOpenAI, provider: OpenAIServer) -> None:
    both = calls(call("weather", city="Turku"), call("pay", amount=3))
    provider.script = lambda body: [both]
    bound = model.bind_tools([weather, pay], tool_choice="any", parallel_tool_calls=True)
    message = bound.invoke(QUESTION)
    wanted = [("weather", {"city": "Turku"}), ("pay", {"amount": 3})]
    assert [(each["name"], each["args"]) for each in message.tool_calls] == wanted
    whole: Any = None
    for chunk in bound.stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    assert [(each["name"], each["args"]) for each in whole.tool_calls] == wanted
    assert provider.requests[0]["tool_choice"] == "required"


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output(model: ChatOpenAI, provider: OpenAIServer, method: Any) -> None:
    wrong, right = {**HALCYON, "kind": "horse"}, HALCYON

    def script(body: Body) -> Any:
        answer = wrong if body["model"] == "small" and method != "json_mode" else right
        return [call("Ship", **answer) if body.get("tools") else json.dumps(answer)]

    provider.script = script
    found: Any = model.with_structured_output(Ship, method=method).invoke(
        f"{QUESTION} Answer in JSON."
    )
    assert found == Ship(name="Halcyon", kind="ferry")
    last = provider.requests[-1]
    assert ("tools" in last) == (method == "function_calling")


def test_an_agent(model: ChatOpenAI, provider: OpenAIServer) -> None:
    def script(body: Body) -> Any:
        results = [each for each in body["messages"] if each["role"] == "tool"]
        if body["model"] == "small" and not results:
            return [call("weather", town=DRAFT)]  # it does not fit: the next model is asked
        return [f"It is: {results[0]['content']}"] if results else [call("weather", city="Turku")]

    provider.script = script
    agent = create_agent(model, [weather])
    asked: Any = {"messages": [HumanMessage("How is the weather in Turku?")]}
    messages = agent.invoke(asked)["messages"]
    assert messages[-1].text == "It is: Sun in Turku."
    assert [each["args"] for each in messages[1].tool_calls] == [{"city": "Turku"}]
    streamed = [chunk for chunk, _ in agent.stream(asked, stream_mode="messages")]
    assert DRAFT not in str(messages) + str(streamed)
    assert "It is: Sun in Turku." in "".join(
        each.text for each in streamed if isinstance(each, AIMessageChunk)
    )


def test_a_mix_that_is_a_model_of_another(server: OpenAIServer) -> None:
    server.script = rejecting()
    mixes = {"inner": chat_mix(server)}
    with served(mixes) as running:
        inner = model_of(running, model="inner")
        outer = AutoMixRunnable.from_models(
            inner,
            server.model("large"),
            verifier=REJECTS,
            router=ROUTER,
            prices={"inner": {"input": 1.0, "output": 1.0}, "large": PRICES["large"]},
        )
        message = outer.invoke(QUESTION)
        shown = "".join(chunk.text for chunk in outer.stream(QUESTION))
    record = record_of(message)
    assert message.text == shown == KEPT
    assert record["escalated"]
    # One of the two queries: the requests of both mixes.
    assert record["tokens"] == {name: number // 2 for name, number in bill(server).items()}
    assert dollars_of(record["cost"]) > Decimal(0)
    assert DRAFT not in str(message)


def test_a_served_mix_of_served_mixes(server: OpenAIServer) -> None:
    """A served mix one of whose models is a served mix."""
    # A provider each: LangChain's models share a client, which knows one event loop only.
    with OpenAIServer() as dear, served({"inner": chat_mix(server, verifier=REJECTS)}) as inner:
        models = [model_of(inner, model="inner"), dear.model("large")]
        prices = {"inner": PRICES["small"], "large": PRICES["large"]}
        outer = ChatAutoMix(models=models, verifier=REJECTS, router=ROUTER, prices=prices)
        with served({"outer": outer}) as running:
            message = model_of(running, model="outer").invoke(QUESTION)
    assert message.text == "a large answer"
    both = bill(server), bill(dear)
    assert told_by(message) == {name: sum(each[name] for each in both) for name in both[0]}
