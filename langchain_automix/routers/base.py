"""What every router has in common: a Runnable from what is known to what is done next."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict
from typing_extensions import override

from langchain_automix.flow.serialization import PackageSerializable
from langchain_automix.flow.steps import NeedsNoSlot
from langchain_automix.types import Decision, RoutingState, Verification


class Router(NeedsNoSlot, PackageSerializable, RunnableSerializable[RoutingState, Decision]):
    """Base of the shipped routers.

    `AutoMixRunnable` takes any Runnable from `RoutingState` to `Decision`; one that derives
    from this class can also say with which model a query starts.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @property
    def label(self) -> str:
        """Short name of the rule that decides, by which traces are told apart."""
        return type(self).__name__

    def opening(
        self,
        model_count: int,
        query_id: str | None = None,
        *,
        cost_weight: float | None = None,
        checks: bool = True,
    ) -> Decision:
        """Return the step before anything is known: here, ask the cheapest model and check it.

        Args:
            model_count: Number of models in the mix.
            query_id: The query, for routers that treat some queries otherwise than others.
            cost_weight: How much quality one unit of cost is worth; None: the router's own.
            checks: Whether the answer will be checked.

        Raises:
            AutoMixError: The router cannot decide among this number of models.
        """
        del model_count, query_id, cost_weight, checks
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
        return self._call_with_config(self.decide, input, config)

    @override
    async def ainvoke(
        self, input: RoutingState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Decision:
        """Decide what to do next; there is nothing to wait for."""

        async def decide(state: RoutingState) -> Decision:
            return self.decide(state)

        return await self._acall_with_config(decide, input, config)

    def decide(self, state: RoutingState) -> Decision:
        """Decide what to do next, without a trace: microseconds, where `invoke` takes more."""
        check = state.current.verification
        usable = check is None or check.usable
        decision = self._decide(state) if usable else self._unusable(state)
        # For whoever reads the trace of this run alone.
        name = state.models[decision.model_index]
        return decision.model_copy(update={"model": name, "cost_so_far": state.cost_so_far})

    @abstractmethod
    def _decide(self, state: RoutingState) -> Decision: ...

    def _unusable(self, state: RoutingState) -> Decision:
        """Decide where the current answer cannot be used: no evidence could speak for it."""
        found = findings(state.current.verification)
        if (later := self._instead(state)) is not None:
            return later.model_copy(
                update={"why": f"{found}: {state.models[later.model_index]} is asked."}
            )
        for visit in reversed(state.visits):
            if visit.verification is None or visit.verification.usable:
                why = f"{found}: the earlier answer of {state.models[visit.model_index]} is kept."
                return Decision(action="answer", model_index=visit.model_index, why=why)
        return keep(state, why=f"{found}, and there is no larger model to ask.")

    def without_evidence(self, state: RoutingState, *, by_means: bool = False) -> Decision:
        """Decide where the check of the current answer failed: ask the next model, or keep it.

        Args:
            state: What is known; the current answer can be used.
            by_means: Whether to decide from the models' mean qualities, where they are known.
        """
        del by_means
        return next_or_keep(state, self._instead(state))

    @property
    def reads_several(self) -> bool:
        """Whether it may ask for another check of an answer where one failed."""
        return False

    def chance_of_escalation(self, state: RoutingState) -> tuple[int, float] | None:
        """Return which model the check to come will probably call for, and how probably.

        Args:
            state: What is known before the current answer is checked.

        Returns:
            The model's index and a probability in [0, 1]; None where that is not known.
        """
        del state
        return None

    def cost_weight_under_pressure(
        self, pressure: float, cost_weight: float | None
    ) -> float | None:
        """Return the cost weight by which to decide while money is short.

        Args:
            pressure: How much must be saved, in [0, 1].
            cost_weight: The usual weight; None: the router's own.

        Returns:
            The raised weight; None where the router cannot save by weighing costs.
        """
        del pressure, cost_weight
        return None

    def _instead(self, state: RoutingState) -> Decision | None:
        """Return the step to the model that is asked where an answer cannot be used."""
        later = next_model(state)
        return None if later is None else ask(state, later)


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


def next_or_keep(state: RoutingState, later: Decision | None = None) -> Decision:
    """Decide for the next model, or as given; where there is none, for the answer as it is."""
    found, following = findings(state.current.verification), next_model(state)
    if later is None and following is not None:
        later = ask(state, following)
    if later is None:
        return keep(state, why=f"{found}, and there is no larger model to ask.")
    why = f"{found}: {state.models[later.model_index]} is asked."
    return later.model_copy(update={"why": why})


def keep(state: RoutingState, **details: Any) -> Decision:
    """Decide for the current model's answer."""
    return Decision(action="answer", model_index=state.current.model_index, **details)


def findings(verification: Verification | None) -> str:
    """Say in words what a check found, or several did, as the start of a sentence."""
    if verification is None:
        return "The answer was not checked"
    if not verification.usable and not verification.problem:
        return "The answer cannot be used"
    further = [f"{name!r}: {_found(check)}" for name, check in verification.checks.items()]
    if verification.checks and not _is_made(verification):
        return _sentence("; ".join(further))
    return _sentence("; ".join([_found(verification), *further]))


def _is_made(check: Verification) -> bool:
    """Whether the first of several checks was made."""
    return bool(check.verdicts or check.problem or check.score is not None)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _found(check: Verification) -> str:
    if check.problem:
        return check.problem
    valid = check.accepts + check.rejects
    if valid:
        invalid = f" ({check.invalid} more were invalid)" if check.invalid else ""
        undrawn = f" ({check.undrawn})" if check.undrawn else ""
        return f"{check.accepts} of {valid} verdicts accept the answer{invalid}{undrawn}"
    if check.score is not None:
        return f"the check scored the answer {check.score:.2f}"
    return f"none of the {check.invalid} verdicts is valid"
