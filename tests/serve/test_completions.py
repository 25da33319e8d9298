"""Completions over real HTTP: whole and streamed, with what a client may ask of them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest

from langchain_automix import AutoMixError, ChatAutoMix
from langchain_automix.serve.app import create_app
from tests.support.builders.mixes import ACCEPTS, DRAFT, KEPT, REJECTS, rejecting
from tests.support.builders.scripted_replies import Body, call, calls
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import (
    MIX,
    Served,
    chat_mix,
    chunks_of,
    served,
    served_mix,
    text_of,
)

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Say what the weather is like.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}

SCHEMA = {
    "type": "object",
    "properties": {"year": {"type": "integer"}},
    "required": ["year"],
    "additionalProperties": False,
}


def asked(provider: OpenAIServer, model: str) -> Body:
    """What a model was asked last for an answer."""
    return [body for body in provider.requests if body["model"] == model][-1]


def test_a_whole_answer_with_its_bill_and_its_record(server: OpenAIServer) -> None:
    with served_mix(server) as running:
        response = running.chat()
        [query] = running.told()
    body = response.json()
    assert response.status_code == 200
    assert body["object"] == "chat.completion"
    assert body["model"] == MIX
    [choice] = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "a small answer", "refusal": None}
    assert choice["finish_reason"] == "stop"
    record = body["automix"]
    billed = {kind: sum(each[kind] for each in server.billed) for kind in body["usage"]}
    assert body["usage"] == billed  # of all requests, the checks among them
    assert response.headers["x-automix-model"] == record["model"] == "small"
    assert response.headers["x-automix-cost"] == record["cost"]
    assert unquote(response.headers["x-automix-why"]) == record["why"]
    assert response.headers["x-request-id"] == body["id"] == query.id
    assert (query.outcome, query.model, query.why) == ("kept", "small", record["why"])
    assert f"{query.cost:f} USD" == record["cost"]
    assert f"{query.largest_alone:f} USD" == record["alone"]["large"]["cost"]
    assert query.seconds.keys() >= {"draft", "verify", "route"}
    assert query.question is None  # texts may not be shown


def test_a_stream_ends_with_the_record_and_done(server: OpenAIServer) -> None:
    with served_mix(server, verifier=REJECTS) as running:
        response = running.chat(stream=True)
        [query] = running.told()
    chunks = chunks_of(response)
    assert text_of(response) == "a large answer"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert len(chunks) > 2  # token by token: nothing would reject the largest model's answer
    assert {chunk["id"] for chunk in chunks} == {query.id}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert ["automix" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["automix"]["escalated"]
    assert (query.outcome, query.streamed) == ("escalated", True)


def test_a_stream_with_usage(server: OpenAIServer) -> None:
    with served_mix(server, verifier=ACCEPTS) as running:
        response = running.chat(stream=True, stream_options={"include_usage": True})
    *chunks, last = chunks_of(response)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == sum(each["total_tokens"] for each in server.billed)
    assert last["automix"]["model"] == "small"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert response.headers["x-automix-model"] == "small"  # the answer came whole: all is known


@pytest.mark.parametrize("stream", [False, True])
def test_a_rejected_draft_is_in_no_byte(server: OpenAIServer, stream: bool) -> None:
    server.script = rejecting()
    with served_mix(server) as running:
        response = running.chat(stream=stream)
        [query] = running.told()
    assert KEPT.split()[-1] in response.text
    assert DRAFT not in response.text + str(response.headers) + repr(query)


def test_what_is_asked_reaches_the_models(server: OpenAIServer) -> None:
    settings: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": "END",
        "max_completion_tokens": 77,
        "presence_penalty": 0.1,
        "logit_bias": {"5": 10},
        "user": "u1",
        "metadata": {"app": "a1"},
        "store": True,
        "service_tier": "flex",
    }
    with served_mix(server, verifier=REJECTS) as running:
        assert running.chat(**settings).status_code == 200
    for model in ("small", "large"):
        sent = asked(server, model)
        wanted = {**settings, "stop": ["END"]}
        assert {name: sent.get(name) for name in wanted} == wanted


def test_messages_of_all_roles_reach_the_models(running: Served, provider: OpenAIServer) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    conversation: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "annotations": [],
            "tool_calls": call("weather", city="Turku")["tool_calls"],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "Sun."},
        {"role": "user", "content": "And now?"},
    ]
    conversation[4]["tool_call_id"] = conversation[3]["tool_calls"][0]["id"]
    assert running.chat(messages=conversation).status_code == 200
    sent = asked(provider, "small")["messages"]
    assert [message["role"] for message in sent] == [each["role"] for each in conversation]
    assert sent[2]["content"] == conversation[2]["content"]
    [made] = sent[3]["tool_calls"]
    assert json.loads(made["function"]["arguments"]) == {"city": "Turku"}


@pytest.mark.parametrize("arguments", ["{oops", "[1]", '{"a": "\\ud800"}', "[" * 5_000])
def test_arguments_that_cannot_be_read_are_sent_on_as_they_are(
    running: Served, provider: OpenAIServer, arguments: str
) -> None:
    broken = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    conversation = [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "tool_calls": [broken]},
        {"role": "tool", "tool_call_id": "c1", "content": "These are not JSON."},
    ]
    assert running.chat(messages=conversation).status_code == 200
    assert asked(provider, "small")["messages"][1]["tool_calls"] == [broken]


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_that_do_not_fit_are_never_seen(
    running: Served, provider: OpenAIServer, stream: bool
) -> None:
    drafted = call("weather", town=DRAFT)
    kept = calls(call("weather", city="Turku"), call("weather", city="Oslo"))
    provider.script = lambda body: [drafted if body["model"] == "small" else kept]
    response = running.chat(
        stream=stream, tools=[TOOL], tool_choice="auto", parallel_tool_calls=True
    )
    assert asked(provider, "small")["parallel_tool_calls"] is True
    assert DRAFT not in response.text
    if stream:
        chunks = chunks_of(response)
        made: dict[int, dict[str, str]] = {}
        for chunk in chunks:
            for part in chunk["choices"][0]["delta"].get("tool_calls") or ():
                whole = made.setdefault(part["index"], {"arguments": ""})
                whole |= {key: part[key] for key in ("id", "type") if key in part}
                whole |= {"name": part["function"].get("name", whole.get("name"))}
                whole["arguments"] += part["function"]["arguments"]
        found = [made[0], made[1]]
        reason = chunks[-1]["choices"][0]["finish_reason"]
    else:
        [choice] = response.json()["choices"]
        assert choice["message"]["content"] is None
        found = [{**each, **each["function"]} for each in choice["message"]["tool_calls"]]
        reason = choice["finish_reason"]
    assert reason == "tool_calls"
    assert [each["id"] for each in found] == [each["id"] for each in kept["tool_calls"]]
    assert [json.loads(each["arguments"])["city"] for each in found] == ["Turku", "Oslo"]
    assert {each["name"] for each in found} == {"weather"}


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("required", "required"),
        ("none", "none"),
        (
            {"type": "function", "function": {"name": "weather"}},
            {"type": "function", "function": {"name": "weather"}},
        ),
    ],
)
def test_which_tool_must_be_called(
    running: Served, provider: OpenAIServer, choice: Any, sent: Any
) -> None:
    reply = ["No."] if choice == "none" else [call("weather", city="Turku")]
    provider.script = lambda body: reply
    assert running.chat(tools=[TOOL], tool_choice=choice).status_code == 200
    assert asked(provider, "small")["tool_choice"] == sent


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_in_a_schema(running: Served, provider: OpenAIServer, stream: bool) -> None:
    provider.script = lambda body: [
        '{"year": "Zebra"}' if body["model"] == "small" else '{"year": 7}'
    ]
    wanted = {"type": "json_schema", "json_schema": {"name": "built", "schema": SCHEMA}}
    response = running.chat(stream=stream, response_format=wanted, temperature=0.25)
    assert DRAFT not in response.text  # it does not fit, and the next model was asked
    sent = asked(provider, "large")
    assert sent["response_format"]["type"] == "json_schema"
    assert sent["response_format"]["json_schema"]["name"] == "built"
    assert sent["temperature"] == 0.25
    assert json.loads(text_of(response)) == {"year": 7}


def test_a_null_within_a_schema_reaches_the_models(running: Served, provider: OpenAIServer) -> None:
    values = {"type": "object", "properties": {"a": {"enum": [None, 1], "default": None}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": values}}
    assert running.chat(tools=[tool]).status_code == 200
    assert asked(provider, "small")["tools"][0]["function"]["parameters"] == values
    provider.script = lambda body: ['{"a": null}']
    wanted = {"type": "json_schema", "json_schema": {"name": "f", "schema": values}}
    assert running.chat(response_format=wanted).status_code == 200
    sent = asked(provider, "small")["response_format"]["json_schema"]["schema"]
    assert sent["properties"] == values["properties"]


def test_an_answer_as_a_json_object(running: Served, provider: OpenAIServer) -> None:
    provider.script = lambda body: ["no JSON" if body["model"] == "small" else '{"a": 1}']
    body = running.chat(response_format={"type": "json_object"}).json()
    assert body["automix"]["model"] == "large"
    assert json.loads(body["choices"][0]["message"]["content"]) == {"a": 1}
    assert asked(provider, "large")["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    "schema", [{"type": 5}, {"type": ["object", "null"]}, {"properties": 5}, {"enum": 5}]
)
def test_a_schema_that_no_model_can_be_asked_for(
    running: Served, provider: OpenAIServer, schema: dict[str, Any]
) -> None:
    provider.script = lambda body: ['{"year": 7}']
    wanted = {"type": "json_schema", "json_schema": {"name": "built", "schema": schema}}
    response = running.chat(response_format=wanted)
    assert response.status_code in {200, 400}
    if response.status_code == 400:
        assert response.json()["error"]["param"] == "response_format"


def test_tools_beside_a_schema(running: Served, provider: OpenAIServer) -> None:
    provider.script = lambda body: ['{"year": 7}']
    wanted = {"type": "json_schema", "json_schema": {"name": "built", "schema": SCHEMA}}
    response = running.chat(tools=[TOOL], response_format=wanted)
    assert response.status_code == 200
    sent = asked(provider, "small")
    assert sent["tools"]
    assert sent["response_format"]["json_schema"]["schema"] == SCHEMA


def test_an_answer_that_ran_out_of_tokens(running: Served, provider: OpenAIServer) -> None:
    provider.script = lambda body: [{"content": "It was", "finish_reason": "length"}]
    whole = running.chat().json()
    streamed = chunks_of(running.chat(stream=True))
    assert whole["choices"][0]["finish_reason"] == "length"
    assert streamed[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_half_a_character_in_an_answer(
    running: Served, provider: OpenAIServer, stream: bool
) -> None:
    provider.script = lambda body: ["Sun \ud83d"]
    assert text_of(running.chat(stream=stream)) == "Sun ?"


def test_the_mixes_are_models(server: OpenAIServer) -> None:
    mixes = {"team/a": chat_mix(server), "b": chat_mix(server)}
    with served(mixes) as running, running.client() as client:
        listed = client.get("/v1/models").json()
        one = client.get("/v1/models/team/a").json()
        assert running.chat(model="b").json()["model"] == "b"
    assert [each["id"] for each in listed["data"]] == ["team/a", "b"]
    assert one == listed["data"][0]
    assert one["object"] == "model"
    assert one["models"] == ["small", "large"]


def test_what_cannot_be_served(server: OpenAIServer) -> None:
    with pytest.raises(AutoMixError, match="There is no mix to serve"):
        create_app({})
    runnable: Any = server.model("small")
    with pytest.raises(AutoMixError, match="is a ChatOpenAI, but must be a ChatAutoMix"):
        create_app({"small": runnable})
    with pytest.raises(AutoMixError, match="needs a name"):
        create_app({" ": ChatAutoMix(models=[runnable, server.model("large")])})
    with pytest.raises(AutoMixError, match="257 characters, but 256 at most"):
        create_app({"m" * 257: ChatAutoMix(models=[runnable, server.model("large")])})
