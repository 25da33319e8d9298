"""The table of docs/limits.md: how many requests there are at once, for plain models and mixes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough

from langchain_automix import AutoMixRunnable, SelfVerifier, ThresholdRouter
from tests.support.builders.scripted_replies import answering
from tests.support.servers.openai_server import OpenAIServer

N = 2
CONFIG: Any = {"max_concurrency": N}
QUESTIONS = [f"Where was ship {i} built?" for i in range(6)]

Case = tuple[Callable[[Any], Any], str, Any, int, int]
CASES: dict[str, Case] = {
    "batch": (lambda m: m, "batch", QUESTIONS, N, N),
    "a step": (lambda m: RunnableLambda(str) | m, "batch", QUESTIONS, N, N),
    "with_fallbacks": (lambda m: m.with_fallbacks([m]), "batch", QUESTIONS, N, N),
    "with_retry": (lambda m: m.with_retry(), "batch", QUESTIONS, N, N),
    "with_config": (lambda m: m.with_config(tags=["x"]), "batch", QUESTIONS, N, N),
    "invoke": (lambda m: m, "invoke", "Where?", 1, N),
    "map": (lambda m: m.map(), "invoke", QUESTIONS, N, N),
    "map in a batch": (lambda m: m.map(), "batch", [QUESTIONS] * 3, N * N, N * N),
    "RunnableParallel": (lambda m: RunnableParallel(a=m, b=m), "invoke", "Where?", N, N * N),
    "RunnableParallel in a batch": (
        lambda m: RunnableParallel(a=m, b=m),
        "batch",
        QUESTIONS,
        N * N,
        N * N * N,
    ),
    "assign in a batch": (
        lambda m: RunnablePassthrough.assign(a=RunnableLambda(lambda d: d["q"]) | m),
        "batch",
        [{"q": question} for question in QUESTIONS],
        N,
        N * N,
    ),
}


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_no_more_than_the_table_says(server: OpenAIServer, case: Case, how: str) -> None:
    wrap, method, given, plain, mixed = case
    server.script = answering("a small answer", "a large answer", verdicts="r")
    server.delay = 0.02
    models = server.model("small"), server.model("large")
    mix = AutoMixRunnable.from_models(
        *models,
        verifier=SelfVerifier(samples=3, sampling="parallel"),
        router=ThresholdRouter(),
    )
    for runnable, most in ((models[0], plain), (mix, mixed)):
        server.most_at_once = 0
        wrapped = wrap(runnable)
        if how == "sync":
            await asyncio.to_thread(getattr(wrapped, method), given, CONFIG)
        else:
            await getattr(wrapped, f"a{method}")(given, CONFIG)
        assert 0 < server.most_at_once <= most
