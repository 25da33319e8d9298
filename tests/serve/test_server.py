"""The server of `automix serve`, as far as it is ours."""

from __future__ import annotations

import gc

import uvicorn

from langchain_automix.serve.app import create_app
from langchain_automix.serve.server import GracefulServer
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, chat_mix


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
