"""Bodies of requests as JSON that can be sent on: finite numbers, whole surrogate pairs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import override

from langchain_automix.serve.errors import ApiError, shortened


class StrictJsonRequest(Request):
    """A request whose JSON is read strictly."""

    @override
    async def json(self) -> Any:
        return read_json(await self.body())


class StrictJsonRoute(APIRoute):
    """A route whose requests are read strictly."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            if request.method == "POST":
                _check_type(request.headers.get("content-type", ""))
            return await handle(StrictJsonRequest(request.scope, request.receive))

        return handle_strictly


def _check_type(content_type: str) -> None:
    """Refuse what is not sent as JSON: any web page may send that to a server on this machine.

    Raises:
        ApiError: It is sent as something else.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415, "Send the body as `Content-Type: application/json`.", code="unsupported_media_type"
        )


def read_json(body: bytes) -> Any:
    """Return the JSON in a body.

    Raises:
        ApiError: It is none, or holds what no model can be sent.
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\ud" in text.lower():  # perhaps half of a pair, which no request can hold
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, f"The body is not JSON: {reason}.", code="invalid_json") from error
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):  # it could be sent to no model
        raise ValueError(f"{shortened(digits)} is too large a number")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
