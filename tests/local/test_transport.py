"""`PerTokenTransport`, over HTTP: whole answers from streams, however slowly their tokens come."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from openai import APIConnectionError, APITimeoutError, InternalServerError
from pydantic import BaseModel, SecretStr

from langchain_automix.local.transport import PerTokenTransport


def chunk(index: int, **choice: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": index, "delta": {}, **choice}]}


def ended(index: int) -> dict[str, Any]:
    return chunk(index, finish_reason="stop")


def usage(written: int) -> dict[str, Any]:
    counts = {"prompt_tokens": 7, "completion_tokens": written, "total_tokens": 7 + written}
    return {"model": "m", "choices": [], "usage": counts}


class LlamaCpp:
    """Streams `events` with a pause before each, as llama.cpp's server does."""

    def __init__(self) -> None:
        outer = self
        self.events: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.pause = 0.0
        self.ends = True
        self.status = 200

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                self.send_response(outer.status)
                self.end_headers()
                if outer.status != 200:
                    self.wfile.write(b'{"error": {"message": "no room"}}')
                elif not body.get("stream"):
                    message = {"role": "assistant", "content": "{}"}
                    choice = {"index": 0, "message": message, "finish_reason": "stop"}
                    self.wfile.write(json.dumps({"model": "m", "choices": [choice]}).encode())
                else:
                    self.stream()

            def stream(self) -> None:
                for each in outer.events:
                    time.sleep(outer.pause)
                    try:
                        self.wfile.write(b"data: " + json.dumps(each).encode() + b"\n\n")
                    except BrokenPipeError:  # the client has given up
                        return
                if outer.ends:
                    self.wfile.write(b"data: [DONE]\n\n")

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def llama() -> Iterator[LlamaCpp]:
    running = LlamaCpp()
    threading.Thread(target=running.server.serve_forever, daemon=True).start()
    yield running
    running.server.shutdown()
    running.server.server_close()


def model(llama: LlamaCpp, seconds: float = 30.0, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="m",
        base_url=llama.base_url,
        api_key=SecretStr("key"),
        max_retries=0,
        timeout=seconds,
        http_client=httpx.Client(transport=PerTokenTransport(), timeout=seconds),
        **settings,
    )


def test_a_stream_comes_back_as_the_whole_answer(llama: LlamaCpp) -> None:
    token = {"token": "red", "bytes": [114, 101, 100], "logprob": -0.5, "top_logprobs": []}
    llama.events = [
        chunk(0, delta={"role": "assistant", "content": None}),
        chunk(0, delta={"content": "red"}, logprobs={"content": [token]}),
        chunk(0, delta={"content": " ish"}),
        ended(0),
        usage(3),
    ]
    reply = model(llama, logprobs=True).invoke("A colour?")
    assert reply.text == "red ish"
    assert reply.response_metadata["finish_reason"] == "stop"
    assert reply.response_metadata["logprobs"]["content"] == [token]
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] == 3
    [asked] = llama.requests
    assert asked["stream"] is True
    assert asked["logprobs"] is True


def test_the_tokens_of_every_choice_are_counted(llama: LlamaCpp) -> None:
    llama.events = [chunk(1, delta={"content": "b"}), chunk(0, delta={"content": "a a"})]
    llama.events += [ended(1), usage(2), ended(0), usage(3)]
    result = model(llama, n=2).generate([[HumanMessage("A colour?")]])
    assert [each.text for each in result.generations[0]] == ["a a", "b"]
    assert result.llm_output is not None
    counts = result.llm_output["token_usage"]
    assert (counts["completion_tokens"], counts["total_tokens"]) == (5, 12)


def test_one_usage_for_all_choices_is_taken_as_it_is(llama: LlamaCpp) -> None:
    llama.events = [chunk(0, delta={"content": "a"}), chunk(1, delta={"content": "b"})]
    llama.events += [ended(0), ended(1), usage(4)]
    reply = httpx.Client(transport=PerTokenTransport()).post(
        f"{llama.base_url}/chat/completions", json={"messages": [], "n": 2}
    )
    assert reply.json()["usage"]["completion_tokens"] == 4
    assert not any("tokens" in choice for choice in reply.json()["choices"])


def test_a_slow_answer_is_waited_for_while_tokens_come(llama: LlamaCpp) -> None:
    """Eight pauses together are longer than the timeout."""
    llama.pause = 0.5
    llama.events = [chunk(0, delta={"content": "x"}) for _ in range(6)] + [ended(0), usage(6)]
    assert model(llama, seconds=2.5).invoke("Slowly?").text == "x" * 6


def test_a_server_that_says_nothing_is_given_up(llama: LlamaCpp) -> None:
    llama.pause = 2.0
    llama.events = [chunk(0, delta={"content": "x"})]
    with pytest.raises(APITimeoutError):
        model(llama, seconds=0.3).invoke("Silence?")


def test_an_answer_that_is_broken_off_is_an_error(llama: LlamaCpp) -> None:
    llama.events, llama.ends = [chunk(0, delta={"content": "half an"})], False
    with pytest.raises(APIConnectionError):
        model(llama).invoke("Half?")


def test_an_error_in_the_stream_is_an_error(llama: LlamaCpp) -> None:
    error = {"error": {"message": "out of memory", "code": 500}}
    llama.events = [chunk(0, delta={"content": "half"}), error]
    with pytest.raises(InternalServerError, match="out of memory"):
        model(llama).invoke("Memory?")


def test_a_refusal_is_passed_on(llama: LlamaCpp) -> None:
    llama.status = 503
    with pytest.raises(InternalServerError, match="no room"):
        model(llama).invoke("Room?")


async def test_async_calls_come_back_whole_too(llama: LlamaCpp) -> None:
    llama.events = [chunk(0, delta={"content": "x"}), ended(0), usage(1)]
    client = httpx.AsyncClient(transport=PerTokenTransport())
    reply = await client.post(f"{llama.base_url}/chat/completions", json={"messages": []})
    assert reply.json()["choices"][0]["message"]["content"] == "x"
    await client.aclose()


def test_what_cannot_be_joined_is_sent_as_it_is(llama: LlamaCpp) -> None:
    class Form(BaseModel):
        """A form."""

        name: str | None = None

    llama.events = [chunk(0, delta={"content": "x"}), ended(0), usage(1)]
    assert model(llama).with_structured_output(Form).invoke("Name?") == Form()
    assert next(each.text for each in model(llama).stream("Stream?")) == "x"
    assert [bool(asked.get("stream")) for asked in llama.requests] == [False, True]
