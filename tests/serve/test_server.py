"""The server of `automix serve`, as far as it is ours."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import httpx
import uvicorn

from langchain_automix.serve.app import create_app
from langchain_automix.serve.server import ConnectionCloser, GracefulServer
from tests.support.builders.mixes import ACCEPTS
from tests.support.builders.waiting import LONG
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, address, chat_mix, serving


async def test_what_is_loaded_by_the_start_is_collected_no_more(server: OpenAIServer) -> None:
    frozen: list[int] = []
    app = create_app({MIX: chat_mix(server)})
    config = uvicorn.Config(app, port=0, log_level="error")
    running = GracefulServer(config, app, lambda: frozen.append(gc.get_freeze_count()))
    config.load()
    running.lifespan = config.lifespan_class(config)
    try:
        await running.startup()
        await running.shutdown()
    finally:
        gc.unfreeze()  # this process goes on
    assert frozen[0] > 100_000


async def test_models_without_an_asynchronous_way_hold_up_no_other(server: OpenAIServer) -> None:
    app = create_app({MIX: chat_mix(server)})
    config = uvicorn.Config(app, port=0, log_level="error")
    running = GracefulServer(config, app, lambda: None)
    config.load()
    running.lifespan = config.lifespan_class(config)
    together = threading.Barrier(64)
    try:
        await running.startup()
        waits = [asyncio.to_thread(together.wait, LONG) for _ in range(together.parties)]
        assert len(await asyncio.gather(*waits)) == together.parties
        await running.shutdown()
    finally:
        gc.unfreeze()


def test_clients_close_their_connections_once_it_is_to_stop(server: OpenAIServer) -> None:
    app = create_app({MIX: chat_mix(server, verifier=ACCEPTS)})
    closing: Any = ConnectionCloser(app)
    asked = {"model": MIX, "messages": [{"role": "user", "content": "Who?"}]}
    with serving(closing) as running, httpx.Client(trust_env=False) as client:
        found = []
        for stops in (False, True):
            app.state.automix.is_draining = stops
            for stream in (False, True):
                body = {**asked, "stream": stream}
                response = client.post(f"{address(running)}/chat/completions", json=body)
                assert response.status_code == 200
                found.append(response.headers.get("connection"))
    assert found == [None, None, "close", "close"]
