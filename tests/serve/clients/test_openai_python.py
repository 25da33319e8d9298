"""OpenAI's own Python client asks a served mix, as it would ask OpenAI."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from langchain_automix.serve.keys import ApiKey
from langchain_automix.serve.settings import ServeSettings
from tests.support.builders.mixes import ACCEPTS, DRAFT, KEPT, REJECTS, rejecting
from tests.support.builders.scripted_replies import Body, Cut, Error, call, calls
from tests.support.builders.waiting import LONG, Gate, wait_for
from tests.support.servers.openai_server import OpenAIServer, is_check
from tests.support.servers.serving import MIX, Served, served_mix

ASKED: Any = {"model": MIX, "messages": [{"role": "user", "content": "Who built it?"}]}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


class Ship(BaseModel):
    """A ship, and what it is."""

    name: str
    kind: Literal["ferry", "tug"]


def weather_tool(*, strict: bool = False) -> Any:
    """The tool of these tests, in OpenAI's format."""
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    function = {"name": "weather", "parameters": parameters, "strict": strict}
    return {"type": "function", "function": function}


def client(running: Served, **settings: Any) -> openai.OpenAI:
    given = {"api_key": "any", "max_retries": 0, "timeout": LONG, **settings}
    return openai.OpenAI(base_url=running.base_url, **given)


@pytest.fixture
def asking(running: Served) -> Iterator[openai.OpenAI]:
    with client(running) as asking:
        yield asking


@pytest.fixture
def rejects(server: OpenAIServer) -> Iterator[openai.OpenAI]:
    """A client of a mix that keeps no draft."""
    with served_mix(server, verifier=REJECTS) as running, client(running) as asking:
        yield asking


def test_an_answer_and_its_bill(asking: openai.OpenAI, provider: OpenAIServer) -> None:
    completion: Any = asking.chat.completions.create(**ASKED, temperature=0.5, seed=3, stop=["END"])
    assert completion.choices[0].message.content == "a small answer"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.total_tokens == sum(each["total_tokens"] for each in provider.billed)
    assert completion.automix["model"] == "small"  # the record, as a field of its own
    assert provider.requests[0]["stop"] == ["END"]


async def test_without_a_thread(running: Served) -> None:
    given: dict[str, Any] = {"api_key": "any", "max_retries": 0, "timeout": LONG}
    async with openai.AsyncOpenAI(base_url=running.base_url, **given) as asking:
        completion = await asking.chat.completions.create(**ASKED)
        stream: Any = await asking.chat.completions.create(**ASKED, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        models = [model.id async for model in asking.models.list()]
    assert completion.choices[0].message.content == "".join(texts) == "a small answer"
    assert models == [MIX]


def test_a_stream(rejects: openai.OpenAI, server: OpenAIServer) -> None:
    server.script = rejecting()
    asked = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = rejects.chat.completions.create(**asked)
    texts = [chunk.choices[0].delta.content for chunk in chunks]
    assert "".join(filter(None, texts)) == KEPT
    assert len(list(filter(None, texts))) > 1
    assert last.choices == []
    assert last.usage.total_tokens == sum(each["total_tokens"] for each in server.billed)
    assert last.automix["escalated"]


def test_the_clients_own_accumulation_of_a_stream(rejects: openai.OpenAI) -> None:
    with rejects.chat.completions.stream(**ASKED) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "a large answer"
    assert events.count("content.delta") > 1
    assert "content.done" in events


@pytest.mark.parametrize("stream", [False, True])
def test_parallel_tool_calls_and_their_results(
    asking: openai.OpenAI, provider: OpenAIServer, stream: bool
) -> None:
    wanted = calls(call("weather", city="Turku"), call("weather", city="Åbo"))
    provider.script = lambda body: (
        ["Sun in both."] if body["messages"][-1]["role"] == "tool" else [wanted]
    )
    given: Any = {**ASKED, "tools": [weather_tool(strict=True)], "parallel_tool_calls": True}
    if stream:
        with asking.chat.completions.stream(**given) as parts:
            message: Any = parts.get_final_completion().choices[0].message
    else:
        message = asking.chat.completions.create(**given).choices[0].message
    made = message.tool_calls
    assert [json.loads(each.function.arguments)["city"] for each in made] == ["Turku", "Åbo"]
    assert [each.id for each in made] == [each["id"] for each in wanted["tool_calls"]]
    # As users do: the message goes back as it came.
    results = [{"role": "tool", "tool_call_id": each.id, "content": "Sun."} for each in made]
    given["messages"] = [*ASKED["messages"], message, *results]
    completion = asking.chat.completions.create(**given)
    assert completion.choices[0].message.content == "Sun in both."


def test_an_answer_that_is_parsed(asking: openai.OpenAI, provider: OpenAIServer) -> None:
    provider.script = lambda body: [
        '{"name": "Zebra", "kind": "horse"}'
        if body["model"] == "small"
        else '{"name": "Halcyon", "kind": "ferry"}'
    ]
    completion = asking.chat.completions.parse(**ASKED, response_format=Ship)
    assert completion.choices[0].message.parsed == Ship(name="Halcyon", kind="ferry")
    with asking.chat.completions.stream(**ASKED, response_format=Ship) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Ship(name="Halcyon", kind="ferry")
    sent = provider.requests[0]["response_format"]["json_schema"]
    assert sent["strict"] is True  # as the client asks


def test_tool_calls_that_are_parsed(asking: openai.OpenAI, provider: OpenAIServer) -> None:
    provider.script = lambda body: [call("Ship", name="Halcyon", kind="ferry")]
    tool: Any = openai.pydantic_function_tool(Ship)
    completion = asking.chat.completions.parse(**ASKED, tools=[tool])
    [made] = completion.choices[0].message.tool_calls or []
    assert made.function.parsed_arguments == Ship(name="Halcyon", kind="ferry")


def test_an_image(asking: openai.OpenAI, provider: OpenAIServer) -> None:
    image: Any = {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}
    content: Any = [{"type": "text", "text": "What is this?"}, image]
    asking.chat.completions.create(model=MIX, messages=[{"role": "user", "content": content}])
    assert provider.requests[0]["messages"][0]["content"] == content


def test_the_headers(asking: openai.OpenAI) -> None:
    raw = asking.chat.completions.with_raw_response.create(**ASKED)
    completion: Any = raw.parse()
    assert raw.headers["x-automix-model"] == "small"
    assert raw.headers["x-automix-cost"] == completion.automix["cost"]
    assert completion._request_id == completion.id


def test_the_models(asking: openai.OpenAI) -> None:
    assert asking.models.retrieve(MIX).owned_by == "langchain-automix"
    with pytest.raises(openai.NotFoundError) as unknown:
        asking.models.retrieve("mx")
    assert unknown.value.code == "model_not_found"


def test_requests_that_are_wrong(asking: openai.OpenAI, provider: OpenAIServer) -> None:
    with pytest.raises(openai.BadRequestError, match="leave out n") as refused:
        asking.chat.completions.create(**ASKED, n=2)
    assert (refused.value.param, refused.value.code) == ("n", "unsupported_parameter")
    with pytest.raises(openai.BadRequestError, match="'mood'"):
        asking.chat.completions.create(**ASKED, extra_body={"mood": 1})
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-9'"):
        asking.chat.completions.create(**{**ASKED, "model": "gpt-9"})
    assert provider.requests == []


def test_keys(server: OpenAIServer) -> None:
    settings = ServeSettings(keys=(ApiKey.of("team", "a-key-of-the-team"),))
    with served_mix(server, settings, verifier=ACCEPTS) as running:
        with client(running) as wrong, pytest.raises(openai.AuthenticationError) as refused:
            wrong.chat.completions.create(**ASKED)
        with client(running, api_key="a-key-of-the-team") as right:
            assert right.chat.completions.create(**ASKED).choices
    assert refused.value.code == "invalid_api_key"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("outcome", "kind", "code"),
    [
        (Error(429, None, {"Retry-After": "17"}), openai.RateLimitError, "rate_limit_exceeded"),
        (Error(500), openai.InternalServerError, "model_failed"),
        (Error(503), openai.InternalServerError, "model_unavailable"),
        (Error(504), openai.InternalServerError, "timeout"),
    ],
)
def test_a_provider_that_fails(
    asking: openai.OpenAI,
    provider: OpenAIServer,
    outcome: Error,
    kind: type[openai.APIStatusError],
    code: str,
    stream: bool,
) -> None:
    provider.script = lambda _: outcome
    with pytest.raises(kind) as failed:
        asking.chat.completions.create(**ASKED, stream=stream)
    assert failed.value.code == code
    wanted = outcome.headers.get("Retry-After")
    assert failed.value.response.headers.get("retry-after") == wanted


def test_what_may_succeed_later_is_asked_again(running: Served, provider: OpenAIServer) -> None:
    outcomes: Any = iter([Error(429, None, {"Retry-After": "0"}), Error(503), ["at last"]])
    provider.script = lambda body: Error(503) if body["model"] == "large" else next(outcomes)
    with client(running, max_retries=3) as patient:
        completion = patient.chat.completions.create(**ASKED)
    assert completion.choices[0].message.content == "at last"


def test_a_client_that_waits_no_longer(server: OpenAIServer) -> None:
    gate = Gate()
    server.delay = gate
    try:
        with served_mix(server, verifier=ACCEPTS) as running:
            with client(running, timeout=0.2) as hasty, pytest.raises(openai.APITimeoutError):
                hasty.chat.completions.create(**ASKED)
            wait_for(lambda: running.state.slots.taken == 0)  # its query has ended, too
    finally:
        gate.open()


def test_a_stream_that_breaks(rejects: openai.OpenAI, server: OpenAIServer) -> None:
    def script(body: Body) -> Any:
        return [f"the {DRAFT}"] if body["model"] == "small" else Cut("one two three", after=2)

    server.script = script
    told = ""

    def read() -> None:
        nonlocal told
        for chunk in rejects.chat.completions.create(**ASKED, stream=True):
            told += chunk.choices[0].delta.content or ""

    with pytest.raises(openai.APIError) as failed:
        read()
    assert told.startswith("one ")
    assert failed.value.code == "model_failed"
    assert DRAFT not in told + str(failed.value.body)


def test_a_check_that_is_bought_is_on_the_bill(server: OpenAIServer) -> None:
    with served_mix(server) as running, client(running) as asking:
        completion: Any = asking.chat.completions.create(**ASKED)
    assert any(is_check(body) for body in server.requests)
    assert completion.usage.total_tokens == sum(each["total_tokens"] for each in server.billed)
