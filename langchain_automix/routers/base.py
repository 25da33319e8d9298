"""Base class of the routers: Runnables from a `RoutingState` to a `Decision`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict
from typing_extensions import override

from langchain_automix.flow.serialization import PackageSerializable
from langchain_automix.flow.steps import MadeOfSteps, Steps, made_of_steps
from langchain_automix.policy.decision.table import PlannedAction
from langchain_automix.routers.explanations import findings
from langchain_automix.types import Decision, RoutingState, Visit


class Router(MadeOfSteps, PackageSerializable, RunnableSerializable[RoutingState, Decision]):
    """Base class of the routers of this package.

    `AutoMixRunnable` accepts any Runnable from `RoutingState` to `Decision`; a subclass can also
    choose the model that a query starts with.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @property
    def label(self) -> str:
        """Short name of the decision rule, which tells traces apart."""
        return type(self).__name__

    def opening(
        self,
        model_count: int,
        query_id: str | None = None,
        *,
        cost_weight: float | None = None,
        checks: bool = True,
    ) -> Decision:
        """Return the first step: by default, ask the cheapest model and check its answer.

        Args:
            model_count: Number of models in the mix.
            query_id: Id of the query, for routers that choose among several rules by id.
            cost_weight: How much quality one unit of cost is worth; None for the router's own
                weight.
            checks: Whether the answer will be checked.

        Raises:
            AutoMixError: The router cannot decide among this number of models.
        """
        del model_count, query_id, cost_weight, checks
        return OPENING

    @override
    def steps(self, input: RoutingState, **kwargs: Any) -> Steps[Decision]:
        yield from ()
        # There is no trace, so leave out what is meant for its readers.
        is_own = type(self).decide is Router.decide
        return self._decide_any(input) if is_own else self.decide(input)

    @override
    @made_of_steps
    def invoke(
        self, input: RoutingState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Decision:
        """Decide what to do next, given what is known about the answers so far."""
        return self._call_with_config(self.decide, input, config)

    @override
    @made_of_steps
    async def ainvoke(
        self, input: RoutingState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Decision:
        """Decide what to do next, without ever blocking."""

        async def decide(state: RoutingState) -> Decision:
            return self.decide(state)

        return await self._acall_with_config(decide, input, config)

    def decide(self, state: RoutingState) -> Decision:
        """Decide what to do next, without a trace: in microseconds, where `invoke` takes longer."""
        decision = self._decide_any(state)
        if not _is_among(state, decision):
            return decision  # a mix says what is wrong with it
        # For readers of the trace, who see only this run.
        name = state.models[decision.model_index]
        return decision.model_copy(update={"model": name, "cost_so_far": state.cost_so_far})

    def _decide_any(self, state: RoutingState) -> Decision:
        is_usable = _is_usable(state.current)
        return self._decide(state) if is_usable else self._decide_unusable(state)

    @abstractmethod
    def _decide(self, state: RoutingState) -> Decision: ...

    def _decide_unusable(self, state: RoutingState) -> Decision:
        """Decide after an answer that cannot be used, regardless of its evidence.

        After the last model, keep even that answer: an earlier answer that was not kept is no
        better for it.
        """
        return next_or_keep(state, self._ask_next(state))

    def without_evidence(self, state: RoutingState, *, by_means: bool = False) -> Decision:
        """Decide after the check of a usable answer failed: ask the next model, or keep the answer.

        Args:
            state: The evidence so far.
            by_means: Whether to decide by the models' mean qualities, if known.
        """
        del by_means
        return next_or_keep(state, self._ask_next(state))

    @property
    def weighs_costs(self) -> bool:
        """Whether the router reads `RoutingState.expected_costs`, which are then computed."""
        return False

    def opening_by_cost(self, state: RoutingState) -> Decision:
        """Return the first step if `weighs_costs` is True and checks can be bought.

        Args:
            state: The state before any visit, with the expected cost of each option.
        """
        return self.opening(len(state.models), state.query_id, cost_weight=state.cost_weight)

    @property
    def reads_several(self) -> bool:
        """Whether the router may ask for another check of an answer after one failed."""
        return False

    def chance_of_escalation(self, state: RoutingState) -> tuple[int, float] | None:
        """Return the model most likely to be asked after the next check, and its probability.

        Return None if that is unknown.
        """
        del state
        return None

    def score_edges(self, state: RoutingState) -> Sequence[float] | None:
        """Return the scores of a check at which the decision may change, in ascending order.

        All scores from one edge up to the next lead to the same step.

        Args:
            state: The state before the answer that is to be checked.

        Returns:
            The edges; None if unknown, or if anything besides the findings, such as the cost of the
            answer, may change the decision.
        """
        del state
        return None

    def cost_weight_under_pressure(
        self, pressure: float, cost_weight: float | None
    ) -> float | None:
        """Return the cost weight to decide with while money is short.

        Args:
            pressure: How much must be saved, in [0, 1].
            cost_weight: The usual weight; None for the router's own.

        Returns:
            The raised weight; None if the router cannot save by weighing costs.
        """
        del pressure, cost_weight
        return None

    def _ask_next(self, state: RoutingState) -> Decision | None:
        """Return the step to the next model, if the current answer gives no evidence."""
        later = next_model(state)
        return None if later is None else ask(state, later)


OPENING = Decision(action="escalate", model_index=0, why="A query starts with the cheapest model.")


def next_model(state: RoutingState) -> int | None:
    """Return the index of the model after the current one, or None after the last."""
    later = state.current.model_index + 1
    return later if later < len(state.models) else None


def ask(state: RoutingState, model_index: int, **details: Any) -> Decision:
    """Return the decision to ask a later model, with a check unless it is the last."""
    is_last = model_index == len(state.models) - 1
    return Decision(
        action="escalate", model_index=model_index, samples=0 if is_last else None, **details
    )


def next_or_keep(state: RoutingState, later: Decision | None = None) -> Decision:
    """Return the decision to ask a later model, by default the next; after the last, keep."""
    evidence, following = findings(state.current.verification), next_model(state)
    if later is None and following is not None:
        later = ask(state, following)
    if later is None:
        return keep(state, why=f"{evidence}, and there is no larger model to ask.")
    why = f"{evidence}: {state.models[later.model_index]} is asked."
    return later.model_copy(update={"why": why})


def keep(state: RoutingState, **details: Any) -> Decision:
    """Return the decision to keep the current model's answer."""
    return Decision(action="answer", model_index=state.current.model_index, **details)


def take(step: PlannedAction, **details: Any) -> Decision:
    """Return the decision to take a step of a plan."""
    return Decision(
        action=step.action,
        model_index=step.model,
        samples=step.samples,
        check=step.check,
        **details,
    )


def _is_among(state: RoutingState, decision: Any) -> bool:
    """Whether the value is a decision for one of the models; a subclass may return anything."""
    return isinstance(decision, Decision) and 0 <= decision.model_index < len(state.models)


def _is_usable(visit: Visit) -> bool:
    return visit.verification is None or visit.verification.usable
