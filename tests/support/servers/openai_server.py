"""A loopback server that speaks OpenAI's chat completions, for tests over the real wire."""

from __future__ import annotations

import http.server
import math
from collections.abc import Iterator
from typing import Any

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.support.builders.scripted_replies import (
    ACCEPT,
    REJECT,
    Body,
    Error,
    Script,
    answering,
    is_check,
)
from tests.support.servers.loopback import LoopbackServer, Stream, event, fragments, send, tokens

__all__ = ["ACCEPT", "REJECT", "OpenAIServer", "Script", "answering", "is_check"]


_BESIDE = ("finish_reason", "logprobs")
"""What a scripted message may hold that stands beside it in the response."""


class OpenAIServer(LoopbackServer):
    route = "/chat/completions"
    root = "/v1"

    def model(self, name: str, **settings: Any) -> ChatOpenAI:
        given = {"max_retries": 0, "api_key": SecretStr("test"), **settings}
        return ChatOpenAI(model=name, base_url=self.base_url, **given)

    def _serve(self, handler: http.server.BaseHTTPRequestHandler, path: str, body: Body) -> None:
        if path.endswith("/tokenize"):  # llama.cpp's own route
            send(handler, Error(200, {"tokens": body["content"].split()}))
            return
        super()._serve(handler, path, body)

    def _failure(self) -> Any:
        return {"error": {"message": "scripted", "type": "test"}}

    def _whole(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Any:
        choices = [
            {
                "index": i,
                "message": {key: message[key] for key in message if key not in _BESIDE},
                "finish_reason": _finish(message),
                "logprobs": _logprobs(body, message),
            }
            for i, message in enumerate(messages)
        ]
        return {**_head(body, "chat.completion"), "choices": choices, "usage": usage}

    def _stream(self, body: Body, messages: list[dict[str, Any]], usage: dict[str, Any]) -> Stream:
        def chunk(*choices: dict[str, Any], **more: Any) -> bytes:
            return event({**_head(body, "chat.completion.chunk"), "choices": choices, **more})

        def delta(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
            return chunk({"index": index, "delta": delta, "finish_reason": finish})

        opening, closing, pieces = b"", b"", []
        for i, message in enumerate(messages):
            opening += delta(i, {"role": "assistant", "content": ""})
            told = _logprobs(body, message)
            for deltas, beside in _with_logprobs(_deltas(message), told, message["content"] or ""):
                more = {} if beside is None else {"logprobs": beside}
                piece = {"index": i, "delta": deltas, "finish_reason": None}
                pieces.append(chunk({**piece, **more}))
            closing += delta(i, {}, _finish(message))
        if (body.get("stream_options") or {}).get("include_usage"):
            closing += chunk(usage=usage)
        return Stream(opening, pieces, closing + b"data: [DONE]\n\n")


def _head(body: Body, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 0, "model": body["model"]}


def _finish(message: dict[str, Any]) -> str:
    usual = "tool_calls" if message.get("tool_calls") else "stop"
    return str(message.get("finish_reason", usual))


def _logprobs(body: Body, message: dict[str, Any]) -> dict[str, Any] | None:
    """As the message says (`logprobs`: OpenAI's entries, or another server's whole object).

    By default each word is a token by itself, at 0.9.
    """
    if not body.get("logprobs"):
        return None
    if isinstance(message.get("logprobs"), dict):
        return dict(message["logprobs"])
    words = [token(word, 0.9) for word in tokens(message["content"] or "")]
    return {"content": message.get("logprobs", words), "refusal": None}


def _with_logprobs(
    deltas: list[dict[str, Any]], told: dict[str, Any] | None, text: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Yield the deltas of a stream, each token's log-probability beside its text, as OpenAI does.

    Where the tokens do not spell the text, as with servers that send thoughts or no bytes, all
    come at the end.
    """
    entries = (told or {}).get("content") or []
    spells = isinstance(entries, list) and "".join(each["token"] for each in entries) == text
    for entry in entries if spells else ():
        yield {"content": entry["token"]}, {"content": [entry], "refusal": None}
    for delta in deltas:
        if not (entries and spells and "content" in delta):
            yield delta, None
    if told is not None and not (entries and spells):
        yield {}, told


def token(text: str, probability: float, **others: float) -> dict[str, Any]:
    """An entry of OpenAI's log-probabilities: a token, and others that might have stood there."""

    def entry(text: str, probability: float) -> dict[str, Any]:
        logprob = math.log(probability) if probability else -9999.0
        return {"token": text, "bytes": list(text.encode()), "logprob": logprob}

    found = {text: probability, **others}
    top = [entry(*each) for each in sorted(found.items(), key=lambda each: -each[1])]
    return {**entry(text, probability), "top_logprobs": top}


def _deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"content": word} for word in tokens(message["content"] or "")]
    for i, tool_call in enumerate(message.get("tool_calls") or ()):
        function = tool_call["function"]
        named = {**tool_call, "index": i, "function": {"name": function["name"], "arguments": ""}}
        deltas.append({"tool_calls": [named]})
        deltas += [
            {"tool_calls": [{"index": i, "function": {"arguments": part}}]}
            for part in fragments(function["arguments"])
        ]
    return deltas
