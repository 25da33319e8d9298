"""What the caller can mend is raised at once, and no provider's failure is taken for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_automix import (
    AutoMixMiddleware,
    AutoMixRunnable,
    CircuitBreaker,
    POMDPRouter,
    SelfVerifier,
    ThresholdRouter,
)
from langchain_automix.models.failures import is_answer_failure, is_fault, is_model_failure
from tests.support.builders.mixes import mix, record_of
from tests.support.builders.scripted_replies import ACCEPT, Body, Error, is_check
from tests.support.builders.synthetic_logs import world
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.openai_server import OpenAIServer


class City(BaseModel):
    """A city."""

    name: str


class Wrapped(BaseChatModel):
    """A user's own model, which does what its function says."""

    function: Callable[[], str]

    @property
    def _llm_type(self) -> str:
        return "wrapped"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.function()))])


def raising(error: BaseException, cause: BaseException | None = None) -> Callable[[], str]:
    def function() -> str:
        raise error from cause

    return function


def asked_provider() -> str:
    """What a wrapper does that lets its client's error through."""
    response = httpx.Response(503, request=httpx.Request("POST", "http://127.0.0.1"))
    response.raise_for_status()
    return "never"


def answers_with_a_bug() -> str:
    reply: Any = None
    text: str = reply.text
    return text


MISTAKES = {
    "a bug": answers_with_a_bug,
    "an argument": raising(TypeError("create() got an unexpected keyword argument 'top'")),
    "not written": raising(NotImplementedError()),
    "a name": raising(NameError("name 'x' is not defined")),
    "a closed loop": raising(RuntimeError("Event loop is closed")),
    "a closed loop within": raising(ConnectionError("x"), RuntimeError("Event loop is closed")),
    "a closed client": raising(
        RuntimeError("Cannot send a request, as the client has been closed.")
    ),
    "a closed session": raising(RuntimeError("Session is closed")),
    "another loop": raising(RuntimeError("got Future attached to a different loop")),
}
FAILURES = {
    "a status": asked_provider,
    "no connection": raising(ConnectionError("refused")),
    "its own words": raising(RuntimeError("the provider is overloaded")),
    "a bug that a status causes": raising(TypeError("no text"), httpx.ReadTimeout("late")),
    "an attribute that a cut causes": raising(AttributeError("text"), ConnectionResetError()),
    "a library's own kind": raising(type("BadReply", (TypeError,), {})("null")),
}


class TestAUsersOwnModel:
    @pytest.mark.parametrize("function", MISTAKES.values(), ids=MISTAKES)
    def test_a_mistake_is_raised(self, server: OpenAIServer, function: Any) -> None:
        breaker = CircuitBreaker(failures=1)
        models = Wrapped(function=function), server.model("large")
        asked = AutoMixRunnable.from_models(
            *models, router=ThresholdRouter(), circuit_breaker=breaker
        )
        with pytest.raises(Exception) as raised:  # noqa: PT011  (each its own)
            asked.invoke("Where?")
        with pytest.raises(type(raised.value)):
            function()
        assert server.requests == [], "nothing was paid at the large model"
        assert breaker.state(models[0]) == "closed"

    @pytest.mark.parametrize("function", FAILURES.values(), ids=FAILURES)
    def test_a_providers_failure_counts(self, server: OpenAIServer, function: Any) -> None:
        models = Wrapped(function=function), server.model("large")
        message = AutoMixRunnable.from_models(*models, router=ThresholdRouter()).invoke("Where?")
        assert message.content == "a large answer"
        [failed] = record_of(message)["failed"]
        assert failed["stage"] == "draft"

    @pytest.mark.parametrize("how", ["invoke", "ainvoke"])
    async def test_of_the_model_asked_ahead(self, server: OpenAIServer, how: str) -> None:
        """`hedge` asks it beside the check, before it is known whether it is needed."""
        models = server.model("small"), Wrapped(function=answers_with_a_bug)
        router = POMDPRouter.fit(world(300))
        asked = AutoMixRunnable.from_models(*models, router=router, hedge=0.0)
        with pytest.raises(AttributeError):
            _ = asked.invoke("Where?") if how == "invoke" else await asked.ainvoke("Where?")


def test_a_mistake_says_nothing_of_a_models_health() -> None:
    error = AttributeError("text")
    assert is_fault(error)
    assert not is_answer_failure(error)
    assert not is_model_failure(error)


@pytest.mark.parametrize("wire", [OpenAIServer, AnthropicServer])
@pytest.mark.parametrize("body", ["<html>Bad gateway</html>", "{}", "[]"])
def test_a_reply_that_is_none_is_the_providers(server: OpenAIServer, wire: Any, body: str) -> None:
    """Clients raise a TypeError or an AttributeError of it: `'str' object has no attribute`."""
    with wire() as other:
        other.script = lambda _: Error(200, body, {"Content-Type": "text/html"})
        breaker = CircuitBreaker(failures=1)
        models = other.model("small"), server.model("large")
        asked = AutoMixRunnable.from_models(
            *models, router=ThresholdRouter(), circuit_breaker=breaker
        )
        message = asked.invoke("Where?")
    assert message.content == "a large answer"
    assert record_of(message)["failed"]
    assert breaker.state(models[0]) == "open"


def test_one_loop_after_another(server: OpenAIServer) -> None:
    """langchain#35783: a client's connections belong to the loop that opened them."""
    asked, contents, errors = mix(server), [], []
    for _ in range(4):
        try:
            contents.append(asyncio.run(asked.ainvoke("Where?")).content)
        except RuntimeError as error:
            errors.append(str(error))
    assert set(contents) == {"a small answer"}
    assert set(errors) <= {"Event loop is closed"}


class TestStructuredOutput:
    @pytest.mark.parametrize("index", [0, 1])
    def test_of_a_configurable_model(
        self, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, index: int
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        name, settings = ("small", "large")[index], {"base_url": server.base_url}
        models: list[Any] = [server.model("small"), server.model("large")]
        models[index] = init_chat_model(f"openai:{name}", configurable_fields="any", **settings)
        server.script = lambda _: ['{"name": "Turku"}']
        asked = AutoMixRunnable.from_models(
            *models, router=ThresholdRouter(), verification=False, force_model=index
        )
        assert asked.with_structured_output(City).invoke("Where?") == City(name="Turku")
        [request] = server.requests
        assert request["model"] == name
        assert request["response_format"]["json_schema"]["name"] == "City"

    def test_of_what_has_none(self, server: OpenAIServer) -> None:
        plain: Any = RunnableLambda(lambda _: AIMessage("Turku"))
        asked = AutoMixRunnable.from_models(plain, server.model("large"))
        with pytest.raises(NotImplementedError, match="RunnableLambda has no structured output"):
            asked.with_structured_output(City)


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return where


class TestOneProvidersSettings:
    @pytest.mark.parametrize("verifier", ["own", "small's"])
    def test_go_to_its_models_only(self, server: OpenAIServer, verifier: str) -> None:
        """langchain#33709: `cache_control` of Anthropic's middleware is unknown to OpenAI."""

        def script(body: Body) -> list[str]:
            return [ACCEPT] * (body.get("n") or 1) if is_check(body) else ["By the sea."]

        with AnthropicServer() as other:
            other.script = server.script = script
            small, large = server.model("small"), other.model("large")
            checks = SelfVerifier(samples=2) if verifier == "own" else SelfVerifier(model=small)
            for force, expected in ((None, "small"), (1, "large")):
                automix = AutoMixMiddleware(
                    models=[small, large],
                    router=ThresholdRouter(),
                    verifier=checks,
                    force_model=force,
                )
                agent = create_agent(
                    large,
                    [look],
                    system_prompt="Be brief.",
                    middleware=[AnthropicPromptCachingMiddleware(), automix],
                )
                message = agent.invoke({"messages": [HumanMessage("Where?")]})["messages"][-1]
                assert record_of(message)["model"] == expected
                assert record_of(message)["failed"] == []
            assert "cache_control" not in str(server.requests)
            [asked] = other.requests
        assert asked["cache_control"]["type"] == "ephemeral"
        assert asked["system"][-1]["cache_control"]
        assert asked["tools"][-1]["cache_control"]
