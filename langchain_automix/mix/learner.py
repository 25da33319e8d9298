"""`Learner`: choose the policy that decides each query of a mix, and learn from the outcome."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self
from uuid import UUID

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_automix.errors import AutoMixError
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.query import QueryState
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.types import Decision
from langchain_automix.utils.user_warnings import warn_user

_LOGGER = logging.getLogger(__name__)

Stage = Literal["observe", "warm-up", "policy"]
"""How a query is decided: by the largest model, because answers must not change (`observe`) or
because no policy is proven yet (`warm-up`), or by a version of the policy (`policy`)."""


@dataclass(frozen=True, slots=True)
class EndedQuery:
    """A query that has ended, whatever the outcome."""

    config: MixConfig
    """The mix, with the router that decided the query and the check that was made."""

    query: QueryState
    run_id: UUID
    run_config: RunnableConfig
    """Configuration of the query's run."""

    error: Exception | None = None
    """The error that ended it; None if it was answered or abandoned."""


class Ticket(ABC):
    """A learner's instructions for one query: a single version decides it to its end."""

    def __init__(
        self,
        id: str,
        version: int,
        stage: Stage,
        *,
        router: Runnable[Any, Any] | None = None,
        opening: Decision | None = None,
        alarm: str | None = None,
    ) -> None:
        """Set up the ticket.

        Args:
            id: Id of the query.
            version: Number of the policy that decides; 0 if none does and the largest model
                answers.
            stage: How the query is decided.
            router: Decides the query; None leaves it to the mix's own router. All queries of a
                version get the same object.
            opening: The first step, taken without asking the router; None leaves it to the router.
            alarm: A change in the traffic, for the query's record; None if there is none.
        """
        self.id, self.version, self.stage, self.alarm = id, version, stage, alarm
        self.router, self.opening = router, opening
        self._open = [True]

    @property
    def label(self) -> dict[str, Any]:
        """The ticket's entry in the query's record."""
        said = {"id": self.id, "version": self.version, "stage": self.stage}
        return said if self.alarm is None else {**said, "alarm": self.alarm}

    def end(self, ended: EndedQuery) -> None:
        """Tell the learner, once, that the query has ended; its errors are logged, not raised."""
        try:
            self._open.pop()  # atomic, since two threads may end a query
        except IndexError:
            return
        try:
            self.finish(ended)
        except Exception:
            _LOGGER.warning("nothing is learned from a query", exc_info=True)

    @abstractmethod
    def finish(self, ended: EndedQuery) -> None:
        """Take note of a query that has ended, without blocking."""


class Learner(ABC):
    """Chooses the policy that decides each query, and learns from the outcome.

    Copies of a mix share one learner.
    """

    @abstractmethod
    def begin(self, config: MixConfig, input: Any, arguments: Mapping[str, Any]) -> Ticket | None:
        """Return the ticket of a query, without blocking.

        Args:
            config: The mix: its models, check and router.
            input: The input of the query.
            arguments: Arguments for the answering models.

        Returns:
            The ticket; None if nothing is learned from the query and the mix decides it alone.
        """

    def prepare(self, config: MixConfig) -> None:
        """Prepare for the queries of a mix once it is built; by default, do nothing."""
        del config

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self


def prepare_learner(learner: Learner, config: MixConfig) -> None:
    """Let a learner prepare for a mix.

    Raises:
        AutoMixError: There is nothing to learn from the mix: it checks nothing, or stops drafts
            early (`give_up_early`).
    """
    if config.give_up_early:
        raise AutoMixError("What is learned is learned of whole drafts: leave out give_up_early.")
    if not config.verification:
        raise AutoMixError("Nothing is learned where verification is off: leave out one.")
    _warn_of_policy(config)
    learner.prepare(config)


def _warn_of_policy(config: MixConfig) -> None:
    """Say that a fitted policy does not decide in a mix that learns."""
    if isinstance(config.router, POMDPRouter) and config.router.is_calibrated:
        warn_user(
            "The fitted policy of this mix does not decide while the mix learns: it begins with "
            f"{config.names[-1]} alone, and goes over only to a policy that is proven on its own "
            "traffic. Leave learning out to go by the fitted policy."
        )


def take_ticket(
    learner: Learner | None, config: MixConfig, input: Any, arguments: Mapping[str, Any]
) -> Ticket | None:
    """Return the ticket of a query, or None if nothing can be learned from it.

    A query with a forced model, or without a check, shows nothing about a policy.
    """
    if learner is None or config.forced is not None or not config.verification:
        return None
    try:
        return learner.begin(config, input, arguments)
    except Exception:
        _LOGGER.warning("a query goes without its learner", exc_info=True)
        return None
