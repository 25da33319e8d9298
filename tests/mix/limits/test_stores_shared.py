"""Spend limits in a shared store: of two processes, and of tenants that must not hinder others."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.memory import InMemoryStore

from langchain_automix import SpendLimit, SpendLimitReachedError, SpendWarning, UncalibratedWarning
from tests.support.builders.mixes import mix, record_of, rejecting
from tests.support.builders.spending import PRICES, billed, used
from tests.support.builders.waiting import eventually
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.redis_server import needs_redis, redis_server

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{UncalibratedWarning.__module__}.UncalibratedWarning"
)
redis: Any = pytest.importorskip("redis")

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


@needs_redis
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_a_query_that_is_longer_than_its_lease_keeps_its_reservation(
    server: OpenAIServer, tmp_path: Path, how: str
) -> None:
    goes_on = threading.Event()

    def hold(_: Any) -> float:
        goes_on.wait(60)
        return 0.0

    server.script, server.delay = rejecting(), hold
    ask: Any
    with redis_server(tmp_path) as store, ThreadPoolExecutor(1) as pool:
        lease = timedelta(milliseconds=300)
        limit = SpendLimit("1 USD", lease=lease, store=store, when_spent="raise")
        automix, client = mix(server, spend_limit=limit, prices=PRICES), redis.Redis.from_url(store)

        def ends() -> list[int]:
            """When the leases of the queries under way end, by the clock of the store."""
            held = client.hgetall("automix:spend:{default:all}")
            return [int(value.split()[1]) for name, value in held.items() if name[:2] == b"h:"]

        try:
            ask = automix.invoke if how == "invoke" else lambda q: asyncio.run(automix.ainvoke(q))
            running = pool.submit(ask, "q")
            [first] = await eventually(ends)
            await eventually(lambda: ends() > [first + 3 * lease // timedelta(milliseconds=1)])
            assert not running.done()
        finally:
            goes_on.set()
        running.result()
        assert ends() == []
        assert used(limit) == billed(server) > 0


@needs_redis
@pytest.mark.filterwarnings("ignore::langchain_automix.SpendWarning")
@pytest.mark.parametrize("when_spent", ["raise", "cheapest"])
def test_a_tenant_whose_steps_can_never_be_taken_stops_no_other(
    server: OpenAIServer, tmp_path: Path, when_spent: Any
) -> None:
    server.script = rejecting()
    with redis_server(tmp_path) as store:
        limit = SpendLimit(100, by="tenant", store=store, when_spent=when_spent)
        automix = mix(server, spend_limit=limit, prices=PRICES)

        def ask(tenant: str) -> dict[str, Any]:
            return record_of(automix.invoke("q", {"configurable": {"tenant": tenant}}))

        ask("bad")
        client = redis.Redis.from_url(store)
        [key] = client.keys("*bad}")
        client.delete(key)
        client.set(key, "text")  # where a hash is expected
        for _ in range(2):
            if when_spent == "raise":
                with pytest.raises(SpendLimitReachedError):
                    ask("bad")
            else:
                assert ask("bad")["degraded"] is not None
            assert ask("good")["degraded"] is None
        client.delete(key)
        assert ask("bad")["degraded"] is None
        assert used(limit, "good") > 0


@needs_redis
def test_a_key_that_breaks_while_a_query_runs(server: OpenAIServer, tmp_path: Path) -> None:
    server.script = rejecting()
    with redis_server(tmp_path) as store:
        limit = SpendLimit(100, by="tenant", store=store)
        automix = mix(server, spend_limit=limit, prices=PRICES)
        client = redis.Redis.from_url(store)

        def breaking(_: Any) -> float:
            for key in client.keys("*bad}"):
                client.delete(key)
                client.set(key, "text")
            return 0.0

        server.delay = breaking
        with pytest.warns(SpendWarning, match="cannot be kept for 'bad'"):
            automix.invoke("q", {"configurable": {"tenant": "bad"}})
        server.delay = 0.0
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            record = record_of(automix.invoke("q", {"configurable": {"tenant": "good"}}))
        assert record["degraded"] is None
        assert not [each for each in found if each.category is SpendWarning]


@needs_redis
@pytest.mark.parametrize("tenant", ["\ud800", "a\x00b", "{a}:b", "\u202e" * 1000, 5, None, ""])
def test_any_tenant_has_a_limit_of_its_own(
    server: OpenAIServer, tmp_path: Path, tenant: Any
) -> None:
    server.script = rejecting()
    with redis_server(tmp_path) as store:
        for place in (store, InMemoryStore()):
            limit = SpendLimit(100, by="tenant", store=place, when_spent="raise")
            automix = mix(server, spend_limit=limit, prices=PRICES)
            for _ in range(2):
                automix.invoke("q", {"configurable": {"tenant": tenant}})
            assert used(limit, tenant) > used(limit, "other") == 0
