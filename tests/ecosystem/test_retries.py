"""An outage of all models, and what LangChain's and LangGraph's own retries make of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import ChatResult
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import RetryPolicy

from langchain_automix import (
    AutoMixMiddleware,
    AutoMixRunnable,
    ChatAutoMix,
    ModelsFailedError,
    ThresholdRouter,
)
from tests.support.builders.scripted_replies import Body, Error, Outcome
from tests.support.servers.openai_server import OpenAIServer

ASKED: Any = {"messages": [("human", "Where?")]}
ROUTER = ThresholdRouter(threshold=0.5)


class Counted:
    """A server that answers 503 to the first so many requests."""

    def __init__(self, server: OpenAIServer, failures: int) -> None:
        self.left = failures
        server.script = self._serve

    def _serve(self, body: Body) -> Outcome:
        self.left -= 1
        return Error(503) if self.left >= 0 else ["By the sea."]


def _is_the_servers(error: Exception) -> bool:
    """As in the documentation of `ModelRetryMiddleware`."""
    return isinstance(error, openai.APIStatusError) and 500 <= error.status_code < 600


def _plain(models: list[Any], retry: Any) -> Any:
    return create_agent(models[1], [], middleware=[retry])


def _chat_model(models: list[Any], retry: Any) -> Any:
    mix = ChatAutoMix(models=models, router=ROUTER, verification=False)
    return create_agent(mix, [], middleware=[retry])


def _middleware(models: list[Any], retry: Any) -> Any:
    mix = AutoMixMiddleware(models=models, router=ROUTER, verification=False)
    return create_agent(models[1], [], middleware=[retry, mix])


DOORS: dict[str, Callable[[list[Any], Any], Any]] = {
    "plain": _plain,
    "chat model": _chat_model,
    "middleware": _middleware,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "retry_on", [(openai.APIStatusError,), _is_the_servers, (Exception,)], ids=["kind", "test", ""]
)
def test_an_agents_retry_sees_the_clients_kind(
    server: OpenAIServer, door: str, retry_on: Any
) -> None:
    models = [server.model(name) for name in ("small", "large")]
    Counted(server, failures=1 if door == "plain" else 2)
    retry = ModelRetryMiddleware(max_retries=1, retry_on=retry_on, initial_delay=0.0, jitter=False)
    [_, said] = DOORS[door](models, retry).invoke(ASKED)["messages"]
    assert said.text == "By the sea."


class Unreachable(BaseChatModel):
    """A user's own model, whose server is down."""

    name: str | None = None

    @property
    def _llm_type(self) -> str:
        return "unreachable"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise ConnectionRefusedError(111, f"{self.name} is down")


def _of_ollama() -> tuple[list[Any], type[Exception]]:
    client = pytest.importorskip("langchain_ollama", reason="asks by Ollama's own client")
    url = "http://127.0.0.1:9"
    models = [client.ChatOllama(model=name, base_url=url) for name in ("small", "large")]
    return models, httpx.ConnectError


def _of_the_user() -> tuple[list[Any], type[Exception]]:
    return [Unreachable(name="small"), Unreachable(name="large")], ConnectionError


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("made", [_of_ollama, _of_the_user])
def test_an_agents_retry_sees_that_there_is_no_connection(door: str, made: Any) -> None:
    models, kind = made()
    heard: list[Exception] = []

    def told(error: Exception) -> str:
        heard.append(error)
        return "later"

    retry = ModelRetryMiddleware(
        max_retries=2, retry_on=(kind,), on_failure=told, initial_delay=0.0, jitter=False
    )
    [_, said] = DOORS[door](models, retry).invoke(ASKED)["messages"]
    assert said.text == "later"
    [error] = heard
    assert isinstance(error, kind)
    assert isinstance(error, ModelsFailedError) is (door != "plain")


@pytest.mark.parametrize("failing", ["models", "input"])
def test_a_graphs_retry_policy(server: OpenAIServer, failing: str) -> None:
    """By default it retries neither a `ValueError` nor a `RuntimeError`."""
    Counted(server, failures=2 if failing == "models" else 0)
    mix = AutoMixRunnable(
        models=[server.model("small"), server.model("large")], router=ROUTER, verification=False
    )
    tries: list[int] = []

    def answer(state: MessagesState) -> dict[str, Any]:
        tries.append(1)
        return {"messages": [mix.invoke(state["messages"] if failing == "models" else {"a": 1})]}

    policy = RetryPolicy(initial_interval=0.0, jitter=False)
    graph = StateGraph(MessagesState).add_node(answer, retry_policy=policy)
    compiled = graph.add_edge(START, "answer").compile()
    if failing == "models":
        assert compiled.invoke(ASKED)["messages"][-1].text == "By the sea."
    else:
        with pytest.raises(ValueError, match="dict"):
            compiled.invoke(ASKED)
    assert len(tries) == (2 if failing == "models" else 1)
