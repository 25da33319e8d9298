"""What tests of spend limits share: prices, what a server has billed, and a mix of its own process.

As a program (`python -m tests.support.builders.spending`) it is one of several processes that
share a limit.
"""

from __future__ import annotations

import asyncio
import json
import sys
from decimal import Decimal
from typing import Any

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from langchain_automix import (
    AutoMixRunnable,
    SpendLimit,
    SpendLimitReachedError,
    ThresholdRouter,
)
from langchain_automix.mix.limits.ledger import Settlement, nanos
from langchain_automix.models.prices import dollars_of
from tests.support.builders.mixes import mix
from tests.support.servers.openai_server import OpenAIServer

PRICES = {
    "small": {"input": 10.0, "output": 100.0},
    "large": {"input": 1000.0, "output": 1000.0},
}


def limited(server: OpenAIServer, limit: Any, **fields: Any) -> AutoMixRunnable:
    """A mix of `small` and `large` under a limit, or several."""
    return mix(server, spend_limit=limit, prices=PRICES, **fields)


def billed(server: OpenAIServer, *models: str) -> Decimal:
    """What a server has billed, by all models or some, in dollars."""
    total = Decimal(0)
    for bill in server.billed:
        if not models or bill["model"] in models:
            price = PRICES[bill["model"]]
            total += bill["prompt_tokens"] * Decimal(price["input"])
            total += bill["completion_tokens"] * Decimal(price["output"])
    return total / 1_000_000


def used(limit: SpendLimit, value: str | None = None) -> Decimal:
    return dollars_of(limit.used(value))


def spend(limit: SpendLimit, dollars: str, bucket: str = "all") -> None:
    """Count dollars as spent by a query before, which might have come to a tenth of a cent."""
    settlement = Settlement(nanos(Decimal(dollars)), 10**6)
    limit.books.settle(bucket, "before", settlement, limit.terms)


async def _traffic(url: str, limit: SpendLimit, queries: int) -> dict[str, Any]:
    models = [
        ChatOpenAI(model=name, base_url=url, max_retries=0, api_key=SecretStr("test"))
        for name in ("small", "large")
    ]
    mix = AutoMixRunnable(models=models, router=ThresholdRouter(), prices=PRICES, spend_limit=limit)
    sys.stdout.write("ready\n")  # all begin together
    sys.stdout.flush()
    sys.stdin.readline()
    asked = [f"Question {i}" + " why" * (i * 7 % 23) for i in range(queries)]
    found = await mix.abatch(asked, {"max_concurrency": 12}, return_exceptions=True)
    wrong = [each for each in found if isinstance(each, Exception)]
    assert all(isinstance(each, SpendLimitReachedError) for each in wrong), wrong
    records = [each.response_metadata["automix"] for each in found if each not in wrong]
    return {
        "refused": len(wrong),
        "costs": [record["cost"].split()[0] for record in records],
        "escalated": [record["escalated"] for record in records],
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    shared = SpendLimit(given["limit"], store=given["store"], when_spent=given["when_spent"])
    sys.stdout.write(json.dumps(asyncio.run(_traffic(given["url"], shared, given["queries"]))))
