"""The mix as the model of an agent: what the agent is given, and what its reader is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from langchain_automix import (
    AutoMixMiddleware,
    AutoMixRunnable,
    ChatAutoMix,
    ThresholdRouter,
)
from tests.support.builders.scripted_replies import Body, Reply, call, judging
from tests.support.servers.openai_server import OpenAIServer, is_check

ASKED = {"messages": [HumanMessage("How is the weather in Turku?")]}

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")


@tool
def weather(city: str) -> str:
    """Look up the weather."""
    return f"Rain in {city}"


def _models(server: OpenAIServer) -> list[Any]:
    return [server.model("small"), server.model("large")]


def _chat_model(server: OpenAIServer, tools: list[Any]) -> Any:
    mix = ChatAutoMix(models=_models(server), router=ThresholdRouter(threshold=0.5))
    return create_agent(mix, tools)


def _middleware(server: OpenAIServer, tools: list[Any]) -> Any:
    mix = AutoMixMiddleware(models=_models(server), router=ThresholdRouter(threshold=0.5))
    return create_agent(server.model("large"), tools, middleware=[mix])


def _node(server: OpenAIServer, tools: list[Any]) -> Any:
    mix: Runnable[Any, Any] = AutoMixRunnable(
        models=_models(server), router=ThresholdRouter(threshold=0.5)
    )

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [mix.invoke(state["messages"])]}

    return StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()


DOORS: dict[str, Callable[[OpenAIServer, list[Any]], Any]] = {
    "chat model": _chat_model,
    "middleware": _middleware,
    "node": _node,
}


@pytest.mark.parametrize("verdicts", ["a", "r"])
@pytest.mark.parametrize("door", DOORS)
async def test_a_kept_answer_is_told_once(server: OpenAIServer, door: str, verdicts: str) -> None:
    """LangGraph tells by its id that a message which a node returns was told already."""
    judge = judging(verdicts)

    def script(body: Body) -> list[Reply]:
        return list(judge(body)) if is_check(body) else [f"Rain, says {body['model']}."]

    server.script = script
    kept = f"Rain, says {'small' if verdicts == 'a' else 'large'}."
    agent = DOORS[door](server, [])
    told = ["".join(each.text) for each in agent.stream_events(ASKED, version="v3").messages]
    assert told == [kept]
    run = await agent.astream_events(ASKED, version="v3")
    assert [await each.text async for each in run.messages] == [kept]


@pytest.mark.parametrize("door", ["chat model", "middleware"])
def test_a_call_that_an_agent_can_mend_comes_before_what_was_rejected(
    server: OpenAIServer, door: str
) -> None:
    """The small model's answer is rejected, and the large one's first call lacks an argument."""
    judge = judging("r")

    def script(body: Body) -> list[Reply]:
        if is_check(body):
            return list(judge(body))
        if body["model"] == "small":
            return ["Sun, I guess."]
        said = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        if not said:
            return [call("weather", town="Turku")]
        if "Rain" not in said[-1]:
            return [call("weather", city="Turku")]
        return ["Rain, says large."]

    server.script = script
    messages = DOORS[door](server, [weather]).invoke(ASKED)["messages"]
    assert messages[-1].text == "Rain, says large."
    assert "Sun, I guess." not in {str(message.text) for message in messages}
    results = [message for message in messages if isinstance(message, ToolMessage)]
    assert [result.status for result in results] == ["error", "success"]


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "messages"])
@pytest.mark.parametrize("door", ["chat model", "middleware"])
async def test_what_was_rejected_does_not_end_an_agent(
    server: OpenAIServer, door: str, how: str
) -> None:
    """The large model's call is no JSON: the agent ends as it does with that model alone."""
    judge = judging("r")
    bad = call("weather")
    bad["tool_calls"][0]["function"]["arguments"] = "city: Turku"

    def script(body: Body) -> list[Reply]:
        if is_check(body):
            return list(judge(body))
        return ["Sun, I guess."] if body["model"] == "small" else [bad]

    server.script = script
    agent = DOORS[door](server, [weather])
    plain: Any = create_agent(server.model("large"), [weather])
    alone = plain.invoke(ASKED)["messages"][-1]
    assert (alone.content, len(alone.invalid_tool_calls)) == ("", 1)
    if how == "messages":
        shown = list(agent.stream(ASKED, stream_mode="messages"))
        assert "Sun, I guess." not in str(shown)
        return
    state = agent.invoke(ASKED) if how == "invoke" else await agent.ainvoke(ASKED)
    [_, last] = state["messages"]
    assert "Sun, I guess." not in str(state)
    assert (last.content, last.invalid_tool_calls) == (alone.content, alone.invalid_tool_calls)
    assert last.response_metadata["automix"]["degraded"]
