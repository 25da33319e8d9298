"""The mix in a LangGraph graph made by hand: a node that calls it, a tool node, and an edge."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from langchain_automix import AutoMixRunnable, ThresholdRouter
from tests.support.builders.scripted_replies import Body, Reply, Script, call, judging
from tests.support.servers.openai_server import OpenAIServer, is_check

ASKED = {"messages": [HumanMessage("How is the weather in Turku?")]}


@tool
def weather(city: str) -> str:
    """Look up the weather."""
    return f"Rain in {city}"


def steps(small: list[Reply], large: list[Reply], verdicts: str) -> Script:
    """What each model says before and after a tool has given a result."""
    judge = judging(verdicts)

    def script(body: Body) -> list[Reply]:
        if is_check(body):
            return list(judge(body))
        said = small if body["model"] == "small" else large
        return [said[body["messages"][-1]["role"] == "tool"]]

    return script


def graph(server: OpenAIServer) -> Any:
    mix = AutoMixRunnable.from_models(
        server.model("small"), server.model("large"), router=ThresholdRouter(threshold=0.5)
    ).bind_tools([weather])

    def answer(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [mix.invoke(state["messages"], config)]}

    async def aanswer(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [await mix.ainvoke(state["messages"], config)]}

    return (
        StateGraph(MessagesState)
        .add_node("answer", RunnableLambda(answer, aanswer))
        .add_node("tools", ToolNode([weather]))
        .add_edge(START, "answer")
        .add_conditional_edges("answer", tools_condition, {"tools": "tools", END: END})
        .add_edge("tools", "answer")
        .compile()
    )


CASES = [
    ("a", "Rain, says small.", ["small", "small"]),
    ("r", "Rain, says large.", ["large", "large"]),
]


def play(server: OpenAIServer, verdicts: str) -> None:
    server.script = steps(
        [call("weather", city="Turku"), "Rain, says small."],
        [call("weather", city="Oulu"), "Rain, says large."],
        verdicts,
    )


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
@pytest.mark.parametrize(("verdicts", "text", "models"), CASES)
async def test_a_node_and_an_edge(
    server: OpenAIServer, how: str, verdicts: str, text: str, models: list[str]
) -> None:
    play(server, verdicts)
    made = graph(server)
    collected = RunCollectorCallbackHandler()
    config: Any = {"callbacks": [collected]}
    state = made.invoke(ASKED, config) if how == "invoke" else await made.ainvoke(ASKED, config)
    said = [message for message in state["messages"] if isinstance(message, AIMessage)]
    assert [message.response_metadata["automix"]["model"] for message in said] == models
    assert said[-1].content == text
    city = "Turku" if verdicts == "a" else "Oulu"
    assert state["messages"][2].content == f"Rain in {city}"
    [root] = collected.traced_runs
    nodes = [run.name for run in root.child_runs]
    assert nodes == ["answer", "tools", "answer"]


@pytest.mark.parametrize("how", ["stream", "astream"])
@pytest.mark.parametrize(("verdicts", "text", "models"), CASES)
async def test_messages_are_streamed(
    server: OpenAIServer, how: str, verdicts: str, text: str, models: list[str]
) -> None:
    play(server, verdicts)
    made = graph(server)
    if how == "stream":
        seen = list(made.stream(ASKED, stream_mode="messages"))
    else:
        seen = [each async for each in made.astream(ASKED, stream_mode="messages")]
    pieces = [message for message, _ in seen if isinstance(message, AIMessage)]
    assert "".join(str(message.text) for message in pieces) == text
    called = [chunk for message in pieces for chunk in message.tool_calls if chunk["name"]]
    assert [each["name"] for each in called] == ["weather"]
    if models[-1] == "large":
        words = [m.text for m in pieces if isinstance(m, AIMessageChunk) and m.text]
        assert words == ["Rain, ", "says ", "large."]
