"""`LearningTicket`: what `Learning` says of one query before it begins."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING
from uuid import uuid4

from typing_extensions import override

from langchain_automix.learning.epochs import EpochState, Snapshot
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.learner import EndedQuery, Ticket
from langchain_automix.utils.fingerprints import uniform

if TYPE_CHECKING:
    from langchain_automix.learning.learning import Learning

_NUMBERS = itertools.count(1)


class QueryIds:
    """Makes ids that no other query has; one from the system takes 50 times as long."""

    def __init__(self) -> None:
        self._prefix = 0, ""

    def new(self) -> str:
        """Return the next id."""
        process, prefix = self._prefix
        if process != os.getpid():  # a forked child must not go on with its parent's
            process, prefix = self._prefix = os.getpid(), uuid4().hex[:20]
        return f"{prefix}{next(_NUMBERS):012x}"


class LearningTicket(Ticket):
    """What `Learning` says of one query, and how it hears of its end."""

    def __init__(self, learning: Learning, config: MixConfig, state: EpochState) -> None:
        """Read the present version, and draw whether the query has a shadow."""
        now: Snapshot = state.snapshot
        super().__init__(
            learning.ids.new(),
            now.version,
            now.stage,
            router=now.router,
            opening=now.opening,
            alarm=now.alarm,
        )
        self._learning, self.config, self.state = learning, config, state
        share = now.share if config.answer_format.may_shadow else 0.0
        # A policy of two plans draws one by the id, and must not by the same number.
        is_drawn = uniform(f"shadow:{self.id}", learning.settings.seed) < share
        has_money = learning.may_shadow(is_drawn=is_drawn)
        self.share = share if has_money else 0.0
        """Chance of a shadow, whatever will be found."""

        self.is_drawn = is_drawn and has_money

    @override
    def finish(self, ended: EndedQuery) -> None:
        self._learning.note(self, ended)
