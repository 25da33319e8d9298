"""What a calibration adds to its models' calls, and what memory it takes."""

from __future__ import annotations

import gc
import http.client
import json
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from langchain_automix import SelfVerifier, calibrate
from langchain_automix.calibration.budget import Progress
from langchain_automix.calibration.calibrate import run_calibration
from langchain_automix.calibration.settings import CalibrationSettings
from langchain_automix.verifiers.inputs import CheckContext
from langchain_automix.verifiers.prompting.messages import check_messages
from tests.benchmarks.answering import running
from tests.benchmarks.by_hand import Instant

LATENCY = 0.02
CONCURRENCY = 64
EXAMPLES = 1_000
PRICES = {name: {"input": 1.0, "output": 2.0} for name in ("small", "large")}
Row = tuple[str, ...]


def throughput(rounds: int = 3) -> tuple[tuple[str, ...], list[Row]]:
    """Return calls a second: what the provider serves, what bare models ask, what we ask."""
    with running(LATENCY) as address:
        url = f"{address}/v1"
        small, large = _model("small", url), _model("large", url)
        works: dict[str, Callable[[], None]] = {
            "provider, asked by bare sockets": lambda: _by_sockets(url),
            "bare ChatOpenAI, batch": lambda: _bare(small, large),
            "calibrate": lambda: _calibrated([small, large]),
        }
        best: dict[str, float] = {}
        for _ in range(rounds):
            for name, work in works.items():
                start = time.perf_counter()
                work()
                rate = 3 * EXAMPLES / (time.perf_counter() - start)
                best[name] = max(best.get(name, 0.0), rate)
    bare = best["bare ChatOpenAI, batch"]
    allowed = CONCURRENCY / LATENCY
    heads = ("who asks", "calls a second", "of bare ChatOpenAI", f"of {allowed:.0f} in theory")
    rows: list[Row] = [
        (name, f"{rate:.0f}", f"{rate / bare:.2f}", f"{rate / allowed:.2f}")
        for name, rate in best.items()
    ]
    return heads, rows


def memory(examples: int) -> tuple[tuple[str, ...], list[Row]]:
    """Return the memory of this process while it calibrates on so many examples from a file."""
    rows: list[Row] = []

    def listen(progress: Progress) -> None:
        if progress.done * 10 % progress.examples == 0:
            gc.collect()
            now = _megabytes()
            rows.append((f"{progress.done:,}", f"{now:.0f} MB", f"{progress.seconds:.0f} s"))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "examples.jsonl"
        with path.open("w") as file:
            for example in _examples(examples):
                file.write(json.dumps({**example, "context": "A ship's history. " * 60}) + "\n")
        models: list[Any] = [Instant(name_of_model=name) for name in ("small", "large")]
        run_calibration(
            CalibrationSettings(
                path,
                models,
                unit="seconds",
                verifier=SelfVerifier(samples=1),
                concurrency=4,
                out=Path(folder) / "log.jsonl",
                on_progress=listen,
            )
        )
        size = (Path(folder) / "log.jsonl.journal").stat().st_size / 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append(("log written", f"{_megabytes():.0f} MB", f"peak {peak:.0f} MB"))
        rows.append(("journal on disk", f"{size:.0f} MB", ""))
    return ("examples", "memory", "after"), rows


def _examples(number: int) -> Iterator[dict[str, Any]]:
    for i in range(number):
        yield {
            "question": f"Where was ship {i} built?",
            "context": "In Turku.",
            "reference": "small",
        }


def _model(name: str, url: str) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=url, api_key=SecretStr("test"), max_retries=0)


def _calibrated(models: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        calibrate(
            list(_examples(EXAMPLES)),
            models,
            verifier=SelfVerifier(samples=1),
            prices=PRICES,
            concurrency=CONCURRENCY,
            out=Path(folder) / "log.jsonl",
        )


def _bare(small: ChatOpenAI, large: ChatOpenAI) -> None:
    """Ask the same of the bare models: answers and checks."""
    asked = [f"Context: In Turku.\n\nQuestion: {each['question']}" for each in _examples(EXAMPLES)]
    checks = [check_messages(CheckContext(text, context="In Turku."), "small") for text in asked]
    limit: Any = {"max_concurrency": CONCURRENCY}
    for model in (small, large):
        model.batch(list(asked), limit)
    small.batch(list(checks), limit)


def _by_sockets(url: str) -> None:
    parts = urlsplit(url)
    body = json.dumps({"model": "small", "messages": [{"role": "user", "content": "Where?"}]})

    def work() -> None:
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
        for _ in range(3 * EXAMPLES // CONCURRENCY):
            connection.request("POST", f"{parts.path}/chat/completions", body)
            connection.getresponse().read()

    threads = [threading.Thread(target=work) for _ in range(CONCURRENCY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
