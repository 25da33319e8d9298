"""`LearningTicket`: what `Learning` says of one query before it begins."""

from __future__ import annotations

import itertools
import os
import random
from typing import Protocol
from uuid import uuid4

from typing_extensions import override

from langchain_automix.learning.epochs import EpochState, Snapshot
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.learner import EndedQuery, Ticket

_NUMBERS = itertools.count(1)


class QueryIds:
    """Makes ids that no other query has, and draws a number for each.

    An id from the system takes 50 times as long, and a number by a hash of the id, 20 times.

    Args:
        seed: Seed of the numbers, together with what is random in the ids.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._own = 0, "", random.Random()  # noqa: S311  (no secret)

    def new(self) -> tuple[str, float]:
        """Return the next id, and a number in [0, 1) that nothing else depends on."""
        process, prefix, chances = self._own
        if process != os.getpid():  # a forked child must not go on with its parent's
            prefix = uuid4().hex[:20]
            chances = random.Random(f"{prefix}:{self._seed}")  # noqa: S311
            self._own = os.getpid(), prefix, chances
        return f"{prefix}{next(_NUMBERS):012x}", chances.random()


class TicketOffice(Protocol):
    """What a ticket asks of the `Learning` that gave it."""

    ids: QueryIds

    def may_shadow(self, *, is_drawn: bool) -> bool:
        """Return whether there is money for a shadow."""

    def note(self, ticket: LearningTicket, ended: EndedQuery) -> None:
        """Take note of a query that has ended."""


class LearningTicket(Ticket):
    """What `Learning` says of one query, and how it hears of its end."""

    def __init__(self, learning: TicketOffice, config: MixConfig, state: EpochState) -> None:
        """Read the present version, and draw whether the query has a shadow."""
        now: Snapshot = state.snapshot
        id, chance = learning.ids.new()
        super().__init__(
            id,
            now.version,
            now.stage,
            router=now.router,
            opening=now.opening,
            alarm=now.alarm,
        )
        self._learning, self.config, self.state = learning, config, state
        share = now.share if config.answer_format.may_shadow else 0.0
        # A policy of two plans draws one by the id: this number must have nothing to do with that.
        is_drawn = chance < share
        has_money = learning.may_shadow(is_drawn=is_drawn)
        self.share = share if has_money else 0.0
        """Chance of a shadow, whatever will be found."""

        self.is_drawn = is_drawn and has_money

    @override
    def finish(self, ended: EndedQuery) -> None:
        self._learning.note(self, ended)
