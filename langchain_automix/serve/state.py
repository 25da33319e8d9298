"""`ServeState`: what the requests of one app share, and the key of a request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from langchain_automix.serve.errors import ApiError
from langchain_automix.serve.keys import ApiKey, Keyring
from langchain_automix.serve.limits import Slots
from langchain_automix.serve.live import LiveView
from langchain_automix.serve.metrics import Metrics
from langchain_automix.serve.mixes import Mixes
from langchain_automix.serve.observing import Observers, ServedQuery
from langchain_automix.serve.own_threads import OwnThreads
from langchain_automix.serve.settings import ServeSettings

_WATCH_SECONDS = 1.0
_STORE_THREADS = 8
_BEARER = HTTPBearer(auto_error=False, description="One of the server's keys, where it has any.")


@dataclass
class ServeState:
    """What the requests of one app share; `app.state.automix`."""

    mixes: Mixes
    settings: ServeSettings
    observers: Observers = field(default_factory=Observers)
    keyring: Keyring = field(init=False)
    slots: Slots = field(init=False)
    live: LiveView = field(init=False)
    metrics: Metrics = field(init=False)
    store_threads: OwnThreads = field(default_factory=lambda: OwnThreads(_STORE_THREADS))
    is_draining: bool = False
    """Whether the server is about to stop, and load balancers should look elsewhere."""

    _watch: asyncio.Task[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.keyring = Keyring(self.settings.keys)
        self.slots = Slots(self.settings.max_concurrent)
        self.live = LiveView(self.mixes, self.slots, self.observers)
        self.metrics = Metrics(self.mixes, self.slots, self.observers, self.live.learning)
        self.observers.add(self._note)

    @property
    def is_ready(self) -> bool:
        """Whether queries are answered."""
        return self._watch is not None and not self.is_draining

    def start(self) -> None:
        """Look after the policies from now on, if that is not done yet."""
        if self._watch is None:
            self._watch = asyncio.create_task(self.mixes.watch(_WATCH_SECONDS))

    async def stop(self) -> None:
        """Stop to look after the policies, once the observers were told of every query."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        await asyncio.to_thread(self.observers.close)

    def _note(self, query: ServedQuery) -> None:
        self.metrics.observe(query)
        self.live.observe(query)


async def serve_state(request: Request) -> ServeState:
    """Return what the requests of the app share."""
    state: ServeState = request.app.state.automix
    state.start()  # an app that is mounted in another one is not told when that starts
    return state


State = Annotated[ServeState, Depends(serve_state)]


async def client_key(
    request: Request,
    state: State,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
) -> ApiKey | None:
    """Return the key of a request; None where none are set.

    Raises:
        ApiError: The key is missing, or not known.
    """
    try:
        return state.keyring.find(request.headers.get("authorization"))
    except ApiError:
        state.metrics.refuse("key")
        raise


Key = Annotated[ApiKey | None, Depends(client_key)]
