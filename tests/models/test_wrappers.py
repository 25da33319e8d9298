"""What is found, and changed, under a Runnable that stands for a chat model."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import ConfigurableField, Runnable, RunnableLambda

from langchain_automix.models.attachments import unreadable_inputs
from langchain_automix.models.identity import identity, list_prices
from langchain_automix.models.tools import bound_tools
from langchain_automix.models.wrappers import (
    chat_model_of,
    map_chat_models,
    unwrap,
    without_streaming,
)
from tests.support.servers.openai_server import OpenAIServer


def look_up(ship: str) -> str:
    """Look up a ship."""
    return ship


def wrapped(model: Any) -> list[Runnable[Any, Any]]:
    other = GenericFakeChatModel(messages=iter([]))
    return [
        model,
        model.bind(stop=["x"]),
        model.with_retry(),
        model.with_config(tags=["t"]),
        model.with_fallbacks([other]),
        model.configurable_fields(temperature=ConfigurableField(id="t")),
        model.bind(stop=["x"]).with_retry().with_fallbacks([other]).with_config(tags=["t"]),
    ]


class TestUnderneath:
    def test_the_chat_model_is_found_under_all_wrappers(self, server: OpenAIServer) -> None:
        model = server.model("small")
        assert all(chat_model_of(runnable) == model for runnable in wrapped(model))
        assert chat_model_of(RunnableLambda(lambda x: x)) is None

    def test_name_and_provider(self, server: OpenAIServer) -> None:
        model = server.model("small")
        assert {identity(runnable) for runnable in wrapped(model)} == {("small", "openai")}
        bound = model.bind_tools([look_up]).bind(model="other").with_retry()
        assert identity(bound) == ("other", "openai")
        assert identity(model.bind(model="inner").bind(model="outer"))[0] == "outer"
        assert identity(RunnableLambda(lambda x: x)) == (None, None)
        assert list_prices(RunnableLambda(lambda x: x)) is None

    def test_bound_tools_are_read_in_every_format(self, server: OpenAIServer) -> None:
        model = server.model("small")
        anthropic = {
            "name": "measure",
            "description": "Measure.",
            "input_schema": {"type": "object"},
        }
        tools = [
            anthropic,
            {"type": "bash_20250124", "name": "bash"},
            {"type": "function", "name": "weigh", "parameters": {"type": "object"}},
            {"type": "custom", "custom": {"name": "free_text"}},
            {"type": "web_search_preview"},
            42,
        ]
        for runnable in (model.bind_tools([look_up]), model.bind_tools([look_up]).with_retry()):
            [found] = bound_tools(runnable)
            assert found["function"]["name"] == "look_up"
        read = [tool["function"] for tool in bound_tools(model.bind(tools=tools))]
        assert [function["name"] for function in read] == ["measure", "bash", "weigh", "free_text"]
        assert read[0]["parameters"] == read[2]["parameters"] == {"type": "object"}
        assert read[1] == {"name": "bash"}, "of a provider's own tool only the name is known"
        assert bound_tools(model) == bound_tools(RunnableLambda(lambda x: x)) == []


class TestRebuilt:
    def test_every_model_is_changed_and_every_wrapper_kept(self, server: OpenAIServer) -> None:
        small, large = server.model("small"), server.model("large")
        model = small.bind(stop=["x"], user="u").with_retry().with_fallbacks([large.bind(stop="y")])
        changed: Any = map_chat_models(
            model,
            lambda chat_model: chat_model.model_copy(update={"temperature": 0.5}),
            kwargs=lambda kwargs: {k: v for k, v in kwargs.items() if k != "stop"},
        )
        [one, kwargs], [two, others] = unwrap(changed), unwrap(changed.fallbacks[0])
        assert (kwargs, others) == ({"user": "u"}, {})
        assert one is not None
        assert two is not None
        assert [m.model_dump()["temperature"] for m in (one, two)] == [0.5, 0.5]
        assert small.model_dump()["temperature"] is None, "the models themselves are left alone"
        assert type(changed.runnable) is type(model.runnable)

    def test_other_runnables_are_left_to_the_caller(self) -> None:
        other = RunnableLambda(lambda x: x)
        seen: list[Any] = []

        def note(runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
            seen.append(runnable)
            return runnable

        assert map_chat_models(other, lambda model: model) is other
        map_chat_models(other.with_retry(), lambda model: model, other=note)
        assert seen == [other]


class TestProfile:
    @pytest.mark.parametrize(
        ("profile", "blind"),
        [
            ({"image_inputs": False, "audio_inputs": True}, ["image"]),
            ({"pdf_inputs": False}, ["file"]),
            ({}, []),
            (None, []),
        ],
    )
    def test_only_an_explicit_no_counts(
        self, server: OpenAIServer, profile: Any, blind: Any
    ) -> None:
        model = server.model("small").model_copy(update={"profile": profile})
        assert unreadable_inputs(model.with_retry(), ["image", "audio", "file", "other"]) == blind

    def test_no_model_is_blind_to_nothing(self) -> None:
        assert unreadable_inputs(None, ["image"]) == []
        assert unreadable_inputs(RunnableLambda(lambda x: x), ["image"]) == []


class TestQuiet:
    def test_a_model_that_does_not_stream_is_itself(self, server: OpenAIServer) -> None:
        for model in wrapped(server.model("small")):
            assert without_streaming(model) is model

    def test_a_streaming_model_is_stilled_also_among_fallbacks(self, server: OpenAIServer) -> None:
        loud: Any = server.model("small", streaming=True)
        for model in wrapped(loud):
            chat_model = chat_model_of(without_streaming(model))
            assert chat_model is not None
            assert chat_model.disable_streaming is True
        behind: Any = without_streaming(server.model("small").with_fallbacks([loud]))
        assert behind.fallbacks[0].disable_streaming is True
        assert loud.disable_streaming is False

    def test_the_request_does_not_stream(self, server: OpenAIServer) -> None:
        for model in (
            server.model("small", streaming=True),
            server.model("small").bind(stream=True),
        ):
            assert isinstance(without_streaming(model).invoke("Hello?"), AIMessage)
        assert not any(body.get("stream") for body in server.requests)
