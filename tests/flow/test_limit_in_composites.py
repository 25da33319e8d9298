"""The table of docs/limits.md: how many requests there are at once, for plain models and mixes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough

from langchain_automix import (
    AutoMixRunnable,
    ChatAutoMix,
    CombinedVerifier,
    SelfVerifier,
    ThresholdRouter,
)
from langchain_automix.flow.deadline import start_work
from tests.support.builders.scripted_replies import answering
from tests.support.builders.waiting import LONG
from tests.support.servers.openai_server import OpenAIServer

N = 2
CONFIG: Any = {"max_concurrency": N}
QUESTIONS = [f"Where was ship {i} built?" for i in range(4)]
WORDS = RunnableLambda(str)


def both(model: Any) -> Any:
    return RunnableParallel(a=model, b=model)


def assigned(model: Any) -> Any:
    return RunnablePassthrough.assign(a=RunnableLambda(lambda d: d["q"]) | model)


def called(model: Any) -> Any:
    """A function of the user's that calls the model, sync or async."""

    def call(question: str) -> Any:
        return model.invoke(question)

    async def acall(question: str) -> Any:
        return await model.ainvoke(question)

    return RunnableLambda(call, acall)


Case = tuple[Callable[[Any], Any], str, Any, int, int]
CASES: dict[str, Case] = {
    "batch": (lambda m: m, "batch", QUESTIONS, N, N),
    "a step": (lambda m: WORDS | m, "batch", QUESTIONS, N, N),
    "with_fallbacks": (lambda m: m.with_fallbacks([m]), "batch", QUESTIONS, N, N),
    "with_retry": (lambda m: m.with_retry(), "batch", QUESTIONS, N, N),
    "with_config": (lambda m: m.with_config(tags=["x"]), "batch", QUESTIONS, N, N),
    "invoke": (lambda m: m, "invoke", "Where?", 1, N),
    "invoke of a chain": (lambda m: WORDS | m, "invoke", "Where?", 1, 1),
    "map": (lambda m: m.map(), "invoke", QUESTIONS, N, N),
    "map in a batch": (lambda m: m.map(), "batch", [QUESTIONS] * 2, N * N, N * N),
    "RunnableParallel": (both, "invoke", "Where?", N, N),
    "RunnableParallel in a batch": (both, "batch", QUESTIONS, N * N, N * N),
    "assign": (assigned, "invoke", {"q": "Where?"}, 1, 1),
    "assign in a batch": (assigned, "batch", [{"q": q} for q in QUESTIONS], N, N),
    "three deep": (lambda m: both(WORDS | both(both(m))), "invoke", "Where?", N**3, N**3),
    "a function in a batch": (called, "batch", QUESTIONS, N, N),
    "a function in parallel": (lambda m: both(WORDS | called(m)), "invoke", "Where?", N, N),
    "as completed": (lambda m: m, "batch_as_completed", QUESTIONS, N, N),
    "as completed, bound": (lambda m: m.bind(stop=["x"]), "batch_as_completed", QUESTIONS, N, N),
    "a chain as completed": (lambda m: WORDS | m, "batch_as_completed", QUESTIONS, N, N),
    "parallel as completed": (both, "batch_as_completed", QUESTIONS, N * N, N * N),
}


def checks(server: OpenAIServer) -> CombinedVerifier:
    """Two checks side by side, of three samples each."""
    one = SelfVerifier(model=server.model("small"), samples=3, sampling="parallel")
    two = one.model_copy(update={"layout": "zero_shot"})
    return CombinedVerifier(checks={"one": one, "two": two})


def plain_model(server: OpenAIServer) -> Any:
    return server.model("small")


def mixed(server: OpenAIServer, kind: Any = AutoMixRunnable, first: Any = None) -> Any:
    models = [first or server.model("small"), server.model("large")]
    return kind(models=models, verifier=checks(server), router=ThresholdRouter())


def a_chat_model(server: OpenAIServer) -> Any:
    return mixed(server, ChatAutoMix)


def nested(server: OpenAIServer) -> Any:
    """A mix in a mix in a mix."""
    return mixed(server, first=mixed(server, ChatAutoMix, first=mixed(server)))


async def outcome(how: str, runnable: Any, method: str, given: Any) -> Any:
    """Call a method, in a thread that keeps nothing alive should it wait for ever."""
    if how == "async":
        made = getattr(runnable, f"a{method}")(given, CONFIG)
        if method == "batch_as_completed":
            return [each async for each in made]
        return await made

    def run() -> Any:
        made = getattr(runnable, method)(given, CONFIG)
        return list(made) if method == "batch_as_completed" else made

    return await asyncio.wrap_future(start_work(run))


RUNS = [(kind, case) for kind in (plain_model, mixed, a_chat_model) for case in CASES] + [
    (nested, case) for case in CASES if any(word in case for word in ("arallel", "deep", "compl"))
]


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize(("kind", "case"), RUNS)
async def test_no_more_than_the_table_says(
    server: OpenAIServer, kind: Callable[[OpenAIServer], Any], case: str, how: str
) -> None:
    wrap, method, given, plain, of_mix = CASES[case]
    server.script = answering("a small answer", "a large answer", verdicts="r")
    server.delay = 0.01
    async with asyncio.timeout(LONG):
        found = await outcome(how, wrap(kind(server)), method, given)
    most = plain if kind is plain_model else of_mix
    assert 0 < server.most_at_once <= most
    if method == "batch_as_completed":
        assert sorted(place for place, _ in found) == list(range(len(given)))
