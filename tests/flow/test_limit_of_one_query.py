"""`max_concurrency` holds for all that one query does at once, however its checks are nested."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from langchain_automix import (
    AutoMixRunnable,
    ChatAutoMix,
    CircuitBreaker,
    CombinedVerifier,
    SelfVerifier,
    ThresholdRouter,
)
from tests.support.builders.scripted_replies import Body, answering, is_check
from tests.support.builders.waiting import until_together
from tests.support.servers.openai_server import OpenAIServer


class Together:
    """Holds each check until so many wait, or for a moment: they would be at work at once."""

    def __init__(self, parties: int) -> None:
        self._barrier = threading.Barrier(parties)

    def __call__(self, body: Body) -> float:
        if is_check(body):
            try:
                self._barrier.wait(0.3)
            except threading.BrokenBarrierError:
                self._barrier.reset()
        return 0.0


def combined(**fields: Any) -> CombinedVerifier:
    checks = {
        "one": SelfVerifier(samples=3, sampling="parallel"),
        "two": SelfVerifier(samples=3, sampling="parallel", layout="zero_shot"),
    }
    return CombinedVerifier(checks=checks, **fields)


@pytest.mark.parametrize("cap", [1, 2, 3])
@pytest.mark.parametrize("kind", ["combined", "breaker", "a mix in a mix", "a chat mix in a mix"])
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_combined_checks_and_nested_mixes(
    server: OpenAIServer, how: str, kind: str, cap: int
) -> None:
    server.script = answering("a small answer", "a large answer", "a third answer", verdicts="r")
    server.delay = Together(cap + 1)
    models: list[Any] = [server.model("small"), server.model("large")]
    fields: dict[str, Any] = {"router": ThresholdRouter(), "verifier": combined()}
    if kind == "breaker":
        fields["circuit_breaker"] = CircuitBreaker()
    mix: Any = AutoMixRunnable(models=models, **fields)
    if kind == "a mix in a mix":
        mix = AutoMixRunnable(models=[mix, server.model("third")], **fields)
    if kind == "a chat mix in a mix":
        inner = ChatAutoMix(models=models, **fields)
        mix = AutoMixRunnable(models=[inner, server.model("third")], **fields)
    config: Any = {"max_concurrency": cap}
    _ = mix.invoke("Where?", config) if how == "invoke" else await mix.ainvoke("Where?", config)
    assert len(server.checks) >= 3
    assert server.most_at_once <= cap


@pytest.mark.parametrize("how", ["stream", "astream"])
async def test_what_is_asked_before_a_stream(server: OpenAIServer, how: str) -> None:
    server.script = answering("a small answer", "a large answer", verdicts="r")
    server.delay = until_together(server, 2, is_check)
    models: list[Any] = [server.model("small"), server.model("large")]
    mix = AutoMixRunnable(models=models, router=ThresholdRouter(), verifier=combined())
    config: Any = {"max_concurrency": 2}
    if how == "stream":
        texts = [chunk.text for chunk in mix.stream("Where?", config)]
    else:
        texts = [chunk.text async for chunk in mix.astream("Where?", config)]
    assert "".join(texts) == "a large answer"
    assert (len(server.checks), server.most_at_once) == (3, 2)
