"""Turns every error of an app into one of OpenAI's shape."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from langchain_automix.errors import near_matches
from langchain_automix.serve.chat_request import REFUSED, ChatCompletionRequest
from langchain_automix.serve.errors import ApiError, of_status, shortened, to_api_error

_FORM = re.compile(r".*\[.*|str|NamedTool|literal.*")
_TAG = re.compile(
    "system|developer|user|assistant|tool|text|image_url|refusal|json_object|json_schema"
)
"""What pydantic says of which of several forms it means, which is no field of the request."""


def add_error_handlers(app: FastAPI) -> None:
    """Have an app answer with errors of OpenAI's shape."""
    app.add_exception_handler(ApiError, _of_api)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_any)


async def _of_api(_: Request, error: Any) -> Response:
    return _response(error)


async def _of_validation(_: Request, error: Any) -> Response:
    return _response(validation_error(error.errors()))


async def _of_http(_: Request, error: Any) -> Response:
    cause = error.__cause__  # what reading the body raised
    if isinstance(cause, ApiError):
        return _response(cause)
    return _response(of_status(error.status_code, f"{error.detail}.", error.headers))


async def _of_any(_: Request, error: Any) -> Response:
    return _response(to_api_error(error))


def _response(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, error.status, error.headers)


def validation_error(problems: Sequence[Mapping[str, Any]]) -> ApiError:
    """Return the error of a body that does not fit, by the first of pydantic's problems."""
    problem = min(problems, key=_rank)
    where = [part for part in problem["loc"] if part != "body"]
    param = _path([shortened(str(part)) for part in where]) or None
    name = shortened(str(where[0])) if where else ""
    if name in REFUSED:
        return ApiError(400, REFUSED[name], code="unsupported_parameter", param=name)
    if problem["type"] == "extra_forbidden":
        near = ""
        if len(where) == 1:
            near = near_matches(name, ChatCompletionRequest.model_fields)
        return ApiError(
            400,
            f"There is no parameter {param!r}.{near}",
            code="unknown_parameter",
            param=param,
        )
    field = f"{param}: " if param else ""
    code = "missing_required_parameter" if problem["type"] == "missing" else "invalid_value"
    return ApiError(400, f"{field}{shortened(problem['msg'])}.", code=code, param=param)


def _path(parts: Sequence[str]) -> str:
    """Return where a problem is in the body, such as `messages.0.content`."""
    inner = range(1, len(parts) - 1)  # a tag comes after its field, and before one of its own
    return ".".join(
        part
        for i, part in enumerate(parts)
        if not _FORM.fullmatch(part) and not (i in inner and _TAG.fullmatch(part))
    )


def _rank(problem: Mapping[str, Any]) -> int:
    """Put what says most first: of several forms that a field may have, most are of no use."""
    if problem["type"] == "extra_forbidden":
        return 0
    return 2 if problem["type"].endswith(("_type", "literal_error")) else 1
