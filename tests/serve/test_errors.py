"""Errors have OpenAI's shape and the right status, and quote no draft."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from langchain_automix import FunctionVerifier, SelfVerifier, ThresholdRouter
from langchain_automix.serve.errors import to_api_error
from tests.support.builders.mixes import DRAFT, REJECTS, rejecting
from tests.support.builders.scripted_replies import Body, Cut, Error, is_check
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, Served, events, served_mix


def error_of(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    return error


USER = {"role": "user", "content": "Who?"}
TEXT, MISSING = "messages.0.content.0.text", "missing_required_parameter"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"functions": []}, "functions", "unsupported_parameter"),
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": "1"}, "temperature", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_value"),
        ({"user": 5}, "user", "invalid_value"),
        ({"n": True}, "n", "unsupported_parameter"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"messages": [{**USER, "content": [{"type": "text"}]}]}, TEXT, MISSING),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function", MISSING),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{**USER, "mood": 1}]}, "messages.0.mood", "unknown_parameter"),
        ({"messages": [{"role": "elf", "content": "x"}]}, "messages.0", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": " "}]}, None, None),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"parallel_tool_calls": True}, "parallel_tool_calls", None),
        ({"model": ""}, "model", "invalid_value"),
        ({"model": None}, "model", "invalid_value"),
    ],
)
def test_a_request_that_is_wrong(
    running: Served,
    provider: OpenAIServer,
    body: dict[str, Any],
    param: str | None,
    code: str | None,
) -> None:
    response = running.chat(**body)
    assert response.status_code == 400
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["code"]) == (param, code)
    assert provider.requests == []  # nothing was paid


def test_a_misspelt_name_is_told_the_nearest(running: Served) -> None:
    unknown = running.chat(model="mx")
    misspelt = running.chat(temprature=1)
    assert unknown.status_code == 404
    assert error_of(unknown)["code"] == "model_not_found"
    assert "Did you mean 'mix'?" in error_of(unknown)["message"]
    assert "Did you mean 'temperature'?" in error_of(misspelt)["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"model": "x" * 100_000},
        {"x" * 100_000: 1},
        {"messages": [{"role": "x" * 100_000}]},
        {"messages": [{**USER, "x" * 100_000: 1}]},
        {"tool_choice": {"type": "function", "function": {"name": "x" * 100_000}}},
    ],
)
def test_what_is_sent_is_not_echoed_at_length(running: Served, body: dict[str, Any]) -> None:
    response = running.chat(**body)
    assert response.status_code == 400
    assert len(response.content) < 2_000


@pytest.mark.parametrize(
    "content",
    [
        b"{]",
        b"",
        b"\xff",
        b'{"model": NaN}',
        b"[" * 100_000,
        b"[]",
        b"null",
        b'"text"',
        b"1" * 5_000,
        b'{"model": "mix", "messages": [{"role": "user", "content": "\\ud800"}]}',
    ],
)
def test_a_body_that_is_no_request(running: Served, content: bytes) -> None:
    with running.client() as client:
        headers = {"Content-Type": "application/json"}
        response = client.post("/v1/chat/completions", content=content, headers=headers)
        untyped = client.post("/v1/chat/completions", content=content)
    assert (response.status_code, untyped.status_code) == (400, 415)
    assert error_of(response)["type"] == error_of(untyped)["type"] == "invalid_request_error"


def test_paths_and_methods_that_are_not_there(running: Served) -> None:
    with running.client() as client:
        for path in ("/nothing", "/docs", "/redoc", "/v1/completions"):
            response = client.get(path)
            assert response.status_code == 404, path
            error_of(response)
        wrong = client.get("/v1/chat/completions")
        described = client.get("/openapi.json")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    error_of(wrong)
    document = described.json()
    assert "422" not in json.dumps(document)
    post = document["paths"]["/v1/chat/completions"]["post"]
    told = {"200", "400", "401", "404", "413", "429", "502", "503", "504"}
    assert told <= post["responses"].keys()


def refusing(status: int, body: Any = None, **headers: str) -> Callable[[Body], Any]:
    return lambda _: Error(status, body, headers)


CONTEXT = {
    "error": {
        "message": "This model's maximum context length is 10 tokens.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
}
FILTER = {"error": {"message": "The prompt was filtered.", "type": None, "code": "content_filter"}}
QUOTA = {"error": {"message": "You exceeded your quota.", "code": "insufficient_quota"}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (refusing(400, CONTEXT), 400, "context_length_exceeded"),
        (refusing(400, FILTER), 400, "content_filter"),
        (refusing(401), 502, "model_failed"),
        (refusing(404), 502, "model_failed"),
        (refusing(429), 429, "rate_limit_exceeded"),
        (refusing(429, QUOTA), 502, "model_failed"),
        (refusing(500), 502, "model_failed"),
        (refusing(503), 503, "model_unavailable"),
        (refusing(504), 504, "timeout"),
    ],
)
def test_a_provider_that_fails(
    running: Served, provider: OpenAIServer, script: Any, status: int, code: str, stream: bool
) -> None:
    provider.script = script
    response = running.chat(stream=stream)
    [query] = running.told()
    assert response.status_code == status
    assert error_of(response)["code"] == code
    assert (query.outcome, query.status, query.model) == ("failed", status, None)
    if status == 400:
        said = CONTEXT if code == "context_length_exceeded" else FILTER
        assert error_of(response)["message"] == said["error"]["message"]


def test_when_a_provider_may_be_asked_again(running: Served, provider: OpenAIServer) -> None:
    provider.script = refusing(429, **{"Retry-After": "17"})
    assert running.chat().headers["retry-after"] == "17"


def test_a_provider_that_is_not_there(server: OpenAIServer) -> None:
    with OpenAIServer() as gone:
        pass
    with served_mix(gone) as running:
        response = running.chat()
    assert response.status_code == 502
    assert error_of(response)["code"] == "model_failed"


def test_a_failure_within_a_stream_ends_it_without_done(server: OpenAIServer) -> None:
    server.script = lambda body: (
        ["a draft"] if body["model"] == "small" else Cut("one two three four", after=2)
    )
    with served_mix(server, verifier=REJECTS) as running:
        response = running.chat(stream=True)
        [query] = running.told()
    assert response.status_code == 200
    *chunks, last = events(response)
    assert "one " in "".join(chunks)
    assert json.loads(last)["error"]["code"] == "model_failed"
    assert (query.outcome, query.status) == ("failed", 502)


@pytest.mark.parametrize("stream", [False, True])
def test_a_check_that_is_refused_quotes_no_draft(server: OpenAIServer, stream: bool) -> None:
    draft = rejecting()

    def script(body: Body) -> Any:
        if is_check(body):
            quoted = {"error": {"message": f"Filtered: {DRAFT}", "code": "content_filter"}}
            return Error(400, quoted)
        return draft(body)

    server.script = script
    with served_mix(server, on_verification_error="raise", verifier=SelfVerifier()) as running:
        response = running.chat(stream=stream)
    assert response.status_code == 502
    assert DRAFT not in response.text


def test_an_unexpected_error_says_nothing_of_itself(
    server: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(ThresholdRouter):
        def opening(self, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("checks") is not None and caplog is not None and armed:
                raise RuntimeError(f"The {DRAFT} broke out.")
            return super().opening(*args, **kwargs)

    armed: list[bool] = []
    with served_mix(server, router=Failing(threshold=0.5)) as running:
        armed.append(True)
        response = running.chat()
        armed.clear()
    assert response.status_code in {500, 502}
    assert DRAFT not in response.text + caplog.text


def test_every_kind_of_error_becomes_one_of_the_protocol() -> None:
    for error in (KeyError("x"), ValueError("x"), OSError("x"), MemoryError()):
        made = to_api_error(error)
        assert made.status in {500, 502}
        assert made.body["error"]["type"] == "server_error"
    assert to_api_error(TimeoutError()).status == 504
    assert to_api_error(RecursionError()).status == 400
    unknown = to_api_error(TypeError("create() got an unexpected keyword argument 'seed'"))
    assert (unknown.status, unknown.param, unknown.code) == (400, "seed", "unsupported_parameter")


def test_the_mix_is_named_in_what_is_told(running: Served) -> None:
    running.chat(n=2)
    running.chat(model="nowhere")
    running.chat(messages=[{"role": "user", "content": " "}])
    [query] = running.told()
    assert (query.mix, query.outcome, query.status) == (MIX, "failed", 400)


def test_a_check_that_cannot_be_used_quotes_no_draft(server: OpenAIServer) -> None:
    def broken(answer: str) -> Any:
        return f"neither true nor false: {answer}"

    server.script = rejecting()
    with served_mix(server, verifier=FunctionVerifier(function=broken)) as running:
        response = running.chat()
    assert DRAFT not in response.text
