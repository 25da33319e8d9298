"""`POMDPRouter`: pay for a check or a larger model only where the evidence justifies it."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from langchain_core.runnables import Runnable
from pydantic import Field
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.decision.interpreter import (
    likely_escalation,
    next_in_play,
)
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.decision.prior import prior_policy
from langchain_automix.policy.decision.reweighting import (
    best_single_model,
    cost_weight_under_pressure,
    relative_cost,
    with_cost_weight,
)
from langchain_automix.policy.decision.table import DecisionRow, PlannedAction
from langchain_automix.routers.base import OPENING, Router, ask, keep, next_model, take
from langchain_automix.routers.buying import can_buy, decide_by_value, opening_by_cost
from langchain_automix.routers.evidence import best_row_in_time, follow, read
from langchain_automix.routers.explanations import decision_details
from langchain_automix.routers.off_plan import ask_unchecked, decide_unknown, decide_unread
from langchain_automix.types import Decision, RoutingState
from langchain_automix.utils.check_spec import spec_of
from langchain_automix.utils.fingerprints import fingerprint_of
from langchain_automix.utils.identifiers import is_of_package
from langchain_automix.utils.user_warnings import warn_user

if TYPE_CHECKING:
    from langchain_automix.policy.fitting.baselines import Family


class UncalibratedWarning(UserWarning):
    """A router decides by a prior that was not fitted to the user's models."""


class VerifierChangedWarning(UserWarning):
    """A policy was fitted to the checks of another verifier than the one in use."""


class POMDPRouter(Router):
    """Read checks as noisy evidence, and pay for a check or a larger model where that pays.

    The belief is the posterior over logged queries, given what the checks found. Backward
    induction gives the value, in every state, of keeping the best answer so far, of more verdicts,
    of asking a later model with or without a check, and of abstaining (AutoMix, section 4.2 and
    appendix A.3, with the check as an action). Deciding is a table look-up.

    Fit it to a routing log of your own models. Until then it decides by a documented prior, and
    warns once that it is not calibrated. In a mix without `verifier=` it buys each check by its
    price (`langchain_automix.routers.buying`); of another check it reads the verdicts
    (`langchain_automix.policy.decision.prior.prior_policy`).

    ??? example "Fit, save, load, decide"

        ```python
        from langchain_automix import POMDPRouter, RoutingLog, RoutingState, Verification

        POMDPRouter.fit(RoutingLog.read("log.jsonl")).save("policy.json")
        router = POMDPRouter.load("policy.json")
        state = RoutingState.after(Verification(verdicts=(True, False, True, True)))
        print(router.invoke(state).why)
        ```
    """

    policy: Policy = Field(default_factory=prior_policy)
    """The solved decision rule; by default the prior, which is not calibrated and reads verdicts
    only: after a check with a score it asks the next model."""

    on_unknown: Literal["escalate", "prior"] = "escalate"
    """What to do when the check gives no evidence that the policy reads (an empty answer; no valid
    verdict, where the log had no invalid ones): ask the next model, or decide from the mean
    qualities on the log. Where checks are bought by their price, and none is worth it, an answer
    that is there is kept, since the next model would cost what it is expected to gain."""

    family: ClassVar[Family] = "automix"

    @property
    @override
    def lc_attributes(self) -> dict[str, Any]:
        # A policy serialises as the JSON of its file.
        return {"policy": self.policy.model_dump(mode="json", by_alias=True)}

    @classmethod
    def fit(
        cls,
        log: RoutingLog,
        *,
        cost_weight: float | None = None,
        max_cost: float | None = None,
        min_quality: float | None = None,
        max_loss: float | None = None,
        max_risk: float | None = None,
        confidence: float | None = None,
        confidence_level: float | None = None,
        abstain_value: float | None = None,
        weights: Sequence[float] | None = None,
        verifier: Runnable[Any, Any] | str | None = None,
        seed: int = 0,
        own_cost: bool = False,
    ) -> Self:
        """Return a router fitted to a routing log, for at most one of the first four goals.

        Args:
            log: Queries with the quality and cost of all models and the checks of the cheaper ones.
            cost_weight: How much quality one unit of the log's cost is worth, at least 0. None,
                and no other goal: the weight at which a random mix of the cheapest and the dearest
                model neither gains nor loses.
            max_cost: Largest mean cost of a query, in the log's currency; met exactly, in
                expectation, by a second policy for some of the queries, chosen by id.
            min_quality: Smallest mean quality, in [0, 1], to reach at the least cost.
            max_loss: Largest mean quality, in [0, 1], to lose against the single model that is best
                on the log; the cheapest policy within it is fitted.
            max_risk: Largest probability, in (0, 1), that an answer is given and is wrong.
            confidence: How sure the target must be to hold on new queries, in (0, 1), beside
                `max_cost`, `min_quality`, `max_loss` or `max_risk`. None: it holds in expectation,
                and `policy.fit.notes` says how likely; for `max_risk` it is 0.95.
            confidence_level: The earlier name of `confidence`, for `max_risk`.
            abstain_value: Utility of giving no answer; None: an answer is always given.
            weights: Prior weight of each logged query, for instance from a pre-router.
            verifier: The verifier that made the log, or its `fingerprint`. None: the one in the
                `metadata` of all its queries, if they agree.
            seed: Seed for the folds, and for the choice between two policies.
            own_cost: Whether a query whose own answer cost more, or less, than usual takes a larger
                model for dearer, or cheaper, in proportion. Not with `max_risk`.

        Raises:
            AutoMixError: The log holds nothing to learn from, or the goal is out of reach; the
                message names the reachable range.
        """
        from langchain_automix.policy.fitting.fit import fit_policy  # noqa: PLC0415  (numpy)
        from langchain_automix.policy.fitting.goal import Goal  # noqa: PLC0415  (numpy)

        goal = Goal(
            cost_weight=cost_weight,
            max_cost=max_cost,
            min_quality=min_quality,
            max_loss=max_loss,
            max_risk=max_risk,
            confidence=confidence_level if confidence is None else confidence,
            abstain_value=abstain_value,
        )
        made = spec_of(verifier) if isinstance(verifier, Runnable) else verifier
        policy = fit_policy(
            log,
            goal,
            family=cls.family,
            verifier=made,
            weights=weights,
            seed=seed,
            own_cost=own_cost,
        )
        return cls(policy=policy)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return a router with the policy of a file, which is validated and never evaluated.

        Raises:
            AutoMixError: The file cannot be read or is not a policy file.
        """
        return cls(policy=Policy.load(path))

    def save(self, path: str | Path) -> None:
        """Write the policy to a file, as versioned JSON.

        Raises:
            AutoMixError: The file cannot be written.
        """
        self.policy.save(path)

    @property
    @override
    def label(self) -> str:
        return f"{self.family}:{self.policy.fingerprint}" if self.is_calibrated else "prior"

    @property
    def is_calibrated(self) -> bool:
        """Whether the policy was fitted to a log."""
        return self.policy.fit.queries > 0

    def warn_of_verifier(self, verifier: Runnable[Any, Any]) -> None:
        """Warn if the verifier that checks is not the one that the policy was fitted to."""
        fitted, here = self.policy.verifier, fingerprint_of(verifier)
        if fitted is None or fitted == here:
            return
        warn_user(
            f"The policy was fitted to another check than the one in use. Fitted to: {self.check} "
            f"[{fitted}]. In use: {spec_of(verifier).in_words(self.policy.models[:-1])} [{here}]. "
            "Its decisions may be off: build the mix with from_policy, which takes the check that "
            "the policy was fitted to, or calibrate and fit again with this one.",
            VerifierChangedWarning,
        )

    @property
    def check(self) -> str | None:
        """The check that the policy was fitted to, in words; None if the policy does not say."""
        return self.policy.check_in_words

    def explain(self) -> str:
        """Return the policy in words and as a table."""
        from langchain_automix.policy.decision.describe import describe_policy  # noqa: PLC0415  (seldom needed)

        return describe_policy(self.policy)

    def plot(self, log: RoutingLog | None = None, *, kind: str = "benefit") -> Any:
        """Return a matplotlib figure of the policy; needs the extra `plots`.

        Args:
            log: The log whose data are drawn behind the curve; needed for the frontier.
            kind: `benefit`: expected benefit by confidence. `frontier`: quality by cost, with the
                baselines.

        Raises:
            AutoMixError: matplotlib is not installed, or the log is missing.
        """
        # By name: plots are on a higher floor, and need matplotlib.
        plots = importlib.import_module("langchain_automix.report.plots")
        return plots.plot(self.policy, log, kind=kind)

    @override
    def opening(
        self,
        model_count: int,
        query_id: str | None = None,
        *,
        cost_weight: float | None = None,
        checks: bool = True,
    ) -> Decision:
        if not self.is_calibrated:
            return OPENING
        if model_count != len(self.policy.models):
            raise AutoMixError(
                f"The policy was fitted to {len(self.policy.models)} models "
                f"({', '.join(self.policy.models)}), but {model_count} are mixed here: mix the "
                "same models, or use a ThresholdRouter for more of them."
            )
        if cost_weight is not None and "max_risk" in self.policy.goal:
            raise AutoMixError(
                "The policy was fitted with max_risk, whose guarantee holds for its own cost "
                "weight only: leave out cost_weight, or fit with cost_weight instead of max_risk."
            )
        step = self.policy.plan_for(query_id).opening
        if (cost_weight is not None and step.then is None) or not checks:
            best = best_single_model(self.policy, cost_weight)
            if best is not None:
                step = PlannedAction(action="escalate", model=best, samples=0)
        name = self.policy.models[step.model]
        why = f"A query starts with {name}, whose answer is checked."
        if step.then is None:
            why = f"The policy gives this query to {name} and pays for no check."
        return take(step, why=why)

    @property
    @override
    def weighs_costs(self) -> bool:
        return not self.is_calibrated

    @override
    def opening_by_cost(self, state: RoutingState) -> Decision:
        if self.is_calibrated or not can_buy(state):
            return super().opening_by_cost(state)
        _warn_uncalibrated()
        return opening_by_cost(state, self._weight_factor(state))

    def _weight_factor(self, state: RoutingState) -> float:
        """Return the cost weight of a query as a multiple of the policy's own."""
        own = self.policy.cost_weight
        return 1.0 if state.cost_weight is None or not own else state.cost_weight / own

    @override
    def _decide(self, state: RoutingState) -> Decision:
        if not self.is_calibrated:
            _warn_uncalibrated()
            if can_buy(state):
                return decide_by_value(state, self._weight_factor(state))
            return self._decide_by_prior(state)
        plan = self.policy.plan_for(state.query_id)
        _, row = follow(plan, state, self.policy.models)
        if row is None:
            if not plan.tables:
                return decide_unread(state, self._later(state))
            return self._decide_unknown(state)
        weight = self._cost_weight(plan, state)
        if weight != plan.cost_weight:
            row = with_cost_weight(row, self.policy, plan, state.answered, weight)
        row = best_row_in_time(row, plan, state, self.policy.models)
        return take(row.step, **self._details(state, row, state.models, plan))

    @override
    def _ask_next(self, state: RoutingState) -> Decision | None:
        if not self.is_calibrated:
            return super()._ask_next(state)
        later = self._later(state)
        if later is None:
            later = next_model(state)
        # No table covers a check that follows an unusable answer.
        return None if later is None else ask_unchecked(later)

    @override
    def without_evidence(self, state: RoutingState, *, by_means: bool = False) -> Decision:
        if by_means:
            return self._decide_unknown(state, by_means=True)
        return super().without_evidence(state)

    @property
    @override
    def reads_several(self) -> bool:
        return any(table.checks for plan in self.policy.plans for table in plan.tables)

    @override
    def chance_of_escalation(self, state: RoutingState) -> tuple[int, float] | None:
        if not self.is_calibrated:
            return None
        table, _ = follow(self.policy.plan_for(state.query_id), state, self.policy.models)
        return None if table is None else likely_escalation(table)

    @override
    def score_edges(self, state: RoutingState) -> Sequence[float] | None:
        if not self.is_calibrated or self.policy.own_cost or not is_of_package(type(self)):
            return None
        return self.policy.plan_for(state.query_id).score_edges

    @override
    def cost_weight_under_pressure(
        self, pressure: float, cost_weight: float | None
    ) -> float | None:
        if "max_risk" in self.policy.goal:  # its guarantee holds for its own weight only
            return None
        return cost_weight_under_pressure(self.policy, cost_weight, pressure)

    def _cost_weight(self, plan: Plan, state: RoutingState) -> float:
        """Return the cost weight of a query, by its own answer's cost if the policy says so."""
        weight = plan.cost_weight if state.cost_weight is None else state.cost_weight
        if (means := self.policy.own_costs) is None:
            return weight
        return weight * relative_cost(self._own_cost(state), means[state.current.model_index])

    def _own_cost(self, state: RoutingState) -> float | None:
        """Return what the current answer cost in the policy's currency; None if unknown."""
        return state.answer_cost.get(self.policy.currency or "")

    def _later(self, state: RoutingState) -> int | None:
        """Return the model to ask where nothing is known of the current answer."""
        if not self.is_calibrated:
            return next_model(state)
        return next_in_play(self.policy.plan_for(state.query_id), state.current.model_index)

    def _decide_by_prior(self, state: RoutingState) -> Decision:
        """Decide between this model and the next as between the prior's two models."""
        plan, current, later = self.policy.plans[0], state.current, next_model(state)
        row = read(plan, plan.tables[0], current.verification, {0}, self.policy.models)
        if later is None or row is None:
            return self._decide_unknown(state)
        names = (state.models[current.model_index], state.models[later])
        if state.cost_weight is not None:
            row = with_cost_weight(row, self.policy, plan, {0}, state.cost_weight)
        large = row.values["escalate:large"]
        values = {"answer": row.values["answer"], f"escalate:{names[1]}": large}
        row = row.model_copy(update={"values": values})
        decision = keep(state) if row.step.action == "answer" else ask(state, later)
        return decision.model_copy(update=self._details(state, row, names, plan))

    def _decide_unknown(self, state: RoutingState, *, by_means: bool = False) -> Decision:
        by_means = by_means or self.on_unknown == "prior"
        return decide_unknown(self.policy, state, self._later(state), by_means=by_means)

    def _details(
        self, state: RoutingState, row: DecisionRow, names: tuple[str, ...], plan: Plan
    ) -> dict[str, Any]:
        weight = self._cost_weight(plan, state)
        details = decision_details(self.policy, plan, state, row, names, weight)
        if self.policy.own_costs and self._own_cost(state) is None:
            details["why"] += (
                " What this answer cost is not known, so the price is that of a usual query."
            )
        return details


@functools.cache
def _warn_uncalibrated() -> None:
    warn_user(
        "POMDPRouter decides by a prior that is not calibrated to your models: fit one to a "
        "routing log with POMDPRouter.fit(log), and load it with POMDPRouter.load(path).",
        UncalibratedWarning,
    )
