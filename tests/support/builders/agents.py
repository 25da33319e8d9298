"""Agents with `AutoMixMiddleware` for tests, and what their models say step by step."""

from __future__ import annotations

import json
from typing import Any

from langchain.agents import create_agent
from langchain.agents.structured_output import (
    ProviderStrategy,
)
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_automix import (
    AutoMixMiddleware,
    ThresholdRouter,
)
from tests.support.builders.scripted_replies import Body, Reply, Script, call, is_check, judging
from tests.support.servers.openai_server import OpenAIServer

ASKED: Any = {"messages": [HumanMessage("How is the weather in Turku?")]}


class Weather(BaseModel):
    """What the weather is."""

    city: str
    degrees: int


class Tools:
    """Two tools, and what they were called with."""

    def __init__(self) -> None:
        self.did: list[tuple[str, str]] = []

        @tool
        def weather(city: str, days: int = 1) -> str:
            """Look up the weather."""
            self.did.append(("weather", city))
            return f"Rain in {city}"

        @tool
        def send_email(to: str) -> str:
            """Send an email."""
            self.did.append(("send_email", to))
            return "sent"

        self.all = [weather, send_email]


def steps(small: list[Reply], large: list[Reply] | None = None, verdicts: str = "a") -> Script:
    """What each model says at each step of a run; a step is the number of results so far."""
    judge = judging(verdicts)

    def script(body: Body) -> list[Reply]:
        if is_check(body):
            return list(judge(body))
        said = {"small": small, "large": large or []}[body["model"]]
        step = sum(message["role"] == "tool" for message in body["messages"])
        return [said[min(step, len(said) - 1)]] * (body.get("n") or 1)

    return script


def middleware(server: OpenAIServer, **settings: Any) -> AutoMixMiddleware:
    settings = {"router": ThresholdRouter(threshold=0.5), **settings}
    return AutoMixMiddleware([server.model("small"), server.model("large")], **settings)


def agent(server: OpenAIServer, tools: Tools | None, *others: Any, **settings: Any) -> Any:
    given = {
        name: settings.pop(name) for name in ("response_format", "checkpointer") if name in settings
    }
    return create_agent(
        server.model("never asked"),
        tools=tools.all if tools else [],
        middleware=[*others, middleware(server, **settings)],
        system_prompt="You know the weather.",
        **given,
    )


async def by(how: str, runnable: Any, given: Any = ASKED, config: Any = None) -> dict[str, Any]:
    if how == "invoke":
        return dict(runnable.invoke(given, config))
    return dict(await runnable.ainvoke(given, config))


def said(state: dict[str, Any]) -> list[AIMessage]:
    return [message for message in state["messages"] if isinstance(message, AIMessage)]


def records(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [message.response_metadata["automix"] for message in said(state)]


def asked(server: OpenAIServer) -> list[str]:
    return ["check" if is_check(body) else body["model"] for body in server.requests]


def form(wanted: Any, **fields: Any) -> Reply:
    """A structured response as the strategy has it; the agent's choice here is a tool."""
    if isinstance(wanted, ProviderStrategy):
        return json.dumps(fields)
    return call("Weather", **fields)


def shown(chunks: Any) -> str:
    return "".join(str(message.text) for message, _ in chunks if isinstance(message, AIMessage))
