"""A routing log in several files, as a calibration on many machines leaves it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from langchain_automix import RoutingLog


def said(log: RoutingLog) -> RoutingLog:
    """The same log with metadata as a calibration writes them."""
    records: list[dict[str, Any]] = [dict(record) for record in log.records()]
    for i, record in enumerate(records):
        record["metadata"] = {
            "question": f"What is {i}?",
            "verifier": "a-check",
            "labels": "agreement" if i % 3 else "references",
            "check_replies": {"logprob": [["-0.5"], []]},
        }
    return RoutingLog(records)


def in_shards(log: RoutingLog, folder: Path, ending: str = "jsonl", shards: int = 3) -> Path:
    """Write a log to a folder; the first shard has one query, so that sizes differ."""
    folder.mkdir(exist_ok=True)
    cuts = [0, 1, *(1 + i * (len(log) - 1) // (shards - 1) for i in range(1, shards))]
    for n, (start, end) in enumerate(itertools.pairwise(cuts)):
        log[start:end].write(folder / f"part-{n}.{ending}")
    return folder
