"""Misspelt fields and tools are refused, with the near match and the whole list."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from langchain_automix import (
    AutoMixError,
    AutoMixMiddleware,
    AutoMixRunnable,
    ChatAutoMix,
    SelfVerifier,
    ThresholdRouter,
)
from langchain_automix.mix import fields, unknown_names
from langchain_automix.mix.settings import MixSettings
from tests.support.servers.openai_server import OpenAIServer, answering


def chat(name: str) -> ChatOpenAI:
    return ChatOpenAI(model=name, api_key=SecretStr("test"))


SMALL, LARGE = chat("small"), chat("large")
FIXED: dict[str, Any] = {"verifier": SelfVerifier(samples=8), "router": ThresholdRouter()}


@tool
def send_email(text: str) -> str:
    """Send it."""
    return text


@tool
def search(text: str) -> str:
    """Search for it."""
    return text


@tool
def delete_page(text: str) -> str:
    """Delete it."""
    return text


class TestFields:
    @pytest.mark.parametrize(
        ("door", "name"),
        [
            (lambda **f: AutoMixRunnable(models=[SMALL, LARGE], **f), "AutoMixRunnable"),
            (lambda **f: AutoMixRunnable.from_models(SMALL, LARGE, **f), "AutoMixRunnable"),
            (lambda **f: ChatAutoMix(models=[SMALL, LARGE], **f), "ChatAutoMix"),
            (lambda **f: AutoMixMiddleware([SMALL, LARGE], **f), "AutoMixMiddleware"),
        ],
    )
    @pytest.mark.parametrize(
        ("given", "near"),
        [
            ("verifer", "verifier"),
            ("max_latencey", "max_latency"),
            ("Router", "router"),
            ("always_escalate_tool", "always_escalate_tools"),
        ],
    )
    def test_a_misspelt_field(self, door: Any, name: str, given: str, near: str) -> None:
        with pytest.raises(ValueError, match=f"{name} has no field '{given}'") as caught:
            door(**{given: "x"})
        said = str(caught.value)
        assert f"Did you mean '{near}'" in said
        assert all(each in said for each in MixSettings.model_fields)
        assert "tool_settings" not in said
        # One clear error, not one inside pydantic's report.
        assert isinstance(caught.value, AutoMixError)
        assert said.startswith(f"{name} has no field")
        assert said.count("\n") == 0

    @pytest.mark.parametrize("door", [AutoMixRunnable, ChatAutoMix, AutoMixMiddleware])
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"models": [SMALL]}, "A mix needs two or more models"),
            ({"verifier": "agremeent"}, "There is no check 'agremeent'. Did you mean 'agreement'?"),
            ({"router": "no.json"}, "router='no.json' is no file"),
        ],
    )
    def test_what_else_is_ours_to_say(self, door: Any, given: dict[str, Any], said: str) -> None:
        with pytest.raises(AutoMixError) as caught:
            door(**{"models": [SMALL, LARGE], **given})
        assert str(caught.value).startswith(said)

    def test_settings_of_the_models_are_said_to_be_theirs(self) -> None:
        with pytest.warns(UserWarning, match="has no logprobs, timeout, top_p of its own: set it"):
            ChatAutoMix(models=[SMALL, LARGE], timeout=3, top_p=0.5, logprobs=True, **FIXED)  # type: ignore[call-arg]

    @pytest.mark.parametrize(
        ("listed", "owner", "beside"),
        [
            (fields.MixFields, MixSettings, {"models"}),
            (
                fields.RunnableFields,
                AutoMixRunnable,
                {"models", "tools", "tool_settings", "output", "output_settings", "include_raw"},
            ),
            (fields.ChatFields, ChatAutoMix, {"models", "cache", "rate_limiter", "output_version"}),
        ],
    )
    def test_what_editors_complete_is_what_there_is(
        self, listed: type, owner: Any, beside: set[str]
    ) -> None:
        """Whoever adds a field to a mix adds it to `mix/fields.py` too."""
        assert fields.names_of(listed) == owner.model_fields.keys() - beside
        assert get_type_hints(listed).keys() == fields.names_of(listed)

    @pytest.mark.parametrize(
        ("function", "listed"),
        [
            (AutoMixRunnable.from_models, fields.RunnableFields),
            (AutoMixRunnable.from_policy, fields.RunnablePolicyFields),
            (ChatAutoMix.from_policy, fields.ChatPolicyFields),
            (AutoMixMiddleware, fields.MixFields),
            (AutoMixMiddleware.from_policy, fields.CommonFields),
        ],
    )
    def test_signatures_list_all_fields(self, function: Any, listed: type) -> None:
        parameters = inspect.signature(function).parameters
        assert fields.names_of(listed) <= parameters.keys()
        assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())


class TestTools:
    def test_the_mix(self) -> None:
        mix = AutoMixRunnable.from_models(SMALL, LARGE, always_escalate_tools=["send_mail"])
        with pytest.raises(ValueError, match="send_mail") as caught:
            mix.bind_tools([send_email, search])
        assert str(caught.value) == (
            "always_escalate_tools names 'send_mail', but there is no such tool. Did you mean "
            "'send_email'? There are: send_email, search."
        )
        other = mix.model_copy(update={"always_escalate_tools": ["pay"]})
        with pytest.raises(ValueError, match="'pay', but there is no such tool. There is: search"):
            other.bind_tools([search])
        mix.model_copy(update={"always_escalate_tools": ["search"]}).bind_tools([search])

    @pytest.mark.parametrize("door", ["middleware", "chat model"])
    def test_an_agent(self, server: OpenAIServer, door: str) -> None:
        unknown_names._warn_once.cache_clear()
        server.script = answering("small says", "large says", verdicts="a")
        models = [server.model("small"), server.model("large")]

        def agent(name: str, *more: AgentMiddleware[Any, Any, Any]) -> Any:
            settings: dict[str, Any] = {**FIXED, "always_escalate_tools": [name]}
            tools = [send_email, search, delete_page]
            if door == "middleware":
                mix = AutoMixMiddleware(models, **settings)
                return create_agent(models[0], tools=tools, middleware=[*more, mix])
            return create_agent(
                ChatAutoMix(models=models, **settings), tools=tools, middleware=list(more)
            )

        asked: Any = {"messages": [("human", "Hello.")]}
        with pytest.raises(ValueError, match="Did you mean 'send_email'"):
            agent("send_mail").invoke(asked)
        assert not server.requests
        agent("send_email").invoke(asked)
        # What is no tool of one step may be one of another.
        with pytest.warns(UserWarning, match="names 'delete_page', but there is no such tool"):
            agent("delete_page", OnlySearch()).invoke(asked)


class OnlySearch(AgentMiddleware[Any, Any, Any]):
    """Leaves an agent one tool for this step."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(tools=[search]))
