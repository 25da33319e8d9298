"""How much is asked at once: the size of a request, and the number of queries."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_automix.serve.errors import SERVER_ERROR, ApiError
from langchain_automix.serve.keys import KEYS_VARIABLE
from langchain_automix.serve.settings import is_loopback

OVERLOADED = "overloaded"


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
                code=OVERLOADED,
                headers={"Retry-After": "1"},
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class LoopbackHosts:
    """ASGI middleware that answers only where it is asked for by an address of this machine.

    A web page can have its own name lead to 127.0.0.1, and ask a server there as its own.

    Args:
        app: What is asked.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            if not is_loopback(_name_of(host)):
                await _refuse(_OTHER_HOST, scope, receive, send)
                return
        await self._app(scope, receive, send)


def _name_of(host: str) -> str:
    """Return the name in a header `Host`, without its port; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class BodyLimit:
    """ASGI middleware that stops to read a body once it is too large, or takes too long.

    Args:
        app: What is asked.
        max_bytes: Largest body, in bytes.
        timeout: Seconds that a body may take.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout: float) -> None:
        self._app, self._max_bytes, self._timeout = app, max_bytes, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await _refuse(self._too_large(), scope, receive, send)
            return
        body = _Body(receive, send, self._max_bytes, self._timeout)
        with contextlib.suppress(_BrokenOffError):
            await self._app(scope, body.receive, body.send)
        if body.broken_off is not None and not body.is_answered:
            error = self._too_large() if body.broken_off == "large" else _TOO_SLOW
            await _refuse(error, scope, receive, send)

    def _too_large(self) -> ApiError:
        megabytes = self._max_bytes / 1_000_000
        return ApiError(
            413,
            f"The request is larger than {megabytes:g} MB: send less, or images by their address.",
            code="request_too_large",
        )


_OTHER_HOST = ApiError(
    403,
    "Without keys, this server answers this machine only, by an address such as 127.0.0.1. Set "
    f"{KEYS_VARIABLE} to be asked by another name.",
    code="host_not_allowed",
)
_TOO_SLOW = ApiError(408, "The body did not come in time.", code="request_timeout")


class _Body:
    """Reads one body, and keeps back what an app makes of one that is broken off."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int, timeout: float) -> None:
        self._receive, self._send = receive, send
        self._left = max_bytes
        self._deadline = asyncio.get_running_loop().time() + timeout
        self._is_read = False
        self.is_answered = False
        self.broken_off: Literal["large", "slow"] | None = None

    async def receive(self) -> Message:
        if self._is_read:  # what comes now is that the client goes away
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            self.broken_off = "slow"
            raise _BrokenOffError from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.broken_off = "large"
            raise _BrokenOffError
        self._is_read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self.broken_off is None:
            self.is_answered = True
            await self._send(message)


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"Connection": "close"}
    await JSONResponse(error.body, error.status, headers)(scope, receive, send)


class _BrokenOffError(Exception):
    """A body was too large, or came too slowly."""
