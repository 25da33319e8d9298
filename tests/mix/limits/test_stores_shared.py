"""Two processes share a spend limit of a dollar through Redis."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders.mixes import rejecting
from tests.support.builders.spending import billed
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.redis_server import needs_redis, redis_server

_PIPE = subprocess.PIPE
ROOT = Path(__file__).parents[3]


def _run(server: OpenAIServer, store: str, when_spent: str, queries: int) -> list[dict[str, Any]]:
    given = {"url": server.base_url, "store": store, "limit": "1.00 USD"}
    told = json.dumps({**given, "when_spent": when_spent, "queries": queries})
    command = [sys.executable, "-m", "tests.support.builders.spending", told]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdin=_PIPE, stdout=_PIPE, stderr=_PIPE)
        for _ in range(2)
    ]
    for each in both:
        assert each.stdout is not None
        assert each.stdout.readline() == b"ready\n", each.communicate()
    for each in both:
        assert each.stdin is not None
        each.stdin.write(b"\n")
        each.stdin.flush()
    found = []
    for each in both:
        out, err = each.communicate(timeout=120)
        assert each.returncode == 0, err.decode()
        found.append(json.loads(out))
    return found


@needs_redis
@pytest.mark.parametrize("when_spent", ["raise", "cheapest"])
def test_a_dollar_is_passed_by_one_query_at_most(
    server: OpenAIServer, tmp_path: Path, when_spent: str
) -> None:
    server.script = rejecting(kept="so " * 20)
    server.delay = 0.01
    with redis_server(tmp_path) as store:
        found = _run(server, store, when_spent, queries=40)
    costs = [Decimal(cost) for each in found for cost in each["costs"]]
    total = billed(server)
    assert total == sum(costs)  # nothing was paid for a query that was refused
    escalated = [any(each["escalated"]) for each in found]
    assert all(escalated), "one process has taken all"
    if when_spent == "raise":
        assert sum(each["refused"] for each in found) > 0
        assert 1 - max(costs) < total < 1 + max(costs)
    else:
        assert len(costs) == 80
        dear = [
            Decimal(cost)
            for each in found
            for cost, was in zip(each["costs"], each["escalated"], strict=True)
            if was
        ]
        assert sum(dear) < 1 + max(dear)
        assert len(dear) < 80
    print(when_spent, "total", total, "dearest", max(costs), "queries", len(costs))  # noqa: T201
