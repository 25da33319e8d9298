"""Recorded streams, tools and response formats: over HTTP to a scripted model, then replayed."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from langchain_automix.local import recording as _recording
from langchain_automix.local.recording import Recorder, Recording, Replay, request_key


def unit_price(item: str) -> float:
    """Look up a price."""
    raise NotImplementedError


def add(a: float, b: float) -> float:
    """Add two numbers."""
    raise NotImplementedError


class Ship(BaseModel):
    """A ship."""

    name: str


def chunk(delta: dict[str, Any], **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    kind = "chat.completion.chunk"
    return {"id": "x", "created": 1, "object": kind, "model": "m", "choices": [choice], **fields}


def call(arguments: str, **fields: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "function": {"arguments": arguments}, **fields}]}


class Upstream:
    """Streams `events` or, where that is not asked for, says what format and tools it was given."""

    def __init__(self) -> None:
        outer = self
        self.events: list[dict[str, Any]] = []
        self.pause = 0.0
        self.breaks_off = False
        self.status = 200
        self.asked = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked += 1
                self.send_response(outer.status)
                self.end_headers()
                if outer.status != 200:
                    self.wfile.write(b'{"error": {"message": "scripted"}}')
                elif body.get("stream"):
                    self.wfile.write(b": a comment\n\n")
                    for event in outer.events:
                        time.sleep(outer.pause)
                        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                        self.wfile.flush()
                    if not outer.breaks_off:
                        self.wfile.write(b"data: [DONE]\n\n")
                elif self.path == "/tokenize":
                    self.wfile.write(json.dumps({"tokens": body["content"].split()}).encode())
                else:
                    self.wfile.write(json.dumps(outer.whole(body)).encode())

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self.server.server_port}/v1"

    @staticmethod
    def whole(body: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "plain"}
        if "response_format" in body:
            message["content"] = '{"name": "Vesta"}'
        if "tools" in body:
            function = {"name": body["tools"][0]["function"]["name"], "arguments": "{}"}
            message["tool_calls"] = [{"id": "c1", "type": "function", "function": function}]
        whole = {"id": "x", "object": "chat.completion", "model": "m"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        if "n" not in body:
            return {**whole, "choices": [choice]}
        # As llama.cpp does it: the tokens of the first reply alone, its end among them.
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
        cut = {"index": 1, "message": {**message, "content": "a b c"}, "finish_reason": "length"}
        return {**whole, "choices": [choice, cut], "usage": usage}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    running = Upstream()
    threading.Thread(target=running.server.serve_forever, daemon=True).start()
    yield running
    running.server.shutdown()
    running.server.server_close()


class Recorded:
    """A model that is recorded, and then replayed from the file."""

    def __init__(self, upstream: Upstream, path: Path) -> None:
        self.address, self.path = upstream.base_url, path
        self.recorder = Recorder()
        self.live = model(self.address, self.recorder)

    def kept(self) -> Recording:
        self.recorder.recording({}).write(self.path)
        return Recording.read(self.path)

    def replayed(self, pace: float = 0.0) -> ChatOpenAI:
        return model("http://127.0.0.1/v1", Replay(self.kept(), pace=pace))


@pytest.fixture
def recorded(upstream: Upstream, tmp_path: Path) -> Recorded:
    return Recorded(upstream, tmp_path / "run.json.gz")


def model(base_url: str, transport: Recorder | Replay) -> ChatOpenAI:
    return ChatOpenAI(
        model="m",
        base_url=base_url,
        api_key=SecretStr("key"),
        max_retries=0,
        seed=7,
        http_client=httpx.Client(transport=transport),
        http_async_client=httpx.AsyncClient(transport=transport),
    )


def streamed(found: Iterator[AIMessageChunk]) -> tuple[list[str], AIMessageChunk]:
    chunks = list(found)
    whole = chunks[0]
    for part in chunks[1:]:
        whole = whole + part
    return [part.text for part in chunks if part.text], whole


class TestStreams:
    def test_it_comes_back_chunk_by_chunk(self, upstream: Upstream, recorded: Recorded) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        upstream.events = [chunk({"content": "Red"}), chunk({"content": ", blue"})]
        upstream.events.append(chunk({}, choices=[], usage=usage))
        live = streamed(recorded.live.stream("Two colours?", stream_usage=True))
        assert live[0] == ["Red", ", blue"]
        recording = recorded.kept()
        replay = Replay(recording)
        chat = model("http://127.0.0.1/v1", replay)
        again = streamed(chat.stream("Two colours?", stream_usage=True))
        assert replay.clock() == next(iter(recording.calls.values()))[0]["seconds"]
        assert again[0] == live[0]
        assert again[1].usage_metadata == live[1].usage_metadata
        assert again[1].usage_metadata is not None
        assert again[1].usage_metadata["total_tokens"] == 5
        assert upstream.asked == 1, "a replay asks no model"

    async def test_async_clients_get_the_same(self, upstream: Upstream, recorded: Recorded) -> None:
        upstream.events = [chunk({"content": text}) for text in "abc"]
        live = [part.text async for part in recorded.live.astream("?") if part.text]
        assert (await recorded.live.ainvoke("?")).text == "plain"
        replayed = recorded.replayed()
        again = [part.text async for part in replayed.astream("?") if part.text]
        assert (await replayed.ainvoke("?")).text == "plain"
        assert live == again == ["a", "b", "c"]
        assert upstream.asked == 2

    async def test_an_async_client_that_leaves_in_a_pause(
        self, upstream: Upstream, recorded: Recorded
    ) -> None:
        upstream.pause = 0.3
        upstream.events = [chunk({"content": text}) for text in "abc"]
        list(recorded.live.stream("?"))

        async def answer(pace: float) -> list[str]:
            replayed = recorded.replayed(pace)
            return [part.text async for part in replayed.astream("?") if part.text]

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(answer(1.0), 0.5)
        assert await answer(0.0) == ["a", "b", "c"]

    def test_a_tool_call_in_pieces(self, upstream: Upstream, recorded: Recorded) -> None:
        first = call("", id="c1", type="function")
        first["tool_calls"][0]["function"]["name"] = "unit_price"
        upstream.events = [chunk(first), chunk(call('{"item": ')), chunk(call('"lamp"}'))]
        list(recorded.live.bind_tools([unit_price]).stream("A lamp?"))
        _, whole = streamed(recorded.replayed().bind_tools([unit_price]).stream("A lamp?"))  # type: ignore[arg-type]
        [found] = whole.tool_calls
        assert (found["name"], found["args"]) == ("unit_price", {"item": "lamp"})

    def test_pauses_are_kept_where_asked_for(
        self, upstream: Upstream, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upstream.pause = 0.2
        upstream.events = [chunk({"content": text}) for text in "abc"]
        list(recorded.live.stream("?"))
        slept: dict[float, float] = {}
        for pace in (0.0, 0.5, 1.0):
            waits: list[float] = []
            clock = SimpleNamespace(**{**vars(time), "sleep": waits.append})
            monkeypatch.setattr(_recording, "time", clock)
            list(recorded.replayed(pace).stream("?"))
            slept[pace] = sum(waits)
        assert slept[0.0] == 0
        assert slept[1.0] > 0.35, "two pauses between three pieces"
        assert slept[0.5] == pytest.approx(slept[1.0] / 2)

    def test_one_that_broke_off_is_an_error_and_is_not_kept(
        self, upstream: Upstream, recorded: Recorded
    ) -> None:
        upstream.events = [chunk({"content": "Re"})]
        upstream.breaks_off = True
        with pytest.raises(Exception, match="broke off"):
            list(recorded.live.stream("?"))
        assert recorded.kept().calls == {}

    def test_an_error_before_the_stream(self, upstream: Upstream, recorded: Recorded) -> None:
        upstream.status = 400
        with pytest.raises(Exception, match="scripted"):
            list(recorded.live.stream("?"))
        assert recorded.kept().calls == {}

    def test_a_client_that_leaves(self, upstream: Upstream, recorded: Recorded) -> None:
        upstream.events = [chunk({"content": "Red"})] * 3
        upstream.pause = 0.05
        stream = recorded.live.stream("?")
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert recorded.live.invoke("Still there?").text == "plain"


class TestKeys:
    def test_tools_and_formats_are_not_mixed_up(self, recorded: Recorded) -> None:
        def answers(chat: ChatOpenAI) -> list[Any]:
            return [
                chat.invoke("?").text,
                chat.bind_tools([unit_price]).invoke("?").tool_calls[0]["name"],
                chat.bind_tools([add]).invoke("?").tool_calls[0]["name"],
                chat.with_structured_output(Ship, method="json_schema").invoke("?"),
            ]

        live = answers(recorded.live)
        assert live == ["plain", "unit_price", "add", Ship(name="Vesta")]
        assert len(recorded.kept().calls) == 4
        assert answers(recorded.replayed()) == live

    def test_each_telling_field_tells(self) -> None:
        bare = {"model": "m", "messages": [], "n": 8}
        more: list[dict[str, Any]] = [
            {"tools": [{"type": "function"}]},
            {"tool_choice": "required"},
            {"response_format": {"type": "json_object"}},
            {"stream": True},
        ]
        keys = {request_key("/v1/chat/completions", {**bare, **fields}) for fields in more}
        keys.add(request_key("/v1/chat/completions", bare))
        assert len(keys) == 5

    def test_what_says_nothing_makes_no_other_request(self) -> None:
        """Shipped recordings are found by these keys."""
        bare = {"model": "m", "messages": [], "n": 8}
        silent = {"stream": False, "tools": None, "response_format": None, "user": "x"}
        key = request_key("/v1/chat/completions", bare)
        assert key == request_key("/v1/chat/completions", {**bare, **silent})
        assert key == "37b105924007628dba38d552"


class TestSeveralRepliesOfOneRequest:
    def test_the_bill_is_for_all_of_them(self, recorded: Recorded) -> None:
        """One word and its end, and three words that the limit cut: five tokens, not two."""
        bill = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        assert self._bill(recorded.live) == bill
        assert len(recorded.kept().calls) == 1, "what was asked to count is no call of the model"
        assert self._bill(recorded.replayed()) == bill

    @staticmethod
    def _bill(chat: ChatOpenAI) -> Any:
        asks_two = chat.model_copy(update={"n": 2})
        result = asks_two.generate([[HumanMessage("?")]])
        assert [reply.text for reply in result.generations[0]] == ["plain", "a b c"]
        assert result.llm_output is not None
        return result.llm_output["token_usage"]
