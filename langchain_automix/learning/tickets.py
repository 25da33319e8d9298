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
    """What a ticket tells the `Learning` that gave it."""

    def note(self, ticket: LearningTicket, ended: EndedQuery) -> None:
        """Take note of a query that has ended."""


class LearningTicket(Ticket):
    """What `Learning` says of one query, and how it hears of its end.

    Args:
        learning: Hears of the end.
        config: Of the mix, as it is given.
        state: The epoch.
        now: What its queries go by at present.
        id: Of the query.
        share: Chance of a shadow, whatever will be found.
        is_drawn: Whether it has one.
    """

    def __init__(
        self,
        learning: TicketOffice,
        config: MixConfig,
        state: EpochState,
        now: Snapshot,
        id: str,
        *,
        share: float,
        is_drawn: bool,
    ) -> None:
        super().__init__(
            id,
            now.version,
            now.stage,
            router=now.router,
            opening=now.opening,
            alarm=now.alarm,
        )
        self._learning, self.config, self.state = learning, config, state
        self.share, self.is_drawn = share, is_drawn

    @override
    def finish(self, ended: EndedQuery) -> None:
        self._learning.note(self, ended)
