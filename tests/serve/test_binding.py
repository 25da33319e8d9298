"""The mixes that are kept with the settings of requests."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from langchain_automix.serve.binding import BoundMixes
from langchain_automix.serve.chat_request import ChatCompletionRequest
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import chat_mix


def asking(text: str) -> ChatCompletionRequest:
    """A request with a tool whose description is a text."""
    tool = {"type": "function", "function": {"name": "look_up", "description": text}}
    messages: list[Any] = [{"role": "user", "content": "Who?"}]
    return ChatCompletionRequest.model_validate(
        {"model": "mix", "messages": messages, "tools": [tool]}
    )


async def test_the_same_tools_are_bound_once(server: OpenAIServer) -> None:
    mixes = BoundMixes(chat_mix(server))
    first = await mixes.bind(asking("Looks it up."))
    assert (await mixes.bind(asking("Looks it up."))).bound is first.bound
    assert (await mixes.bind(asking("Finds it."))).bound is not first.bound


async def test_what_clients_send_is_kept_only_up_to_a_size(server: OpenAIServer) -> None:
    mixes = BoundMixes(chat_mix(server))
    small = await mixes.bind(asking("Looks it up."))
    made = [weakref.ref((await mixes.bind(asking(f"{n} " * 1_000_000))).bound) for n in range(9)]
    gc.collect()
    assert sum(each() is not None for each in made) <= 1  # the last one, which a variable may hold
    assert (await mixes.bind(asking("Looks it up."))).bound is small.bound
