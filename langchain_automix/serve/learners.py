"""How far the mixes that learn have come, read from their stores beside the queries."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from langchain_automix.learning.status import LearningStatus
from langchain_automix.serve.mixes import Mixes
from langchain_automix.serve.own_threads import OwnThreads

_LOGGER = logging.getLogger(__name__)

_FRESH_SECONDS = 10.0


class Learners:
    """The status of what learns, by mix: read when somebody asks, at most every ten seconds.

    A store that is slow or away delays no query, and nobody who asks either: the former status is
    told until another one is read.

    Args:
        mixes: The mixes; some may learn.
    """

    def __init__(self, mixes: Mixes) -> None:
        self._mixes, self._threads = mixes, OwnThreads(1)
        self._read: dict[str, LearningStatus] = {}
        self._reading: asyncio.Task[None] | None = None
        self._read_at = float("-inf")

    @property
    def statuses(self) -> Mapping[str, LearningStatus]:
        """The status of each mix that learns, as it was read last; empty before that."""
        return self._read

    def refresh(self) -> asyncio.Task[None] | None:
        """Begin to read the statuses anew if they are old; return what reads, if anything does."""
        if self._reading is None and time.monotonic() - self._read_at >= _FRESH_SECONDS:
            self._reading = asyncio.create_task(self._refresh())
        return self._reading

    def policy(self, mix: str) -> str | None:
        """Return the version of the policy by which a mix decides now; None: there is none."""
        if (status := self._read.get(mix)) is not None and not status.is_away:
            return f"v{status.version}"
        return self._mixes.get(mix).current.policy

    async def _refresh(self) -> None:
        try:
            self._read = await self._threads.run(self._statuses)
        except Exception:  # it is tried again
            _LOGGER.warning("what the mixes learn could not be read", exc_info=True)
        finally:
            self._read_at, self._reading = time.monotonic(), None

    def _statuses(self) -> dict[str, LearningStatus]:
        learners = self._mixes.learners
        one_each = {id(learner): learner for learner in learners.values()}  # mixes may share one
        statuses = {number: learner.status() for number, learner in one_each.items()}
        return {name: statuses[id(learner)] for name, learner in learners.items()}
