"""Each provider's row of the table by LangChain's own client, over its own wire.

A client that is not installed is left out, as `langchain-litellm` mostly is: it brings 210 MB
(`make litellm`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import BaseModel

from langchain_automix import (
    AutoMixRunnable,
    ChatAutoMix,
    CircuitBreaker,
    SelfVerifier,
)
from langchain_automix.models.provider_quirks import PROVIDERS
from tests.support.builders.mixes import ACCEPTS, REJECTS, ROUTER, record_of, weather
from tests.support.builders.scripted_replies import ACCEPT, Cut, call, is_check
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.bedrock_server import BedrockServer
from tests.support.servers.gemini_server import GeminiServer
from tests.support.servers.litellm_server import LiteLLMServer
from tests.support.servers.loopback import LoopbackServer
from tests.support.servers.mistral_server import MistralServer
from tests.support.servers.ollama_server import OllamaServer
from tests.support.servers.openai_server import OpenAIServer

PRICES = {
    name: {"input": 1, "output": 2} for name in ("small", "large", "openai/small", "openai/large")
}
REASONS = {"refused": "The model refused", "filtered": "A content filter"}

# Each wire: its server, its client's package, its name in the table, and a reply's longest length.
WIRES: dict[str, tuple[type[Any], str, str, Callable[[Any], Any]]] = {
    "OpenAI": (
        OpenAIServer,
        "langchain_openai",
        "OpenAI, chat completions",
        lambda sent: sent["max_completion_tokens"],
    ),
    "Anthropic": (
        AnthropicServer,
        "langchain_anthropic",
        "Anthropic",
        lambda sent: sent["max_tokens"],
    ),
    "Gemini": (
        GeminiServer,
        "langchain_google_genai",
        "Gemini",
        lambda sent: sent["generationConfig"]["maxOutputTokens"],
    ),
    "Mistral": (
        MistralServer,
        "langchain_mistralai",
        "Mistral",
        lambda sent: sent["max_tokens"],
    ),
    "Ollama": (
        OllamaServer,
        "langchain_ollama",
        "Ollama",
        lambda sent: sent["options"]["num_predict"],
    ),
    "LiteLLM": (
        LiteLLMServer,
        "langchain_litellm",
        "LiteLLM",
        lambda sent: sent["max_tokens"],
    ),
    "Bedrock": (
        BedrockServer,
        "langchain_aws",
        "Bedrock Converse",
        lambda sent: sent["inferenceConfig"]["maxTokens"],
    ),
}


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def served(wire: str) -> Iterator[Any]:
    kind, package, _, _ = WIRES[wire]
    pytest.importorskip(package, reason=f"asks by the client of {wire}")
    with kind() as running:
        yield running


def _models(served: Any) -> list[Any]:
    return [served.model("small"), served.model("large")]


class TestOwnSettings:
    """`ChatAutoMix(max_tokens=..., temperature=...)`, whatever a provider calls them."""

    def sent(self, wire: str, served: LoopbackServer) -> tuple[Any, Any]:
        body = served.requests[-1]
        settings = (
            body.get("generationConfig")
            or body.get("options")
            or body.get("inferenceConfig")
            or body
        )
        return WIRES[wire][3](body), settings.get("temperature")

    @pytest.mark.parametrize("verifier", [ACCEPTS, REJECTS], ids=["kept", "escalated"])
    async def test_reach_every_provider(self, wire: str, served: Any, verifier: Any) -> None:
        served.script = lambda body: ["By the sea."]
        mix = ChatAutoMix(
            models=_models(served),
            router=ROUTER,
            verifier=verifier,
            max_tokens=100,
            temperature=0.25,
        )
        assert mix.invoke("Where?").text == "By the sea."
        assert self.sent(wire, served) == (100, 0.25)
        await mix.ainvoke("Where?", max_tokens=50)
        assert self.sent(wire, served) == (50, 0.25)
        list(mix.stream("Where?", temperature=0.5))
        assert self.sent(wire, served) == (100, 0.5)
        mix.bind_tools([weather]).invoke("Where?")
        assert self.sent(wire, served) == (100, 0.25)

    def test_come_before_a_models_own(self, wire: str, served: Any) -> None:
        served.script = lambda body: ["By the sea."]
        field = {"Gemini": "max_output_tokens", "Ollama": "num_predict"}.get(wire, "max_tokens")
        small = served.model("small", **{field: 7}).with_retry(stop_after_attempt=2)
        models = [small, served.model("large", **{field: 7})]
        own = ChatAutoMix(models=models, router=ROUTER, verifier=ACCEPTS)
        own.invoke("Where?")
        assert self.sent(wire, served)[0] == 7
        own.max_tokens = 9
        own.invoke("Where?")
        assert self.sent(wire, served)[0] == 9

    def test_with_structured_output(self, server: OpenAIServer) -> None:
        class City(BaseModel):
            name: str

        server.script = lambda body: ['{"name": "Turku"}']
        mix = ChatAutoMix(models=_models(server), router=ROUTER, verifier=ACCEPTS, max_tokens=100)
        assert mix.with_structured_output(City).invoke("Where?") == City(name="Turku")
        assert server.requests[-1]["max_completion_tokens"] == 100

    def test_of_a_model_without_such_a_field(self) -> None:
        heard: list[Any] = []

        class Own(BaseChatModel):
            @property
            def _llm_type(self) -> str:
                return "own"

            def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
                heard.append(kwargs)
                return ChatResult(generations=[ChatGeneration(message=AIMessage("Yes."))])

        mix = ChatAutoMix(models=[Own(), Own()], router=ROUTER, verifier=ACCEPTS, max_tokens=100)
        mix.invoke("Where?")
        assert heard[0]["max_tokens"] == 100


class TestTheTable:
    def rows(self, wire: str) -> list[tuple[str, str]]:
        return [
            (word, ending)
            for provider in PROVIDERS
            for (field, word), ending in provider.endings
            if provider.name == WIRES[wire][2] and field != "prompt_feedback.block_reason"
            # LiteLLM's own client says `stop` for these, and nobody can tell any more.
            if not (wire == "LiteLLM" and ending == "failed")
        ]

    @pytest.mark.parametrize("how", ["invoke", "stream"])
    def test_every_word(self, wire: str, served: Any, server: OpenAIServer, how: str) -> None:
        server.script = lambda body: ["By the large."]
        models = [served.model("small"), server.model("large")]
        mix = AutoMixRunnable(models=models, router=ROUTER, verifier=ACCEPTS)
        for word, ending in self.rows(wire):
            # Ollama's client skips what came with `load`: it comes where there was no generation.
            half = None if word == "load" else "Half an answer"
            served.script = lambda body, word=word, half=half: [
                {"content": half, "finish_reason": word}
            ]
            if how == "invoke":
                message = mix.invoke("Where?")
            else:
                chunks = list(mix.stream("Where?"))
                message = sum(chunks[1:], chunks[0])
            record = record_of(message)
            if ending == "out of tokens":
                assert message.text == "Half an answer", word
            else:
                assert message.text == "By the large.", word
                broken = f"The provider broke the answer off ({word})"
                # LiteLLM's own client says some words in OpenAI's.
                started = REASONS.get(ending, broken) if half and wire != "LiteLLM" else ""
                assert record["why"].startswith(started), word

    @pytest.mark.parametrize(
        ("status", "counts"), [(400, False), (401, True), (403, True), (429, True), (500, True)]
    )
    async def test_what_it_refuses_costs_nothing(
        self, wire: str, served: Any, server: OpenAIServer, status: int, counts: bool
    ) -> None:
        server.script = lambda body: ["By the large."]
        served.script = lambda body: status
        settings = {
            "Gemini": {"max_retries": 1},
            "Bedrock": {"max_retries": 1},
            "Ollama": {},
        }.get(wire, {"max_retries": 0})
        if wire == "Bedrock":  # botocore tries again by itself
            settings = {"config": _no_retries()}
        small = served.model("small", **settings)
        breaker = CircuitBreaker(failures=1)
        mix = AutoMixRunnable(
            models=[small, server.model("large")],
            router=ROUTER,
            verifier=ACCEPTS,
            prices=PRICES,
            circuit_breaker=breaker,
        )
        message = mix.invoke("Where?")
        assert message.text == "By the large."
        assert record_of(message)["cost"] is not None
        assert (breaker.state(small) == "open") is counts

    def test_a_check_and_tools(self, wire: str, served: Any) -> None:
        served.script = lambda body: (
            [ACCEPT if is_check(body) else call("weather", city="Turku")] * (body.get("n") or 1)
        )
        mix = AutoMixRunnable(
            models=_models(served),
            router=ROUTER,
            verifier=SelfVerifier(samples=2, sampling="parallel"),
            prices=PRICES,
        )
        message = mix.bind_tools([weather]).invoke("How is it in Turku?")
        assert message.tool_calls[0]["args"] == {"city": "Turku"}
        record = record_of(message)
        assert (record["verdicts"], record["escalated"]) == ([True, True], False)
        assert record["cost"] is not None


@pytest.mark.parametrize("wire", ["Anthropic", "Bedrock", "Ollama"], indirect=True)
class TestStreams:
    """Only the last model streams: what it says is kept whatever it is."""

    def mix(self, served: Any, **fields: Any) -> AutoMixRunnable:
        fields = {"router": ROUTER, "verifier": REJECTS, "prices": PRICES, **fields}
        return AutoMixRunnable(models=_models(served), **fields)

    @pytest.mark.parametrize("how", ["stream", "astream"])
    async def test_an_answer_comes_token_by_token(self, served: Any, how: str) -> None:
        served.script = lambda body: [f"By the sea, says {body['model']}."]
        mix = self.mix(served)
        if how == "stream":
            chunks = list(mix.stream("Where?"))
        else:
            chunks = [chunk async for chunk in mix.astream("Where?")]
        texts = [chunk.text for chunk in chunks if chunk.text]
        assert texts == ["By ", "the ", "sea, ", "says ", "large."]
        record = record_of(sum(chunks[1:], chunks[0]))
        assert (record["model"], record["failed"]) == ("large", [])
        assert record["cost"] is not None

    def test_a_tool_call(self, served: Any) -> None:
        served.script = lambda body: [call("weather", city=f"Turku, {body['model']}")]
        chunks = list(self.mix(served).bind_tools([weather]).stream("How is it in Turku?"))
        message = sum(chunks[1:], chunks[0])
        [made] = message.tool_calls
        assert (made["name"], made["args"]) == ("weather", {"city": "Turku, large"})
        assert record_of(message)["cost"] is not None

    def test_one_that_is_cut_is_no_answer(self, served: Any) -> None:
        def script(body: Any) -> Any:
            cut = Cut("Half an answer to this", after=2)
            return cut if body["model"] == "large" else ["A draft."]

        served.script = script
        with pytest.raises(Exception) as raised:  # noqa: PT011  (each client has its own)
            list(self.mix(served).stream("Where?"))
        assert not isinstance(raised.value, AssertionError)


def _no_retries() -> Any:
    config: Any = pytest.importorskip("botocore.config", reason="Bedrock's own client")
    return config.Config(retries={"max_attempts": 0})
