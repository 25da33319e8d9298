"""What a shared spend limit asks of Redis for a query: `python -m tests.benchmarks.limiting`."""

# ruff: noqa: T201

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from langchain_automix import SpendLimit
from langchain_automix.utils.tables import text_table
from tests.benchmarks.by_hand import Instant
from tests.benchmarks.surface import EASY_QUESTION, HARD_QUESTION, mix_of
from tests.support.servers.redis_server import MISSING, redis_server

PRICES = {name: {"input": 1.0, "output": 2.0} for name in ("small", "large")}
QUERIES = 2_000
_MICROSECONDS = 1e6


def rows(url: str) -> Iterator[list[str]]:
    """Yield, for a query that is kept and one that escalates, what the limit asks and takes."""
    client: Any = redis.Redis.from_url(url)
    models = [Instant(name_of_model=name, model_name=name) for name in PRICES]
    limited = mix_of(*models, prices=PRICES, spend_limit=SpendLimit(10_000, per="P1D", store=url))
    for name, question in (("kept", EASY_QUESTION), ("escalated", HARD_QUESTION)):
        limited.invoke(question)
        client.config_resetstat()
        for _ in range(QUERIES):
            limited.invoke(question)
        stats = client.info("commandstats")
        scripts = {n: each for n, each in stats.items() if "eval" in n}
        calls = sum(each["calls"] for each in scripts.values())
        busy = sum(each["usec"] for each in scripts.values())
        yield [
            name,
            f"{calls / QUERIES:.2f}",
            f"{busy / calls:.0f}",
            f"{_MICROSECONDS * calls / busy / (calls / QUERIES):,.0f}",
        ]


if __name__ == "__main__":
    if MISSING:
        raise SystemExit(MISSING)
    heads = ["query", "round trips", "us of Redis each", "queries/s of one Redis"]
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as address:
        print("\n".join(text_table(heads, list(rows(address)))))
