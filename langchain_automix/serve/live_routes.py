"""The routes of whoever watches an app: the live page, its events, and metrics for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
from functools import cache
from typing import Annotated

from fastapi import FastAPI, Header, Query, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from langchain_automix.report.html.assets import asset
from langchain_automix.serve.live import KEPT
from langchain_automix.serve.state import Key, ServeState, State, client_key
from langchain_automix.serve.streaming import EVENTS

_PAGE = "langchain_automix.serve.page"
_STYLES = ("page.css", "timeline.css")
_SCRIPTS = ("base.js", "axes.js")
_OWN_SCRIPTS = ("stream.js", "figures.js", "live.js")

_PAGE_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_METRICS_SECONDS = 2.0
"""How long metrics wait for what is read from learning stores."""


def add_live_routes(app: FastAPI) -> None:
    """Add the live page, `/v1/events` and `/metrics` to an app."""
    for path, show in (("/", page), ("/live/page.css", style), ("/live/page.js", script)):
        app.get(path, include_in_schema=False)(show)
    app.get("/v1/events", include_in_schema=False)(watch)  # which never ends
    app.get("/metrics", include_in_schema=False)(metrics)


async def page() -> Response:
    """Return the live page: a shell that holds nothing of the app, and asks for a key."""
    return Response(asset("index.html", _PAGE), media_type="text/html", headers=_PAGE_HEADERS)


async def style() -> Response:
    """Return the style of the live page: that of the reports, and its own."""
    return Response(_joined(_STYLES, ("live.css",)), media_type="text/css", headers=_PAGE_HEADERS)


async def script() -> Response:
    """Return the script of the live page: what it shares with the reports, and its own."""
    text = _joined(_SCRIPTS, _OWN_SCRIPTS)
    return Response(text, media_type="text/javascript", headers=_PAGE_HEADERS)


async def watch(
    state: State,
    _: Key,
    last: Annotated[int, Query(ge=0, le=KEPT)] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Tell ended queries and the state of the app as server-sent events, until it stops.

    `last` says how many earlier queries are told first; a header `Last-Event-ID` goes before that.
    """
    return EventStream(state, state.live.position(last_event_id, last))


async def metrics(request: Request, state: State) -> Response:
    """Return the metrics for Prometheus; with a key where there are any, unless they are open."""
    if not state.settings.metrics_open:
        await client_key(request, state, None)
    if (reading := state.live.learning.refresh()) is not None:
        await asyncio.wait({reading}, timeout=_METRICS_SECONDS)
    body, content_type = state.metrics.expose(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})


class EventStream(Response):
    """A stream of events, and a place among the watchers as long as it goes on.

    Args:
        state: What the requests of the app share.
        position: Number of the event that the watcher had last.
    """

    def __init__(self, state: ServeState, position: int) -> None:
        super().__init__()
        self._state, self._position = state, position

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the app stops, or the watcher goes away.

        Raises:
            ApiError: Too many watch.
        """
        state = self._state
        with state.live.watching() as woken:
            events = state.live.stream(woken, self._position, lambda: state.is_draining)
            async with contextlib.aclosing(events):
                await StreamingResponse(events, headers=EVENTS)(scope, receive, send)


@cache
def _joined(shared: tuple[str, ...], own: tuple[str, ...]) -> str:
    return "\n".join([*map(asset, shared), *(asset(name, _PAGE) for name in own)])
