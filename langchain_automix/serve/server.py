"""Runs an app by uvicorn until it is told to stop, and lets queries under way end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.serve.app import state_of

_IDLE_SECONDS = 75
"""An idle connection is kept for longer than by usual clients and proxies (60 seconds): where the
server closes it first, a request may be on its way."""

_MOST_THREADS = 256
"""Threads at most for models and checks without an asynchronous way: asyncio's own few would keep
all other queries waiting. A thread is started only when none is idle."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_server(app: FastAPI, host: str, port: int, on_start: Callable[[str], None]) -> None:
    """Serve an app until a signal (SIGTERM, Ctrl-C) ends it.

    It then takes no more connections, and gives the queries under way the time `grace` of its
    settings to end. A second Ctrl-C ends it at once.

    Args:
        app: As `create_app` returns it.
        host: Address to listen at.
        port: Port; 0: any that is free.
        on_start: Is told the address of the API once it can be asked.

    Raises:
        AutoMixError: The address cannot be listened at.
    """
    config = uvicorn.Config(
        ConnectionCloser(app),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=math.ceil(state_of(app).settings.grace),
    )
    with contextlib.closing(_listen(host, port)) as listening:
        name, number = listening.getsockname()[:2]
        shown = f"[{name}]" if ":" in name else name
        server = GracefulServer(config, app, lambda: on_start(f"http://{shown}:{number}/v1"))
        asyncio.run(server.serve([listening]))


class ConnectionCloser:
    """ASGI middleware that has clients close their connections once the server is to stop.

    Else one sends its next request on a connection that is closed at the same moment.

    Args:
        app: As `create_app` returns it.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app, self._state = app, state_of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._state.is_draining:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_closing)


class GracefulServer(uvicorn.Server):
    """A server that ends with code 0 when it is told to stop.

    Args:
        config: uvicorn's.
        app: The app that it serves.
        on_start: Is told once it can be asked.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._state, self._on_start = state_of(app), on_start

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            number = min(self._state.settings.max_concurrent, _MOST_THREADS)
            pool = ThreadPoolExecutor(number, thread_name_prefix="automix-models")
            asyncio.get_running_loop().set_default_executor(pool)
            # What is loaded by now stays until the end. Without it, a collection of garbage
            # takes tenths of a second less, in which no query goes on.
            gc.collect()
            gc.freeze()
            self._on_start()

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again at the end, which is no clean exit.
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.stop, number)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Take no more connections, and end once the queries under way have."""
        self._state.is_draining = True
        if self.should_exit and number == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address.

    Raises:
        AutoMixError: That is not possible.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listening = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise AutoMixError(
            f"--host {host} --port {port} cannot be listened at: {error.strerror or error}."
        ) from error
    listening.setblocking(False)
    return listening
