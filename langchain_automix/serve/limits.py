"""How much is asked at once: the size of a request, and the number of queries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_automix.serve.errors import SERVER_ERROR, ApiError


class Slots:
    """Counts the queries under way, and refuses one too many.

    Args:
        number: How many there may be.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self.taken = 0

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """Take one for the length of a `with` block.

        Raises:
            ApiError: All are taken.
        """
        if self.taken >= self._number:
            raise ApiError(
                503,
                f"{self._number} queries are under way, and no more may be: try again soon.",
                type=SERVER_ERROR,
                code="overloaded",
                headers={"Retry-After": "1"},
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class BodyLimit:
    """ASGI middleware that stops to read a body once it is too large.

    Args:
        app: What is asked.
        max_bytes: Largest body, in bytes.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        read, has_begun, is_too_large = 0, False, False

        async def counting() -> Message:
            nonlocal read, is_too_large
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                is_too_large = True
                raise _TooLargeError
            return message

        async def sending(message: Message) -> None:
            nonlocal has_begun
            if not is_too_large:  # else what the app makes of the break is not sent
                has_begun = True
                await send(message)

        with contextlib.suppress(_TooLargeError):
            await self._app(scope, counting, sending)
        if is_too_large and not has_begun:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        megabytes = self._max_bytes / 1_000_000
        error = ApiError(
            413,
            f"The request is larger than {megabytes:g} MB: send less, or images by their address.",
            code="request_too_large",
            headers={"Connection": "close"},
        )
        await JSONResponse(error.body, error.status, error.headers)(scope, receive, send)


class _TooLargeError(Exception):
    """A body was larger than it may be."""
