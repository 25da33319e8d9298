"""What a trace of the mix costs, beside one of the same calls by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import langsmith
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import Runnable

from tests.benchmarks.by_hand import Instant, chain, function
from tests.benchmarks.surface import (
    EASY_QUESTION,
    HARD_QUESTION,
    Row,
    Work,
    mix_of,
    quietly,
    timed,
)


class Calls(BaseCallbackHandler):
    """Counts the calls of models."""

    def __init__(self) -> None:
        self.count = 0

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.count += 1


def calls_of(runnable: Runnable[Any, Any], question: str) -> int:
    """Return how often one query calls a model."""
    calls = Calls()
    runnable.invoke(question, {"callbacks": [calls]})
    return calls.count


def ways(runnable: Runnable[Any, Any], question: str, size: int) -> dict[str, Work]:
    """Return the ways to call a runnable `size` times."""

    async def invoke() -> None:
        for _ in range(size):
            runnable.invoke(question)

    async def ainvoke() -> None:
        for _ in range(size):
            await runnable.ainvoke(question)

    async def batch() -> None:
        runnable.batch([question] * size)

    async def abatch() -> None:
        await runnable.abatch([question] * size)

    return {"invoke": invoke, "ainvoke": ainvoke, "batch": batch, "abatch": abatch}


class Dropping(langsmith.Client):
    """LangSmith's own client, which makes and packs all that it would send, and drops it."""

    def _send_multipart_req(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _send_compressed_multipart_req(self, *args: Any, **kwargs: Any) -> None:
        pass


def client() -> langsmith.Client:
    """Return a client that asks nothing and sends nothing."""
    flags = {"zstd_compression_enabled": True}
    return Dropping(api_url="http://127.0.0.1:9", api_key="none", info={"instance_flags": flags})


def traced(work: Work, to: langsmith.Client) -> Work:
    """Return the same work under tracing, its sending done with."""

    async def run() -> None:
        with langsmith.tracing_context(enabled=True, client=to, project_name="benchmark"):
            await work()
        to.flush()

    return run


def rows(size: int = 20, rounds: int = 9) -> Iterator[Row]:
    """Yield what tracing makes of each one's processor time, and the mix's by the others'."""
    small, large = Instant(name_of_model="small"), Instant(name_of_model="large")
    to = client()
    kinds = {"mix": mix_of(small, large), "chain": chain(small, large, self_check=True)}
    kinds["function"] = function(small, large, self_check=True)
    with quietly():
        for question, end in ((EASY_QUESTION, "accepted"), (HARD_QUESTION, "escalated")):
            assert len({calls_of(each, question) for each in kinds.values()}) == 1
            for way in ("invoke", "ainvoke", "abatch"):
                works: dict[str, Work] = {}
                for kind, runnable in kinds.items():
                    works[kind] = ways(runnable, question, size)[way]
                    works[f"{kind}, traced"] = traced(works[kind], to)
                yield f"{way} x {size}, {end}", *_ratios(works, rounds, list(kinds))
    to.close()


def _ratios(works: dict[str, Work], rounds: int, kinds: list[str]) -> list[str]:
    """Return each one's time traced by untraced, then the mix's ratio by those of the others."""
    taken = asyncio.run(timed(works, rounds, time.process_time))
    times = {
        kind: [a / b for a, b in zip(taken[f"{kind}, traced"], taken[kind], strict=True)]
        for kind in kinds
    }
    own, *others = kinds
    by_others = [
        median(a / b for a, b in zip(times[own], times[each], strict=True)) for each in others
    ]
    return [f"{found:.2f}" for found in (*(median(times[kind]) for kind in kinds), *by_others)]


def table(rounds: int = 9) -> tuple[Row, list[Row]]:
    """Return the table: its heads and its rows."""
    heads = ("time traced / untraced", "mix", "plain LCEL", "one function")
    return (*heads, "mix / LCEL", "mix / function"), list(rows(rounds=rounds))
