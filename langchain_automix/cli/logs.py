"""Routing logs that verbs are given: files, folders and patterns, read here or on Ray."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.data.shards import log_files
from langchain_automix.policy.data.tabular import parquet_rows
from langchain_automix.utils.ray_cluster import connect


def read_log(log: str | Path, ray: str | None = None) -> RoutingLog:
    """Return a routing log.

    Args:
        log: A file, a folder, or a pattern.
        ray: Address of the Ray cluster that reads it; None: this process does.

    Raises:
        AutoMixError: It cannot be read, or there is no such cluster.
    """
    if ray is None:
        return RoutingLog.read(log)
    connect(ray)
    return RoutingLog.read(log, engine="ray")


def is_log(source: str) -> bool:
    """Whether the first line of the first file shows a routing log, not examples."""
    try:
        path = str(log_files(source)[0])
    except AutoMixError:
        return False  # reading it as examples shows what is wrong
    try:
        row = _first_row(path)
    except (OSError, EOFError, ValueError, AutoMixError):
        return False  # likewise
    answers = row.get("answers") if isinstance(row, dict) else None
    return isinstance(answers, list) and all(isinstance(a, dict) and "model" in a for a in answers)


def _first_row(path: str) -> Any:
    if path.endswith(".parquet"):
        return next(parquet_rows(Path(path), "routing log"), None)
    if not path.endswith((".jsonl", ".jsonl.gz")):
        return None
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig") as lines:
        return json.loads(next((line for line in lines if line.strip()), "") or "null")
