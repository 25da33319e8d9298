"""A learner for tests, which does as it is told and keeps what it hears of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.guards import ask_unchecked
from langchain_automix.mix.learner import EndedQuery, Learner, Ticket


class FakeTicket(Ticket):
    learner: FakeLearner

    def finish(self, ended: EndedQuery) -> None:
        self.learner.ended.append((self.id, ended))
        if self.learner.fails_at == "finish":
            raise OSError("no store")


class FakeLearner(Learner):
    """Hands out its present version, and keeps what it hears of."""

    def __init__(self, router: Any = None, version: int = 7, fails_at: str = "") -> None:
        self.router, self.version, self.fails_at = router, version, fails_at
        self.asks_largest = False
        self.prepared: list[MixConfig] = []
        self.begun: list[Ticket] = []
        self.ended: list[tuple[str, EndedQuery]] = []

    def prepare(self, config: MixConfig) -> None:
        self.prepared.append(config)

    def begin(self, config: MixConfig, input: Any, arguments: Mapping[str, Any]) -> Ticket:
        if self.fails_at == "begin":
            raise OSError("no store")
        last = len(config.names) - 1
        opening = ask_unchecked(last, "It warms up.") if self.asks_largest else None
        stage: Any = "warm-up" if self.asks_largest else "policy"
        ticket = FakeTicket(uuid4().hex, self.version, stage, router=self.router, opening=opening)
        ticket.learner = self
        self.begun.append(ticket)
        return ticket
