"""Reading, fitting and calibrating on a Ray cluster of this machine, against one process.

Each run is a process of its own, so that its memory is its own. The workers, the provider and the
driver share the cores of this machine: a cluster of many machines has more of them.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langchain_automix import POMDPRouter, RoutingLog, SelfVerifier, calibrate, evaluate
from langchain_automix.utils.formatting import pluralize
from tests.benchmarks.answering import running

SHARDS = 16
LATENCY = 0.02
PRICES = {name: {"input": 1.0, "output": 2.0} for name in ("small", "large")}
ENGINES = (0, 1, 2)
"""Workers of Ray; 0: one process, without Ray."""

_READING = ("who reads", "read", "faster", "fit", "evaluate", "peak of the driver")
_CALIBRATING = ("who asks", "examples a second", "of one worker", "of one process")

Row = tuple[str, ...]
Figures = dict[str, Any]


def tables(rows: int, examples: int, rounds: int) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    """Return what reading and fitting take, and what a calibration takes.

    Args:
        rows: Queries of the log.
        examples: Examples of the calibration.
        rounds: How often each is done; the table has the median, and the range of the ratios.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_log(Path(folder), rows)
        runs = [[_run("read", folder, workers) for workers in ENGINES] for _ in range(rounds)]
    assert len({run["policy"] for each in runs for run in each}) == 1, "the policies differ"
    yield _READING, list(_reading(runs))
    with running(LATENCY) as address:
        runs = [
            [_run("calibrate", address, workers, examples) for workers in ENGINES]
            for _ in range(rounds)
        ]
    yield _CALIBRATING, list(_calibrating(runs))


def _reading(runs: list[list[Figures]]) -> Iterator[Row]:
    for place, workers in enumerate(ENGINES):
        own = [each[place] for each in runs]
        ratios = [each[0]["read"] / each[place]["read"] for each in runs]
        yield (
            _called(workers),
            f"{statistics.median(run['read'] for run in own):.1f} s",
            _spread(ratios),
            f"{statistics.median(run['fit'] for run in own):.1f} s",
            f"{statistics.median(run['evaluate'] for run in own):.1f} s",
            f"{max(run['peak'] for run in own):.0f} MB",
        )


def _calibrating(runs: list[list[Figures]]) -> Iterator[Row]:
    for place, workers in enumerate(ENGINES):
        rates = [each[place]["rate"] for each in runs]
        against = [
            _spread([each[place]["rate"] / each[base]["rate"] for each in runs]) for base in (1, 0)
        ]
        yield (_called(workers), f"{statistics.median(rates):.0f}", *against)


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _called(workers: int) -> str:
    return pluralize(workers, "worker of Ray", "workers of Ray") if workers else "one process"


def _run(*arguments: object) -> Figures:
    command = [sys.executable, "-m", __name__, *map(str, arguments)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def write_log(folder: Path, rows: int) -> None:
    """Write a log of two models with eight verdicts a query, in shards, with its texts."""
    rng = np.random.default_rng(0)
    for shard in range(SHARDS):
        n = rows // SHARDS + (shard < rows % SHARDS)
        ease = rng.beta(2, 2, n)
        verdicts = rng.random((n, 8)) < 0.2 + 0.6 * ease[:, None]
        quality = (rng.random((n, 2)) < np.stack([ease, np.full(n, 0.85)], axis=1)) * 1.0
        cost = np.exp(rng.normal((-10, -7), 0.5, (n, 2)))
        with (folder / f"part-{shard:02d}.jsonl").open("w") as file:
            for i in range(n):
                check = {"verdicts": verdicts[i].tolist(), "sample_cost": cost[i, 0] / 8}
                answers = [
                    {"model": model, "quality": quality[i, j], "cost": cost[i, j]}
                    for j, model in enumerate(("small", "large"))
                ]
                answers[0]["verification"] = check
                metadata = {"question": f"What is number {i} of {shard}?", "labels": "references"}
                line = {"id": f"{shard}-{i}", "answers": answers, "metadata": metadata}
                file.write(json.dumps(line) + "\n")


def _with_workers(workers: int) -> None:
    """Start a cluster of so many workers, and wait until each has imported the package."""
    if not workers:
        return
    ray: Any = importlib.import_module("ray")  # an extra

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def imported() -> None:
        import langchain_automix.policy.data.reading  # noqa: F401, PLC0415

        time.sleep(0.5)

    ray.get([ray.remote(imported).remote() for _ in range(workers)])


def read(folder: str, workers: int) -> Figures:
    """Read a log, fit and judge a policy."""
    _with_workers(workers)
    marks = [time.perf_counter()]
    log = RoutingLog.read(folder, engine="ray" if workers else None, texts=False)
    marks.append(time.perf_counter())
    router = POMDPRouter.fit(log, max_loss=0.01)
    marks.append(time.perf_counter())
    evaluate(router, log)
    marks.append(time.perf_counter())
    policy = router.policy.model_dump_json(by_alias=True)
    return {
        "read": marks[1] - marks[0],
        "fit": marks[2] - marks[1],
        "evaluate": marks[3] - marks[2],
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "policy": hashlib.sha256(policy.encode()).hexdigest(),
    }


def calibrated(address: str, workers: int, examples: int) -> Figures:
    """Calibrate on two models of a provider; the first examples, in which workers start, apart."""
    from langchain_openai import ChatOpenAI  # noqa: PLC0415  (not where logs are read)
    from pydantic import SecretStr  # noqa: PLC0415

    _with_workers(workers)
    models = [
        ChatOpenAI(model=name, base_url=f"{address}/v1", api_key=SecretStr("test"), max_retries=0)
        for name in ("small", "large")
    ]
    ends: list[float] = []
    warm = min(examples // 5, 200)
    with tempfile.TemporaryDirectory() as folder:
        calibrate(
            [
                {"question": f"Where was ship {i} built?", "answer": "Turku"}
                for i in range(examples)
            ],
            models,
            verifier=SelfVerifier(samples=1),
            prices=PRICES,
            concurrency=32,
            out=Path(folder) / "log.jsonl",
            engine="ray" if workers else None,
            on_progress=lambda _: ends.append(time.perf_counter()),
        )
    return {"rate": (len(ends) - 1 - warm) / (ends[-1] - ends[warm])}


def main() -> None:
    """Carry out one run, and print its figures."""
    what, where, workers, *more = sys.argv[1:]
    if what == "read":
        figures = read(where, int(workers))
    else:
        figures = calibrated(where, int(workers), int(more[0]))
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
