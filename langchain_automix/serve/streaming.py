"""`QueryResponse`: carries a query out while its client waits, as a body or as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from langchain_automix.serve.chat_response import headers_of
from langchain_automix.serve.errors import SERVER_ERROR, ApiError, to_api_error
from langchain_automix.serve.limits import Slots
from langchain_automix.serve.observing import Observers
from langchain_automix.serve.query import ChatQuery

_DONE = b"data: [DONE]\n\n"
EVENTS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # else nginx keeps the events until it has many
}
"""Headers of a stream of server-sent events."""


class QueryResponse(Response):
    """Carries a query out while its client waits, and cancels it when the client goes away.

    The headers of a stream wait for its first chunk: a query that fails before that has the status
    of its error, and one whose answer comes whole has all headers.

    Args:
        query: The query.
        observers: Are told of its end.
        slots: Counts the queries under way.
        timeout: Seconds that it may take.
    """

    def __init__(
        self, query: ChatQuery, observers: Observers, slots: Slots, timeout: float
    ) -> None:
        super().__init__()
        self._query, self._observers, self._slots = query, observers, slots
        self._timeout = timeout
        self._error: ApiError | None = None
        self._has_begun = self._is_stream = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless the client goes away before that."""
        is_cancelled = False

        async def noting(message: Message) -> None:
            self._has_begun = True
            await send(message)

        try:
            is_cancelled = not await self._unless_left(scope, receive, noting)
        except asyncio.CancelledError:  # the server stops, and waits no longer
            await self._fail(_stopping(), scope, receive, noting)
            raise
        finally:
            self._observers.tell(self._query.ended(self._error, is_cancelled=is_cancelled))

    async def _unless_left(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Respond; return whether the client has waited for the end."""
        work = asyncio.create_task(self._respond(scope, receive, send))
        left = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return False
            await work  # what it raised
            return True
        finally:
            for task in (work, left):
                task.cancel()
            await asyncio.gather(work, left, return_exceptions=True)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._slots.taking():
                async with asyncio.timeout(self._timeout):
                    if self._query.request.stream:
                        await self._stream(send)
                        return
                    answer = await self._query.answer()
        except Exception as error:  # noqa: BLE001  (of any kind: the client is told)
            await self._fail(to_api_error(error), scope, receive, send)
            return
        body = self._query.completion.body(answer)
        headers = self._own_headers(answer.record)
        whole = Response(_json(body), 200, headers, media_type="application/json")
        await whole(scope, receive, send)

    async def _stream(self, send: Send) -> None:
        async with contextlib.aclosing(self._query.chunks()) as chunks:
            async for chunk in chunks:
                if not self._is_stream:
                    await self._begin(send, self._own_headers(self._query.record))
                await _send(send, to_event(chunk))
        await _send(send, _DONE, more=False)

    async def _begin(self, send: Send, headers: Mapping[str, str]) -> None:
        raw = [(name.encode(), value.encode()) for name, value in {**EVENTS, **headers}.items()]
        self._is_stream = True
        await send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _fail(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell the client of an error: by the status, or in the stream that has begun."""
        self._error = error
        if self._is_stream:
            await _send(send, to_event(error.body), more=False)
        if self._has_begun:
            return
        headers = {**self._own_headers(None), **error.headers}
        await JSONResponse(error.body, error.status, headers)(scope, receive, send)

    def _own_headers(self, record: Mapping[str, Any] | None) -> dict[str, str]:
        return {"x-request-id": self._query.completion.id, **headers_of(record)}


def _stopping() -> ApiError:
    text = "The server stops: ask again, and another one may answer."
    return ApiError(503, text, type=SERVER_ERROR, code="server_stopping")


async def _disconnected(receive: Receive) -> None:
    """Wait until the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


def to_event(data: Any, *, name: str | None = None, id: str | None = None) -> bytes:
    """Return a server-sent event.

    Args:
        data: What it holds, as JSON.
        name: Its kind; None: OpenAI's, which have none.
        id: By which a client says which one it had last.
    """
    head = "".join(f"{k}: {v}\n" for k, v in (("id", id), ("event", name)) if v is not None)
    return b"%sdata: %s\n\n" % (head.encode(), _json(data))


def _json(data: Any) -> bytes:
    # A model that is cut short may leave half of a surrogate pair.
    return json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")
