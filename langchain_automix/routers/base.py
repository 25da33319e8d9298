"""What every router has in common: a Runnable from what is known to what is done next."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict
from typing_extensions import override

from langchain_automix.types import Decision, RoutingState, Verification


class Router(RunnableSerializable[RoutingState, Decision]):
    """Base of the shipped routers.

    `AutoMixRunnable` takes any Runnable from `RoutingState` to `Decision`; one that derives
    from this class can also say with which model a query starts.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def opening(self, model_count: int, query_id: str | None = None) -> Decision:
        """Return the step before anything is known: here, ask the cheapest model and check it.

        Args:
            model_count: Number of models in the mix.
            query_id: The query, for routers that treat some queries otherwise than others.

        Raises:
            AutoMixError: The router cannot decide among this number of models.
        """
        del model_count, query_id
        return OPENING

    @override
    def invoke(
        self, input: RoutingState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Decision:
        """Decide what to do next.

        Args:
            input: The models, and what is known of the answers so far.
            config: The run's configuration.
            **kwargs: Not used.
        """
        return self._call_with_config(self._decide, input, config)

    @override
    async def ainvoke(
        self, input: RoutingState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Decision:
        """Decide what to do next; there is nothing to wait for."""

        async def decide(state: RoutingState) -> Decision:
            return self._decide(state)

        return await self._acall_with_config(decide, input, config)

    def decide(self, state: RoutingState) -> Decision:
        """Decide what to do next, without a trace: microseconds, where `invoke` takes more."""
        return self._decide(state)

    @abstractmethod
    def _decide(self, state: RoutingState) -> Decision: ...


OPENING = Decision(action="escalate", model_index=0, why="A query starts with the cheapest model.")


def next_model(state: RoutingState) -> int | None:
    """Return the index of the model after the current one; None after the last."""
    later = state.current.model_index + 1
    return later if later < len(state.models) else None


def ask(state: RoutingState, model_index: int, **details: Any) -> Decision:
    """Decide for a later model: with a check of its answer, unless it is the last."""
    is_last = model_index == len(state.models) - 1
    return Decision(
        action="escalate", model_index=model_index, samples=0 if is_last else None, **details
    )


def keep(state: RoutingState, **details: Any) -> Decision:
    """Decide for the current model's answer."""
    return Decision(action="answer", model_index=state.current.model_index, **details)


def findings(verification: Verification | None) -> str:
    """Say in words what a check found, as the start of a sentence."""
    if verification is None:
        return "The answer was not checked"
    if verification.problem:
        return verification.problem[0].upper() + verification.problem[1:]
    valid = verification.accepts + verification.rejects
    if valid:
        invalid = f" ({verification.invalid} more were invalid)" if verification.invalid else ""
        return f"{verification.accepts} of {valid} verdicts accept the answer{invalid}"
    if verification.score is not None:
        return f"The check scored the answer {verification.score:.2f}"
    return f"None of the {verification.invalid} verdicts is valid"
