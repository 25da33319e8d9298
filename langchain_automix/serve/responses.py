"""The bodies of responses, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from langchain_automix.serve.chat_request import ToolCall


class ErrorDetail(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


class AnswerMessage(BaseModel):
    """The message of an answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCall] | None = None


class Choice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class Usage(BaseModel):
    """The tokens of all requests of a query, the checks among them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """The body of an answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None
    """None: a request did not tell its tokens."""

    automix: dict[str, Any] | None
    """The record of the query: which model answered, why, and what it cost."""


class ModelCard(BaseModel):
    """A mix, as a model of OpenAI's protocol."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "langchain-automix"
    models: list[str]
    """The models of the mix, cheap to expensive."""

    policy: str | None
    """Version of its policy file; None: it has none."""


class ModelList(BaseModel):
    """All mixes."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


_WORDS = {
    400: "The request is wrong, or a model refuses it.",
    401: "The key is missing, or not known.",
    404: "There is no such model.",
    405: "The path has no such method.",
    408: "The body of the request did not come in time.",
    413: "The request is too large.",
    415: "The body is not sent as JSON.",
    429: "A spend limit is reached, or a provider's rate limit.",
    500: "The query failed within the server.",
    502: "A model failed.",
    503: "A model is not available, or too many queries are under way.",
    504: "The time was up.",
}

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text} for status, text in _WORDS.items()
}

NOT_SCORED: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorBody, "description": "No mix learns, or the query got no answer."}
}

_EVENT = {
    "type": "object",
    "properties": {
        "data": {
            "type": "string",
            "description": "A `chat.completion.chunk` or an error as JSON; `[DONE]` at the end.",
        }
    },
    "required": ["data"],
}
"""One event of a stream, as OpenAPI 3.2 describes it."""

COMPLETION: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ChatCompletion,
        "description": "The answer; with `stream`, as events that end with `data: [DONE]`.",
        "content": {"text/event-stream": {"itemSchema": _EVENT}},
    }
}
