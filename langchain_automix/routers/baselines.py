"""The baselines as routers, all fitted by the same call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from typing_extensions import override

from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.routers.base import Router, keep
from langchain_automix.routers.pomdp import POMDPRouter
from langchain_automix.types import Decision, RoutingState

if TYPE_CHECKING:
    from langchain_automix.policy.fitting.baselines import Family


class AlwaysRouter(POMDPRouter):
    """Ask the best single model without a check; with `max_cost`, randomly mix two models."""

    family: ClassVar[Family] = "always"


class RandomMixRouter(AlwaysRouter):
    """Randomly mix single models; fit it with `max_cost` or `min_quality`."""


class FittedThresholdRouter(POMDPRouter):
    """Escalate to the last model if the first one's confidence is low.

    This is "Thresholding" from AutoMix, section 4.2, with the threshold of the best utility on the
    log.
    """

    family: ClassVar[Family] = "threshold"


class DoubleThresholdRouter(POMDPRouter):
    """Escalate to the last model if the confidence lies in a window.

    This is `DoubleThreshold` from the released code, with the window of the best utility on the
    log.
    """

    family: ClassVar[Family] = "double_threshold"


class ReleasedPOMDPRouter(POMDPRouter):
    """The rule that the released AutoMix code calls POMDP, with one binning throughout.

    Of its candidates, it takes the one with the best utility on the log. The released code takes
    the one with the best ΔIBC, whatever the cost weight.
    """

    family: ClassVar[Family] = "released"


class OracleRouter(Router):
    """Choose the best model for each logged query: an upper bound, for replays only."""

    best: dict[str, int]
    """Model to ask, by query id."""

    @classmethod
    def fit(cls, log: RoutingLog, *, cost_weight: float = 0.0) -> Self:
        """Build an oracle that knows the model with the best utility for each query of a log.

        Args:
            log: The log that the oracle will be replayed on.
            cost_weight: How much quality one unit of the log's cost is worth.
        """
        best: dict[str, int] = {}
        for query in log:
            utilities = {
                j: answer.quality - cost_weight * answer.cost
                for j, answer in enumerate(query.answers)
                if answer.quality is not None and answer.cost is not None
            }
            best[query.id] = max(utilities, key=lambda j: utilities[j], default=0)
        return cls(best=best)

    @override
    def opening(self, model_count: int, query_id: str | None = None, **kwargs: Any) -> Decision:
        del model_count, kwargs
        index = self.best.get(query_id or "", 0)
        why = "An oracle knows how each model does."
        return Decision(action="escalate", model_index=index, samples=0, why=why)

    @override
    def _decide(self, state: RoutingState) -> Decision:
        return keep(state, why="An oracle asks one model only.")
