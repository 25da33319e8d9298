"""Mixes that learn, on a server: made, asked, and what their store then holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from langchain_automix import AutoMixRunnable, Learning, POMDPRouter, SelfVerifier
from langchain_automix.learning.records import PolicyVersion, StoredQuery
from langchain_automix.learning.store.store import LearningStore
from tests.support.builders.synthetic_logs import world
from tests.support.servers.openai_server import OpenAIServer

PRICES = {"small": {"input": 1, "output": 2}, "large": {"input": 10, "output": 20}}
WAYS = ("invoke", "ainvoke", "batch", "abatch", "stream", "astream")
POLICY = POMDPRouter.fit(world(400, k=2), cost_weight=0.05).policy.model_dump_json(by_alias=True)

Make = Callable[..., Learning]


def learns(server: OpenAIServer, learning: Learning, **fields: Any) -> AutoMixRunnable:
    """Return a mix whose models tell their tokens in streams, too: without costs, none learns."""
    models = [server.model(name, stream_usage=True) for name in PRICES]
    fields = {"verifier": SelfVerifier(samples=2), "prices": PRICES, "router": 0.5, **fields}
    return AutoMixRunnable.from_models(*models, learning=learning, **fields)


def rows(automix: Any) -> list[StoredQuery]:
    learning: Learning = automix.learning
    assert learning.flush()
    epochs = list(learning._epochs)
    return [row for epoch in epochs for row in learning.store.get().read(epoch)[0]]


def promote(automix: AutoMixRunnable, policy: str = POLICY) -> int:
    """Have a version decide, as another process does."""
    learning: Any = automix.learning
    store: LearningStore = learning.store.get()
    version = PolicyVersion(0, automix.mix_config.epoch, time.time(), policy, "challenger", "Try.")
    number = store.add_version(version)
    store.promote(number, "It is proven.")
    return number


def billed(server: OpenAIServer) -> float:
    micros = 0
    for bill in server.billed:
        prices = PRICES[bill["model"]]
        micros += prices["input"] * int(bill["prompt_tokens"])
        micros += prices["output"] * int(bill["completion_tokens"])
    return micros / 1e6


_RUNNER = asyncio.Runner()  # one event loop, as clients keep to theirs
run = _RUNNER.run


def ask(automix: Any, way: str, asked: Any = "Where?") -> Any:
    match way:
        case "invoke":
            return automix.invoke(asked)
        case "batch":
            return automix.batch([asked])[0]
        case "stream":
            return _sum(list(automix.stream(asked)))
    return run(_aask(automix, way, asked))


async def _aask(automix: Any, way: str, asked: Any) -> Any:
    if way == "ainvoke":
        return await automix.ainvoke(asked)
    if way == "abatch":
        return (await automix.abatch([asked]))[0]
    return _sum([chunk async for chunk in automix.astream(asked)])


def _sum(chunks: list[Any]) -> Any:
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total
