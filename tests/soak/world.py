"""What a soak is made of: the models and mixes that all of it shares, and what a query came to."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_openai import ChatOpenAI
from langchain_openai._compat import httpx
from pydantic import SecretStr

from langchain_automix import (
    AutoMixRunnable,
    CircuitBreaker,
    POMDPRouter,
    RoutingLog,
    SelfVerifier,
    SpendLimit,
    ThresholdRouter,
)
from langchain_automix.flow.callbacks import is_inside_mix

PRICES = {
    name: {"input": 0.5 + i, "output": 2.0 + i}
    for i, name in enumerate(("small", "large", "third"))
}
End = Literal["lost", "answered", "failed", "cancelled", "left"]


class Told(BaseCallbackHandler):
    """Keeps what one query's own run was told of it."""

    run_inline = True

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        if name == "automix" and not is_inside_mix(kwargs.get("tags")):
            self.events.append(data)


@dataclass
class Query:
    """One query, and what it came to."""

    mark: str
    mix: str
    way: str
    end: End = "lost"
    text: str = ""
    """The answer, or what was shown of one."""

    record: dict[str, Any] | None = None
    error: BaseException | None = None
    told: Told = field(default_factory=Told)
    usage: UsageMetadataCallbackHandler = field(default_factory=UsageMetadataCallbackHandler)
    trace: RunCollectorCallbackHandler | None = None
    scarce: bool = False
    """Whether the limit that raises is for it."""

    @property
    def asked(self) -> Any:
        question = f"Where is {self.mark}?"
        if self.mix == "prompted":
            return {"question": question, "context": "There are shelves."}
        return question

    def took(self, outcome: Any) -> None:
        """Note how it ended: with a message, or with an error."""
        if isinstance(outcome, BaseException):
            self.end, self.error = "failed", outcome
            return
        self.end, self.text = "answered", str(outcome.text)
        self.record = outcome.response_metadata.get("automix")


class PerLoop(httpx.AsyncBaseTransport):
    """Connections that belong to the event loop that made them, as all connections do.

    So one chat model may be asked from several loops; `langchain-openai` by itself would share one
    pool among them, and fail with "Event loop is closed".
    """

    def __init__(self) -> None:
        self._pools: dict[asyncio.AbstractEventLoop, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            self._pools[loop] = httpx.AsyncHTTPTransport(trust_env=False)
        return await self._pools[loop].handle_async_request(request)

    async def close_here(self) -> None:
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.aclose()


class World:
    """Models, mixes and limits that all threads and event loops share."""

    def __init__(self, address: str, *, timeout: float) -> None:
        self.address = address
        self.timeout = timeout
        self.connections = PerLoop()
        self.client = httpx.Client(trust_env=False)
        self.aclient = httpx.AsyncClient(transport=self.connections, trust_env=False)
        self.limits = [
            SpendLimit("0.02 USD", per=timedelta(seconds=10), name="window"),
            SpendLimit("0.01 USD", tag="scarce", name="scarce", when_spent="raise"),
        ]
        self.mixes = self._mixes()

    def model(self, name: str, **settings: Any) -> ChatOpenAI:
        given = {"max_retries": 0, "timeout": self.timeout, "stream_usage": True, **settings}
        return ChatOpenAI(
            model=name,
            base_url=f"{self.address}/v1",
            api_key=SecretStr("test"),
            http_client=self.client,
            http_async_client=self.aclient,
            **given,
        )

    def _mixes(self) -> dict[str, AutoMixRunnable]:
        small, large, third = (self.model(name) for name in PRICES)
        again = [self.model(name, max_retries=n) for name, n in (("small", 1), ("large", 2))]
        threshold = ThresholdRouter(threshold=0.5)
        fields: dict[str, dict[str, Any]] = {
            "answers": {"models": [small, large, third], "on_escalation_error": "answer"},
            "raises": {"models": [small, large], "on_escalation_error": "raise"},
            "retries": {"models": again, "on_escalation_error": "raise"},
            "parallel": {
                "models": [small, large],
                "verifier": SelfVerifier(samples=2, sampling="parallel"),
                "on_verification_error": "keep",
            },
            "fitted": {
                "models": [small, large],
                "router": POMDPRouter.fit(made_log()),
                "on_escalation_error": "answer",
                "on_verification_error": "prior",
            },
            "prompted": {
                "models": [small, large],
                "prompt": ChatPromptTemplate.from_template("{context}\n{question}"),
                "verification": False,
            },
            "guarded": {
                "models": [small, large],
                "circuit_breaker": CircuitBreaker(failures=2, cool_down=0.2),
                "on_escalation_error": "answer",
            },
            "limited": {"models": [small, large], "spend_limit": self.limits},
            "hurried": {
                "models": [small, large],
                "max_latency": 0.5,
                "on_escalation_error": "answer",
            },
            "hedged": {
                "models": [small, large],
                "router": POMDPRouter.fit(made_log()),
                "hedge": 0.2,
            },
        }
        common = {"router": threshold, "verifier": SelfVerifier(samples=2), "prices": PRICES}
        return {name: AutoMixRunnable(**{**common, **given}) for name, given in fields.items()}


def made_log(queries: int = 120) -> RoutingLog:
    """Return a log on which checking pays: the small model is right where its verdicts say so."""
    lot = random.Random(0)
    records = []
    for i in range(queries):
        right = lot.random() < 0.6
        verdicts = [lot.random() < (0.9 if right else 0.2) for _ in range(4)]
        check = {"verdicts": verdicts, "fixed_cost": 0.0, "sample_cost": 0.0001}
        answers = [
            {"model": "small", "quality": float(right), "cost": 0.0003, "verification": check},
            {"model": "large", "quality": 1.0, "cost": 0.003},
        ]
        records.append({"id": f"q{i}", "answers": answers})
    return RoutingLog(records)
