"""What the mix itself costs, beside its models: memory, places in a batch, the first token."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from langchain_automix import AutoMixRunnable, SelfVerifier, ThresholdRouter
from langchain_automix.verifiers.inputs import CheckContext
from langchain_automix.verifiers.prompting.messages import check_messages
from tests.benchmarks.answering import HARD, counted, running
from tests.benchmarks.by_hand import Instant
from tests.support.servers.openai_server import REJECT, OpenAIServer, answering

EASY_QUESTION = "Where was the Halcyon built?"
HARD_QUESTION = f"{EASY_QUESTION} {HARD}"
CAP = 50

Row = tuple[str, ...]
Work = Callable[[], Awaitable[float | None]]


async def timed(
    works: dict[str, Work], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of each work, round by round, in turns so that none has the quiet.

    A work may return the time at which what is measured of it was over.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for i in range(rounds):
        for name, work in list(works.items())[:: 1 - 2 * (i % 2)]:
            start = clock()
            over = await work()
            taken[name].append((clock() if over is None else over) - start)
    return taken


def ratio(taken: dict[str, list[float]], name: str, other: str) -> float:
    """Return the median over rounds of one work's time by another's."""
    return median(a / b for a, b in zip(taken[name], taken[other], strict=True))


@contextmanager
def quietly() -> Iterator[None]:
    """Leave out the warning of a router that is not calibrated, which none here is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def mix_of(small: BaseChatModel, large: BaseChatModel, **fields: Any) -> AutoMixRunnable:
    """Return a mix with one verdict a check."""
    fields = {"router": ThresholdRouter(threshold=0.5), **fields}
    return AutoMixRunnable.from_models(small, large, verifier=SelfVerifier(samples=1), **fields)


def resident() -> float:
    """Return the megabytes that this process holds, after a collection of garbage."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def memory(calls: int) -> Iterator[Row]:
    """Yield what the process holds after a tenth, after half and after all calls."""
    mix = mix_of(Instant(name_of_model="small"), Instant(name_of_model="large"))
    questions = [EASY_QUESTION, HARD_QUESTION]

    async def invoke(n: int) -> None:
        for i in range(n):
            mix.invoke(questions[i % 2])

    async def abatch(n: int) -> None:
        for _ in range(n // 100):
            await mix.abatch(questions * 50)

    async def stream(n: int) -> None:
        for i in range(n):
            async for _ in mix.astream(questions[i % 2]):
                pass

    for work, n in ((invoke, calls), (abatch, calls // 5), (stream, calls // 10)):
        done, found = 0, []
        for stop in (n // 10, n // 2, n):
            asyncio.run(work(stop - done))
            done = stop
            found.append((stop, resident(), len(gc.get_objects())))
        (first, before, objects), _, (last, after, objects_after) = found
        slope = (after - before) * 2**20 / (last - first)
        yield (
            work.__name__,
            ", ".join(f"{held:.1f} MB at {stop:,}" for stop, held, _ in found),
            f"{slope:+.1f}",
            f"{objects_after - objects:+,}",
        )


def allowed(sizes: list[int], pause: float) -> float:
    """Return the seconds that levels of so many calls take at best."""
    return sum(ceil(size / CAP) * pause for size in sizes)


def full(models: Any, name: str, size: int, pause: float, rounds: int) -> Row:
    """Return a batch's time by what the cap allows, and by that of the bare models' batches."""
    small, large = models
    questions = [HARD_QUESTION, *[EASY_QUESTION] * 4] * (size // 5)
    checks = [check_messages(CheckContext(question), "Turku") for question in questions]
    levels: list[tuple[Any, list[Any]]] = [
        (small, questions),
        (small, checks),
        (large, [question for question in questions if HARD in question]),
    ]
    config: RunnableConfig = {"max_concurrency": CAP}
    mix = mix_of(small, large)

    async def mixed() -> None:
        records = [a.response_metadata["automix"] for a in await mix.abatch(questions, config)]
        assert sum(record["escalated"] for record in records) == len(levels[-1][1])

    async def bare() -> None:
        for model, inputs in levels:
            await model.abatch(inputs, config)

    async def measured() -> dict[str, list[float]]:
        await small.abatch(questions[:CAP], config)  # its connections, and what it imports
        return await timed({"mix": mixed, "bare": bare}, rounds)

    taken = asyncio.run(measured())
    ideal = allowed([len(inputs) for _, inputs in levels], pause)
    by_ideal = (f"{median(taken[kind]) / ideal:.2f}" for kind in ("mix", "bare"))
    return name, *by_ideal, f"{ratio(taken, 'mix', 'bare'):.2f}"


def wire_model(address: str, name: str) -> ChatOpenAI:
    """Return a chat model over HTTP."""
    return ChatOpenAI(model=name, base_url=f"{address}/v1", api_key=SecretStr("test"))


def full_batches(size: int, rounds: int) -> Iterator[Row]:
    """Yield batches with a cap: of models that sleep, and of models over HTTP."""
    for pause in (0.05, 0.25):
        sleeping = [Instant(name_of_model=name, sleep=pause) for name in ("small", "large")]
        name = f"{size:,} queries, models that sleep {pause * 1e3:.0f} ms"
        yield *full(sleeping, name, size, pause, rounds), ""
    for pause in (0.05, 0.25):
        with running(pause) as address:
            wired = [wire_model(address, name) for name in ("small", "large")]
            name = f"{size:,} queries, HTTP, answers of {pause * 1e3:.0f} ms"
            row = full(wired, name, size, pause, 1)  # some minutes each
            yield *row, str(counted(address)["most"])


def first_token(pause: float, rounds: int) -> Row:
    """Return the time to an escalated answer's first token, by what must come before it."""
    with OpenAIServer() as server:
        server.script = answering("small says", "large says", verdicts="r")
        server.delay, server.token_delay = pause, pause
        small, large = server.model("small"), server.model("large")
        checker = small.model_copy(update={"temperature": 1.0})
        check: list[BaseMessage] = check_messages(CheckContext(EASY_QUESTION), "small says")
        mix = mix_of(small, large)

        async def first(chunks: Any) -> float:
            came = None
            async for chunk in chunks:
                if chunk.content and came is None:
                    assert chunk.content.startswith("large"), chunk
                    came = time.perf_counter()
            assert came is not None
            return came

        async def mixed() -> float:
            return await first(mix.astream(EASY_QUESTION))

        async def by_hand() -> float:
            await small.ainvoke(EASY_QUESTION)
            assert str((await checker.ainvoke(check)).text) == REJECT
            return await first(large.astream(EASY_QUESTION))

        taken = asyncio.run(timed({"mix": mixed, "by hand": by_hand}, rounds))
    return (
        f"first token, 3 x {pause * 1e3:.0f} ms before it",
        *(f"{median(taken[kind]) / (3 * pause):.2f}" for kind in ("mix", "by hand")),
        f"{ratio(taken, 'mix', 'by hand'):.2f}",
    )


def tables(
    *,
    memory_calls: int = 10_000,
    queries: int = 1_000,
    rounds: int = 2,
    pause: float = 0.2,
) -> Iterator[tuple[Row, list[Row]]]:
    """Yield the tables of all that is measured here: the heads, and the rows."""
    yield ("memory", "held after", "bytes a call", "objects more"), list(memory(memory_calls))
    heads = (f"abatch, at most {CAP} at once; time by", "cap, mix", "cap, bare models")
    yield (*heads, "mix / bare models", "most at once"), list(full_batches(queries, rounds))
    heads = ("astream, escalated; time by", "what comes before", "by hand, the same")
    yield (*heads, "mix / by hand"), [first_token(pause, 2 * rounds)]
