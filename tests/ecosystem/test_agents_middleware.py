"""What an agent's other middleware, and its reader, see of a mix."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, SummarizationMiddleware
from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.context import collect_runs

from langchain_automix import (
    AutoMixMiddleware,
    AutoMixRunnable,
    ChatAutoMix,
    CutShortError,
)
from langchain_automix.models.identity import identity
from tests.support.builders.mixes import ACCEPTS, REJECTS, ROUTER, weather
from tests.support.builders.scripted_replies import Cut, text_of
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.openai_server import OpenAIServer


def mix(models: list[Any], **fields: Any) -> ChatAutoMix:
    return ChatAutoMix(**{"models": models, "router": ROUTER, "verifier": ACCEPTS, **fields})


def models(server: OpenAIServer) -> list[Any]:
    return [server.model(name, stream_usage=True) for name in ("small", "large")]


class TestProvider:
    def test_is_the_models(self, server: OpenAIServer) -> None:
        with AnthropicServer() as other:
            small, large = models(server)
            claude = other.model("large")
            said = [
                mix(given)._get_ls_params()["ls_provider"]
                for given in (
                    [small, large],
                    [small.with_retry(), mix([small, large])],
                    [small, claude],
                    [small.with_fallbacks([claude]), large],
                    [small, RunnableLambda(lambda _: AIMessage("Yes."))],
                )
            ]
        assert said == ["openai", "openai", "automix", "automix", "automix"]
        assert identity(mix([small, large])) == ("small+large", "automix"), "it has no list price"

    def test_so_is_the_kind_that_middleware_goes_by(self, server: OpenAIServer) -> None:
        """What a text counts for a summary, and whether a fallback takes `cache_control`."""
        with AnthropicServer() as other:
            claudes = [other.model(name) for name in ("small", "large")]
            nested = mix([mix(claudes), claudes[1]])
            several = mix([server.model("small"), claudes[1]])
            said = [each._llm_type for each in (mix(claudes), nested, several)]
            assert said == ["anthropic-chat", "anthropic-chat", "automix"]
            asked = [HumanMessage("Where is Turku? " * 9)]
            plain, mixed = (
                SummarizationMiddleware(model, trigger=("tokens", 9)).token_counter(asked)
                for model in (claudes[0], mix(claudes))
            )
        assert mixed == plain
        assert identity(nested) == ("small+large+large", "automix")

    @pytest.mark.parametrize("door", ["plain", "mix"])
    def test_a_summary_is_made_by_reported_tokens(self, server: OpenAIServer, door: str) -> None:
        server.script = lambda body: ["Done."]
        model = server.model("large") if door == "plain" else mix(models(server))
        summarize = SummarizationMiddleware(model, trigger=("tokens", 4_000), keep=("messages", 1))
        usage = {"input_tokens": 4_500, "output_tokens": 9, "total_tokens": 4_509}
        metadata = {"model_provider": "openai"}
        history = [
            HumanMessage("Where is Turku?"),
            AIMessage("By the sea.", usage_metadata=usage, response_metadata=metadata),
            HumanMessage("And Oulu?"),
        ]
        agent: Any = create_agent(model, [], middleware=[summarize])
        agent.invoke({"messages": history})
        assert len(server.requests) == 2, "the summary, then the answer"

    def test_anthropics_cache_in_a_mix_by_middleware(self) -> None:
        """It looks at the class of the agent's model, which `ChatAutoMix` cannot be."""
        with AnthropicServer() as other:
            other.script = lambda body: ["Done."]
            given = [other.model("small"), other.model("large")]
            inner = AutoMixMiddleware(models=given, router=ROUTER, verifier=REJECTS)
            caching = AnthropicPromptCachingMiddleware()
            agent: Any = create_agent(given[1], [weather], middleware=[caching, inner])
            agent.invoke({"messages": [HumanMessage("Go.")]})
        assert [body["model"] for body in other.requests] == ["small", "large"]
        for body in other.requests:
            assert body["cache_control"]["type"] == "ephemeral"
            assert body["tools"][-1]["cache_control"]["type"] == "ephemeral"

    def test_anthropics_cache_further_in_goes_by_each_model(self, server: OpenAIServer) -> None:
        server.script = lambda body: ["A draft."]
        with AnthropicServer() as other:
            other.script = lambda body: ["Done."]
            given = [server.model("small"), other.model("large")]
            outer = AutoMixMiddleware(models=given, router=ROUTER, verifier=REJECTS)
            caching = AnthropicPromptCachingMiddleware(unsupported_model_behavior="ignore")
            agent: Any = create_agent(given[0], [weather], middleware=[outer, caching])
            agent.invoke({"messages": [HumanMessage("Go.")]})
        [small], [large] = server.requests, other.requests
        assert "cache_control" not in str(small)
        assert large["cache_control"]["type"] == "ephemeral"
        assert large["tools"][-1]["cache_control"]["type"] == "ephemeral"

    def test_anthropics_cache_in_a_chat_model_is_set_on_its_models(self) -> None:
        """The middleware leaves `ChatAutoMix` as it is, and says so."""
        with AnthropicServer() as other:
            other.script = lambda body: ["Done."]
            given = [
                other.model(name).bind(cache_control={"type": "ephemeral"})
                for name in ("small", "large")
            ]
            caching = AnthropicPromptCachingMiddleware()
            model = mix(given, verifier=REJECTS)
            agent: Any = create_agent(model, [weather], middleware=[caching])
            with pytest.warns(UserWarning, match="only supports Anthropic models"):
                agent.invoke({"messages": [HumanMessage("Go.")]})
        assert [body["model"] for body in other.requests] == ["small", "large"]
        assert all(body["cache_control"] == {"type": "ephemeral"} for body in other.requests)
        assert all(body["tools"][-1]["name"] == "weather" for body in other.requests)

    def test_anthropics_cache_in_a_mix_that_is_a_fallback(self) -> None:
        with AnthropicServer() as other:
            other.script = lambda body: 500 if body["model"] == "down" else ["Done."]
            fallback = ModelFallbackMiddleware(mix([other.model("small"), other.model("large")]))
            caching = AnthropicPromptCachingMiddleware()
            agent: Any = create_agent(
                other.model("down"), [weather], middleware=[caching, fallback]
            )
            agent.invoke({"messages": [HumanMessage("Go.")]})
        assert [body["model"] for body in other.requests] == ["down", "small"]
        for body in other.requests:
            assert body["cache_control"]["type"] == "ephemeral"
            assert body["tools"][-1]["cache_control"]["type"] == "ephemeral"


class TestTags:
    """Those by which a mix knows its own runs are in traces, and not in what a user is shown."""

    async def test_of_a_graphs_stream(self, server: OpenAIServer) -> None:
        server.script = lambda body: [f"{body['model']} says so"]
        agent: Any = create_agent(mix(models(server), verifier=REJECTS, tags=["mine"]), [])
        asked = {"messages": [HumanMessage("Where?")]}
        with collect_runs() as runs:
            told = list(agent.stream(asked, stream_mode="messages"))
        told += [each async for each in agent.astream(asked, stream_mode="messages")]
        text = "".join(text_of(chunk.content) for chunk, _ in told)
        assert text == "large says so" * 2
        assert {tuple(metadata.get("tags") or ()) for _, metadata in told} == {("mine",)}
        assert "automix:large" in str([run.tags for run in _all_runs(runs.traced_runs)])

    async def test_of_events(self, server: OpenAIServer) -> None:
        server.script = lambda body: [f"{body['model']} says so"]
        asked = mix(models(server), verifier=REJECTS)
        events = [each async for each in asked.astream_events("Where?", version="v2")]
        shown = [each for each in events if each["event"].startswith("on_chat_model")]
        assert shown
        assert "automix:" not in str([each["tags"] for each in shown])


def _all_runs(runs: Any) -> list[Any]:
    return [found for run in runs for found in (run, *_all_runs(run.child_runs))]


class TestNoFinishReason:
    """A stream that ends with neither a reason nor usage was cut, unless a server never says."""

    @pytest.mark.parametrize("way", ["stream", "invoke"])
    def test_is_an_answer_where_it_is_not_required(self, server: OpenAIServer, way: str) -> None:
        server.script = lambda body: Cut("By the sea.", after=9, politely=True)
        given = [server.model(name, streaming=True) for name in ("small", "large")]
        fields: dict[str, Any] = {"models": given, "router": ROUTER, "verification": False}
        with pytest.raises(CutShortError, match="allow_missing_finish_reason"):
            list(AutoMixRunnable(**fields).stream("Where?"))
        lenient = AutoMixRunnable(**fields, allow_missing_finish_reason=True)
        if way == "invoke":
            assert lenient.invoke("Where?").text == "By the sea."
        else:
            assert "".join(chunk.text for chunk in lenient.stream("Where?")) == "By the sea."


def test_an_older_langchain_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """1.2.0 to 1.2.8 have no `ExtendedModelResponse`."""
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware", ModuleType("middleware"))
    monkeypatch.delitem(sys.modules, "langchain_automix.mix.middleware")
    with pytest.raises(ImportError, match=r"langchain 1\.2\.9 or newer.*AgentMiddleware") as raised:
        importlib.import_module("langchain_automix.mix.middleware")
    assert isinstance(raised.value.__cause__, ImportError)
