"""Traces of the mix: filters find what was escalated, and nothing is told that must not be."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator
from typing import Any

import langsmith
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import SecretStr

from langchain_automix import AutoMixTotals
from tests.support.builders.agents import agent
from tests.support.builders.mixes import RAG_PROMPT, by_question, mix, record_of
from tests.support.servers.langsmith_server import LangSmithServer
from tests.support.servers.openai_server import OpenAIServer

pytestmark = pytest.mark.filterwarnings("ignore:(list_runs|read_run)")

BY_METADATA = 'and(eq(metadata_key, "automix_escalated"), eq(metadata_value, "{}"))'
BY_TAG = 'has(tags, "automix-escalated")'
KEY = "sk-of-the-user-0123456789"
SECRETS = ("the harbour master", "Halcyon", "Turku")


@pytest.fixture
def ls() -> Iterator[LangSmithServer]:
    with LangSmithServer() as running:
        yield running


def tracing(client: langsmith.Client) -> Any:
    return langsmith.tracing_context(enabled=True, client=client, project_name="p")


def found(ls: LangSmithServer, text: str) -> set[str]:
    """Names of the queries whose own run a filter finds."""
    runs = ls.client.list_runs(project_name="p", filter=text)
    return {str((run.metadata or {})["query"]) for run in runs}


class TestFilters:
    def test_find_exactly_what_was_escalated(
        self, server: OpenAIServer, ls: LangSmithServer
    ) -> None:
        server.script = by_question()
        asked = {f"{i} {'hard' if i % 3 == 0 else 'easy'}": i for i in range(100)}
        configs: list[RunnableConfig] = [{"metadata": {"query": text}} for text in asked]
        small = mix(server)
        with tracing(ls.client):
            answers = small.batch(list(asked)[:60], configs[:60])
            answers += asyncio.run(small.abatch(list(asked)[60:], configs[60:]))
        ls.client.flush()
        hard = {text for text, i in asked.items() if i % 3 == 0}
        records = map(record_of, answers)
        assert {text for text, it in zip(asked, records, strict=True) if it["escalated"]} == hard
        assert found(ls, BY_METADATA.format("true")) == found(ls, BY_TAG) == hard
        assert found(ls, BY_METADATA.format("false")) == asked.keys() - hard
        own = list(ls.client.list_runs(project_name="p", filter=BY_TAG))
        assert {run.name for run in own} == {"AutoMixRunnable"}
        assert len(own) == len(hard)

    @pytest.mark.parametrize("inside", ["chain", "agent", "node"])
    @pytest.mark.parametrize("how", ["invoke", "ainvoke"])
    def test_inside(self, server: OpenAIServer, ls: LangSmithServer, inside: str, how: str) -> None:
        server.script = by_question()
        outer = {"chain": chain, "agent": agent_of, "node": graph}[inside](server)
        texts = [f"{i} {'hard' if i % 2 else 'easy'}" for i in range(6)]
        given: list[Any] = [{"question" if inside == "chain" else "messages": it} for it in texts]
        configs: list[RunnableConfig] = [{"metadata": {"query": text}} for text in texts]

        async def ask() -> None:
            for each, config in zip(given, configs, strict=True):
                if how == "invoke":
                    outer.invoke(each, config)
                else:
                    await outer.ainvoke(each, config)

        with tracing(ls.client):
            asyncio.run(ask())
        ls.client.flush()
        hard = {text for text in texts if "hard" in text}
        assert found(ls, BY_METADATA.format("true")) == found(ls, BY_TAG) == hard
        assert len(list(ls.client.list_runs(project_name="p", filter=BY_TAG))) == 3
        assert len(ls.roots) == len(texts)
        assert all(run["parent_run_id"] for run in ls.runs if run.get("tags") == ["automix:route"])


def chain(server: OpenAIServer) -> Any:
    prompt = ChatPromptTemplate.from_template("{question}")
    return prompt | mix(server) | StrOutputParser()


def agent_of(server: OpenAIServer) -> Any:
    return agent(server, None)


def graph(server: OpenAIServer) -> Any:
    small = mix(server)

    def answer(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [small.invoke(state["messages"], config)]}

    async def aanswer(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [await small.ainvoke(state["messages"], config)]}

    built = StateGraph(MessagesState).add_node("answer", RunnableLambda(answer, aanswer))
    return built.add_edge(START, "answer").add_edge("answer", END).compile()


class Odd(BaseCallbackHandler):
    """Has a `run_map` that is none, and fails at what it is told."""

    run_map = None
    raise_error = True

    def on_custom_event(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("odd")


class TestNothingFails:
    def test_nothing_is_sent_when_tracing_is_off(
        self, server: OpenAIServer, ls: LangSmithServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def none(*args: Any, **kwargs: Any) -> None:
            raise AssertionError("a run tree is made")

        monkeypatch.setattr(langsmith.RunTree, "__init__", none)
        monkeypatch.setattr(langsmith.Client, "request_with_retries", none)
        server.script = by_question()
        assert mix(server).invoke("hard").text == "large: hard"
        assert asyncio.run(mix(server).ainvoke("hard")).text == "large: hard"
        assert "".join(chunk.text for chunk in mix(server).stream("hard")) == "large: hard"
        assert {path for _, path in ls.requests} <= {"/info"}, "its client asks when it is made"

    def test_a_tracing_server_that_fails(self, server: OpenAIServer) -> None:
        server.script = by_question()
        with failing() as url:
            client = langsmith.Client(api_url=url, api_key="test", timeout_ms=500)
            with tracing(client):
                assert mix(server).invoke("hard").text == "large: hard"
                assert asyncio.run(mix(server).ainvoke("easy")).text == "small: easy"
                assert "".join(chunk.text for chunk in mix(server).stream("hard"))
            client.close(timeout=0.1)

    @pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream"])
    def test_a_handler_that_fails_keeps_nothing_from_the_others(
        self, server: OpenAIServer, ls: LangSmithServer, how: str
    ) -> None:
        server.script = by_question()
        totals = AutoMixTotals()
        config: RunnableConfig = {"callbacks": [Odd(), totals], "metadata": {"query": "hard"}}
        with tracing(ls.client):
            if how == "invoke":
                mix(server).invoke("hard", config)
            elif how == "ainvoke":
                asyncio.run(mix(server).ainvoke("hard", config))
            else:
                list(mix(server).stream("hard", config))
        ls.client.flush()
        assert totals.queries == totals.escalations == 1
        assert found(ls, BY_TAG) == {"hard"}


class _Failing(http.server.BaseHTTPRequestHandler):
    def _fail(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_PATCH = _fail  # noqa: N815

    def log_message(self, *args: Any) -> None:
        pass


class failing:  # noqa: N801  (used as a function is)
    """A server that answers 500 to all."""

    def __enter__(self) -> str:
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Failing)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *args: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def ask_all(server: OpenAIServer, client: langsmith.Client) -> list[dict[str, Any]]:
    """Ask in several ways; what is told in them is secret; the records of the answers."""
    context = f"{SECRETS[1]} was built for {SECRETS[0]}. " * 50
    given = {"question": f"Who is {SECRETS[0]}? hard", "context": context}
    server.script = by_question()
    models = [server.model(name, api_key=SecretStr(KEY)) for name in ("small", "large")]
    small = mix(server, prompt=RAG_PROMPT).model_copy(update={"models": models})
    plain = small.model_copy(update={"prompt": None})
    with tracing(client):
        answers = [
            small.invoke(given),
            asyncio.run(small.ainvoke(given)),
            plain.invoke(f"{SECRETS[1]} {SECRETS[2]}, hard"),
            *plain.batch([f"{SECRETS[2]} easy"]),
        ]
        list(small.stream(given))
    client.flush()
    return [record_of(answer) for answer in answers]


class TestSecrets:
    def test_no_key_and_no_context_in_what_we_add(
        self, server: OpenAIServer, ls: LangSmithServer
    ) -> None:
        records = ask_all(server, ls.client)
        assert len(ls.roots) == 5
        for run in ls.runs:
            assert KEY not in str(run), run["name"]
            assert "Authorization" not in str(run), run["name"]
            told = [run["name"], run.get("tags"), (run.get("extra") or {}).get("metadata")]
            assert not any(secret in str(told) for secret in SECRETS), told
        for known in records:
            assert KEY not in str(known)
            assert not any(secret in str(known) for secret in SECRETS), known

    def test_what_langsmith_hides_is_hidden(
        self, server: OpenAIServer, ls: LangSmithServer
    ) -> None:
        hidden = {"hide_inputs": True, "hide_outputs": True, "hide_metadata": True}
        client = langsmith.Client(api_url=ls.client.api_url, api_key="test", **hidden)  # type: ignore[arg-type]
        ask_all(server, client)
        assert len(ls.roots) == 5
        assert any(part.endswith(".extra") for part in ls.parts)
        for run in ls.runs:
            assert not any(secret in str(run) for secret in (*SECRETS, KEY)), run["name"]
            ours = [key for key in run["extra"].get("metadata") or {} if "automix" in key]
            assert not ours, run["name"]
