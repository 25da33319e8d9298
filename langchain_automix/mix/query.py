"""What a query's way goes by, and how far one query has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_automix.flow.clock import Deadline
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.limits.allowance import UNLIMITED, SpendAllowance
from langchain_automix.mix.record import QueryLedger
from langchain_automix.types import RoutingState, Visit
from langchain_automix.verifiers.base import VerifierInput


@dataclass
class QueryState:
    """How far one query has come."""

    input: Any
    asked: VerifierInput
    query_id: str
    ledger: QueryLedger
    replies: dict[int, ModelAnswer] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    """What the answering calls that failed came to, by model, in the order made."""

    unchecked: dict[tuple[int, str | None], str] = field(default_factory=dict)
    """Checks that failed, by model and name of the check, and why: they are not made again."""

    router_failed: str | None = None
    """Why the router is not asked any more, as a sentence without its end."""

    belief: Mapping[str, float] = field(default_factory=dict)
    """What the router last expected of the models, by name."""

    degraded: str | None = None
    """Why the answer is less than it would be, had nothing gone wrong; one sentence."""

    allowance: SpendAllowance = UNLIMITED
    """What it may spend."""

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """What goes to the answering models."""

    hedged: dict[int, ModelAnswer | Exception] = field(default_factory=dict)
    """What models gave that were asked before it was known whether they would be needed."""

    hedged_model: str | None = None
    """Name of such a model."""

    clock: Deadline | None = None
    """Counts its time; None: it has all of it."""

    shown: int | None = None
    """Model whose answer was told to everyone while it came."""

    recorded: bool = False
    """Whether its record was told: it has come to its end, and nothing more is paid for."""

    @property
    def current(self) -> Visit:
        """The model asked last."""
        return list(self.ledger.visits.values())[-1]

    @property
    def usable(self) -> list[int]:
        """Models whose answer could be used, in the order asked."""
        visits = self.ledger.visits
        checks = {index: visits[index].verification for index in self.replies}
        return [index for index, check in checks.items() if check is None or check.usable]

    def state(self, names: tuple[str, ...]) -> RoutingState:
        """Return what the router is told, but for the time: see `_in_time.options`."""
        return RoutingState(
            models=names,
            visits=tuple(self.ledger.visits.values()),
            query_id=self.query_id,
            cost_weight=self.allowance.cost_weight,
            cost_so_far=self.ledger.cost_so_far,
        )

    def best(self, names: Sequence[str]) -> int:
        """Return which usable answer the router expected most of; the latest, if it said none."""
        known = [self.belief.get(names[index]) for index in self.usable]
        if None in known:
            return self.usable[-1]
        return max(self.usable, key=lambda index: self.belief[names[index]])
