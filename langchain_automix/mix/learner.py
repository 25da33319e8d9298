"""`Learner`: what says by which policy each query of a mix is decided, and learns from it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self
from uuid import UUID

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.query import QueryState
from langchain_automix.types import Decision

_LOGGER = logging.getLogger(__name__)

Stage = Literal["observe", "warm-up", "policy"]
"""How a query is decided: by the largest model because answers may not change (`observe`), by the
largest model because no policy is proven yet (`warm-up`), or by a version of the policy."""


@dataclass(frozen=True, slots=True)
class EndedQuery:
    """A query that has come to its end, whatever that was."""

    config: MixConfig
    """Of the mix, with the router that decided the query and the check that was made."""

    query: QueryState
    run_id: UUID
    run_config: RunnableConfig
    """Configuration of the query's run."""

    error: Exception | None = None
    """What ended it; None: it was answered, or left before."""


class Ticket(ABC):
    """What a learner says of one query before it begins: one version decides it to its end."""

    def __init__(
        self,
        id: str,
        version: int,
        stage: Stage,
        *,
        router: Runnable[Any, Any] | None = None,
        opening: Decision | None = None,
    ) -> None:
        """Set up the ticket.

        Args:
            id: Id of the query.
            version: Number of the policy that decides; 0: none, the largest model answers.
            stage: Why.
            router: Decides the query; None: the mix's own. The same object for all queries of a
                version.
            opening: The first step, for which the router is not asked; None: as it decides.
        """
        self.id, self.version, self.stage = id, version, stage
        self.router, self.opening = router, opening
        self._open = [True]

    @property
    def label(self) -> dict[str, Any]:
        """What the query's record says of it."""
        return {"id": self.id, "version": self.version, "stage": self.stage}

    def end(self, ended: EndedQuery) -> None:
        """Tell the learner that the query has ended: once, and whatever fails there."""
        try:
            self._open.pop()  # in one step, as two threads may end a query
        except IndexError:
            return
        try:
            self.finish(ended)
        except Exception:
            _LOGGER.warning("nothing is learned from a query", exc_info=True)

    @abstractmethod
    def finish(self, ended: EndedQuery) -> None:
        """Take note of a query that has ended, without waiting for anything."""


class Learner(ABC):
    """Says by which policy each query is decided, and learns from what becomes of it.

    Copies of a mix share it, as it is one object in a process.
    """

    @abstractmethod
    def begin(self, config: MixConfig, input: Any, arguments: Mapping[str, Any]) -> Ticket | None:
        """Return the ticket of a query, without waiting for anything.

        Args:
            config: Who answers, checks and decides.
            input: What the mix is asked.
            arguments: Go to the answering models.

        Returns:
            The ticket; None: nothing is learned from the query, and the mix decides by itself.
        """

    def prepare(self, config: MixConfig) -> None:
        """Get ready for the queries of a mix, once it is made; by default, do nothing."""
        del config

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self


def take_ticket(
    learner: Learner | None, config: MixConfig, input: Any, arguments: Mapping[str, Any]
) -> Ticket | None:
    """Return the ticket of a query; None where nothing can be learned from it.

    A query whose model is forced, or that is not checked, shows nothing of a policy.
    """
    if learner is None or config.forced is not None or not config.verification:
        return None
    try:
        return learner.begin(config, input, arguments)
    except Exception:
        _LOGGER.warning("a query goes without its learner", exc_info=True)
        return None
