"""The loopback servers themselves: what they send is what a provider would."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel, Field

from tests.support.builders.obedient_replies import obliging
from tests.support.builders.scripted_replies import ACCEPT, Cut, Error, Script, call, calls
from tests.support.servers.anthropic_server import AnthropicServer
from tests.support.servers.loopback import LoopbackServer
from tests.support.servers.openai_server import OpenAIServer

SAID = "  Two words,\n\nand then 你好 more. "


@pytest.fixture(params=[OpenAIServer, AnthropicServer])
def either(request: pytest.FixtureRequest) -> Iterator[Any]:
    with request.param() as running:
        yield running


class Size(BaseModel):
    unit: Literal["cm", "m"]
    width: int = Field(gt=0, lt=5)


class Order(BaseModel):
    """An order."""

    item: str
    sizes: list[Size]
    note: str | None = None


class TestReplies:
    def test_a_stream_says_what_an_answer_says(self, either: Any) -> None:
        either.script = lambda _: [SAID]
        model = either.model("small", stream_usage=True)
        whole = model.invoke("hello there")
        chunks = list(model.stream("hello there"))
        assert whole.text == "".join(chunk.text for chunk in chunks) == SAID
        assert len([chunk for chunk in chunks if chunk.text]) > 5
        full = chunks[0]
        for chunk in chunks[1:]:
            full += chunk
        assert full.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"] == 6
        assert full.usage_metadata["input_tokens"] == whole.usage_metadata["input_tokens"] == 2
        assert [billed["total_tokens"] for billed in either.billed] == [8, 8]

    def test_calls_arrive_whole_either_way(self, either: Any) -> None:
        message = calls(call("find", name="你好 'x'", limit=2), call("stop"))
        either.script = lambda _: [{**message, "content": "Let me see."}]
        model = either.model("small").bind_tools([Order])
        whole = model.invoke("hello")
        streamed = [*model.stream("hello")]
        full = streamed[0]
        for chunk in streamed[1:]:
            full += chunk
        assert whole.tool_calls == full.tool_calls
        assert [(made["name"], made["args"]) for made in whole.tool_calls] == [
            ("find", {"name": "你好 'x'", "limit": 2}),
            ("stop", {}),
        ]
        assert whole.text == full.text == "Let me see."

    def test_usage_is_streamed_only_where_asked_for(self, server: OpenAIServer) -> None:
        quiet = list(server.model("small", stream_usage=False).stream("hello"))
        assert not any(chunk.usage_metadata for chunk in quiet)
        assert len(server.billed) == 1

    def test_the_end_of_a_message_may_be_given(self, either: Any) -> None:
        either.script = lambda _: [{"content": "a long", "finish_reason": "length"}]
        said = either.model("small").invoke("hello").response_metadata
        assert said.get("finish_reason", said.get("stop_reason")) in {"length", "max_tokens"}


class TestAtOnce:
    def test_fifty_are_counted_and_served(self, either: LoopbackServer) -> None:
        together = threading.Barrier(50, timeout=20)
        either.delay = lambda _: together.wait() * 0.0
        url = either.base_url + either.route
        body = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
        with httpx.Client(trust_env=False, limits=httpx.Limits(), timeout=30) as client:
            with ThreadPoolExecutor(50) as pool:
                sent = list(pool.map(lambda _: client.post(url, json=body), range(50)))
            assert {response.status_code for response in sent} == {200}
            assert either.most_at_once == 50
            either.delay = 0
            either.most_at_once = 0
            for _ in range(20):
                client.post(url, json=body)
                client.post(url, json={**body, "stream": True})
        assert either.most_at_once == 1, "who has the whole answer is no longer counted"

    def test_a_stream_is_in_flight_until_it_ends(self, either: Any) -> None:
        go_on = threading.Event()
        either.token_delay = lambda _: go_on.wait(20) * 0.0
        model = either.model("small")
        stream = model.stream("hello")
        assert next(chunk.text for chunk in stream if chunk.text) == "a "
        model.invoke("hello", **({} if isinstance(either, OpenAIServer) else {"stream": False}))
        go_on.set()
        assert "".join(chunk.text for chunk in stream) == "small answer"
        assert either.most_at_once == 2

    def test_one_model_may_be_slow(self, server: OpenAIServer) -> None:
        asked = []

        def slow(body: dict[str, Any]) -> float:
            asked.append(body["model"])
            return 0.0

        server.delay = slow
        server.model("large").invoke("hello")
        assert asked == ["large"]


class TestFaults:
    def test_an_error_has_its_headers(self, server: OpenAIServer) -> None:
        server.script = lambda _: Error(429, headers={"Retry-After": "7"})
        with pytest.raises(openai.RateLimitError) as raised:
            server.model("small").invoke("hello")
        assert raised.value.response.headers["Retry-After"] == "7"
        assert not server.billed

    @pytest.mark.parametrize(
        "outcome", [500, Error(200, "{not json"), Cut("one two three four", after=2)]
    )
    def test_a_fault_is_an_exception(self, either: Any, outcome: Any) -> None:
        either.script = lambda _: outcome
        with pytest.raises(Exception, match=r"."):
            either.model("small").invoke("hello")

    def test_a_stream_is_cut_after_so_many_words(self, either: Any) -> None:
        either.script = lambda _: Cut("one two three four", after=2)
        said: list[str] = []
        with pytest.raises(Exception, match="incomplete|peer closed|[Cc]onnection"):
            said.extend(chunk.text for chunk in either.model("small").stream("hello"))
        assert len(either.billed) == 1


class TestObliging:
    def test_tools_then_words(self, either: Any) -> None:
        either.script = obliging("{model} says so.")
        model = either.model("small").bind_tools([Order])
        asked = [("human", "It's an order of 'two chairs', 9 wide")]
        made = model.invoke(asked)
        [tool_call] = made.tool_calls
        assert tool_call["args"] == {"item": "two chairs", "sizes": [{"unit": "cm", "width": 4}]}
        result = {"role": "tool", "tool_call_id": tool_call["id"], "content": "done"}
        assert model.invoke([*asked, made, result]).text == "small says so."

    @pytest.mark.parametrize("method", ["function_calling", "json_schema"])
    def test_answers_fit_a_schema(self, either: Any, method: str) -> None:
        either.script = obliging()
        model = either.model("small").with_structured_output(Order, method=method)
        assert model.invoke("hello").sizes[0].width == 3
        assert list(model.stream("hello"))[-1].item == "some item"

    def test_keys_of_json_come_from_the_prompt(self, server: OpenAIServer) -> None:
        server.script = obliging()
        model = server.model("small", model_kwargs={"response_format": {"type": "json_object"}})
        assert set(json.loads(model.invoke("JSON with 'a' and 'b'").text)) == {"a", "b"}

    def test_checks_are_judged(self, either: Any) -> None:
        either.script = obliging()
        assert either.model("small").invoke([("system", "You check answers"), "x"]).text == ACCEPT
        assert len(either.checks) == 1


def test_scripts_of_before_fit_the_type() -> None:
    def script(body: dict[str, Any]) -> list[str] | int:
        return 500

    either: Script = script
    assert either({}) == 500
