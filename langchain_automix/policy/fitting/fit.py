"""Fit a policy to a routing log, for a goal in the user's words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.arrays import Floats, LogArrays, to_arrays
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import Candidate, FitStatistics, Policy
from langchain_automix.policy.decision.score_prior import SHIPPED, ScorePrior
from langchain_automix.policy.fitting.baselines import Family, FittedRule, fit_rule
from langchain_automix.policy.fitting.candidates import (
    CROSS_FIT_ROWS,
    CandidateFitter,
    always,
)
from langchain_automix.policy.fitting.confidence import meet_with_confidence
from langchain_automix.policy.fitting.digest import log_digest
from langchain_automix.policy.fitting.expectation import meet_in_expectation
from langchain_automix.policy.fitting.frontier import (
    FrontierPoint,
    JudgedFrontier,
    Mixture,
    frontier,
    mean_costs,
)
from langchain_automix.policy.fitting.goal import GOALS, Goal
from langchain_automix.policy.fitting.risk_control import certify
from langchain_automix.policy.fitting.selection import FittedCandidate, select_candidate
from langchain_automix.policy.pomdp.extract_plan import compact
from langchain_automix.policy.replay import replay_plan
from langchain_automix.utils.check_spec import CheckSpec

_COST_WEIGHTS = (0.0, *(2.0**k for k in range(-5, 6)))
"""Cost weights that are solved along the frontier, as multiples of the indifferent one."""

_STEPS_PER_DOUBLING, _DOUBLINGS = 2, 5
"""Grid of cost weights for pairs among more than two models: its spacing, and how far it extends
beyond the prices at which one model replaces another."""

_MOST_WEIGHTS = 60

_BELIEVED_GOALS = ("cost_weight", "max_cost", "abstain_value")
"""Goals that can be fitted without any label, since they promise no quality."""

FEW = 30
"""Number of complete queries below which the choice of a policy rests more on prior assumptions
than on the data."""


def fit_policy(
    log: RoutingLog | LogArrays,
    goal: Goal | None = None,
    *,
    family: Family = "automix",
    verifier: CheckSpec | str | None = None,
    weights: Sequence[float] | None = None,
    seed: int = 0,
    foretell: bool = True,
    own_cost: bool = False,
    prior: ScorePrior | None = SHIPPED,
) -> Policy:
    """Fit a policy to a routing log.

    Args:
        log: Queries that all models answered, with the checks of the cheaper ones. Queries without
            qualities, whose first answer was checked, show what checks find in the traffic. A log
            of nothing else can be fitted for a cost weight or a mean cost.
        goal: What to fit for. None: the cost weight at which mixing the cheapest and the dearest
            model at random neither gains nor loses, which is what the paper's ΔIBC compares with
            (AutoMix, section 5.1, equation 1).
        family: `automix` for the POMDP with its choice among families, or a baseline.
        verifier: The spec or the fingerprint of the verifier that checked. None: as recorded in the
            log.
        weights: Prior weight of each logged query, for instance from a pre-router.
        seed: Seed for folds and for mixing; the same seed gives the same policy.
        foretell: Whether the notes say how likely new queries are to meet a target that is met in
            expectation; takes five more fits.
        own_cost: Whether the price of a larger model is scaled by the cost of a query's own answer.
        prior: Assumptions about a score before any label; None for no assumptions.

    Raises:
        AutoMixError: The log contains nothing to learn from, the goal is out of reach
            (`OutOfReachError`), or it cannot be shown with the requested confidence
            (`TooFewExamplesError`). The message names what can be reached.
    """
    goal = goal or Goal()
    _validate(goal, family, seed, own_cost)
    columns = log if isinstance(log, LogArrays) else to_arrays(log, weights)
    learner = CandidateFitter(columns, seed=seed, prior=prior)
    if not learner.labels:
        _refuse_without_labels(goal, family)
    weight = _cost_weight(learner, goal)
    chosen = _choose_plans(learner, weight, goal, family, foretell, own_cost)
    data = learner.columns
    notes = (*chosen.notes, *_remarks(learner, goal, weight))
    several = any(table.checks for plan in chosen.plans for table in plan.tables)
    fingerprint, spec = _verifier_of(log, verifier)
    return Policy(
        version=2 if several else 1,
        models=data.models,
        currency=None if isinstance(log, LogArrays) else log.currency,
        verifier=fingerprint,
        check_spec=spec,
        own_cost=own_cost,
        goal=goal.to_record(),
        cost_weight=chosen.cost_weight,
        plans=chosen.plans,
        first_share=chosen.first_share,
        seed=seed,
        fit=FitStatistics(
            queries=len(data),
            quality=tuple(data.mean(data.quality).tolist()),
            cost=tuple(data.mean(data.cost).tolist()),
            candidates=chosen.candidates,
            log=None if isinstance(log, LogArrays) else log_digest(log),
            notes=notes,
        ),
    )


def _verifier_of(
    log: RoutingLog | LogArrays, verifier: CheckSpec | str | None
) -> tuple[str | None, CheckSpec | None]:
    """Return the fingerprint of the verifier that checked, and its spec."""
    if isinstance(verifier, CheckSpec):
        return verifier.fingerprint, verifier
    if isinstance(log, LogArrays):
        return verifier, None
    known = log.verifier
    return verifier or known, log.check_spec if verifier in (None, known) else None


def _validate(goal: Goal, family: Family, seed: int, own_cost: bool) -> None:
    """Reject a goal that no fit can meet."""
    if own_cost and goal.max_risk is not None:
        raise AutoMixError(
            "own_cost and max_risk cannot be had together: the guarantee holds for decisions that "
            "do not depend on what a query costs."
        )
    for name in ("max_risk", "abstain_value"):
        if family != "automix" and getattr(goal, name) is not None:
            raise AutoMixError(f"The rules of the family {family!r} know no {name}.")
    if seed < 0:
        raise AutoMixError(f"seed must be at least 0; given: {seed}.")


def _refuse_without_labels(goal: Goal, family: Family) -> None:
    """Reject what a log without labels cannot give: a promise, or a rule without a prior."""
    asked = [name for name in goal.to_record() if name not in _BELIEVED_GOALS]
    if asked or family != "automix":
        what = f"{asked[0]} needs" if asked else f"The rules of the family {family!r} need"
        raise AutoMixError(
            f"{what} queries that all models answered, with quality and cost; the routing log has "
            "none. Without them a policy rests on prior assumptions: fit it for a cost_weight."
        )


@dataclass(frozen=True)
class _ChosenPlans:
    plans: tuple[Plan, ...]
    first_share: float
    cost_weight: float
    candidates: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()


def _cost_weight(learner: CandidateFitter, goal: Goal) -> float:
    """Return the goal's cost weight, or the indifferent one if it has none."""
    if goal.cost_weight is not None:
        return goal.cost_weight
    # A bound on cost or quality implies a cost weight, so the models need no order of cost.
    return (_slope if _is_on_frontier(goal) else _indifferent)(learner)


def _is_on_frontier(goal: Goal) -> bool:
    return bool(goal.target)


def _choose_plans(
    learner: CandidateFitter,
    weight: float,
    goal: Goal,
    family: Family,
    foretell: bool,
    own_cost: bool,
) -> _ChosenPlans:
    if goal.max_risk is not None:
        fit = certify(learner, weight, goal.max_risk, goal.risk_confidence, goal.abstain_value)
        return _ChosenPlans((fit.plan,), 1.0, fit.cost_weight, (), fit.notes)
    if _is_on_frontier(goal):
        return _on_frontier(learner, goal, family, foretell, own_cost)
    return _for_weight(learner, weight, goal.abstain_value, family)


def indifferent_weight(columns: LogArrays, level: Floats | None = None) -> float:
    """Return the cost weight at which randomly mixing the first and the last model is indifferent.

    It is the difference in quality between the last and the first model, divided by the difference
    in cost, or 0 if the last model is not better.

    Args:
        columns: The log.
        level: (models,): expected mean quality of each model. None: the mean on the log.

    Raises:
        AutoMixError: The last model costs no more than the first.
    """
    quality = columns.mean(columns.quality) if level is None else level
    cost = columns.mean(columns.cost)
    if cost[-1] <= cost[0]:
        raise AutoMixError(
            f"In the routing log {columns.models[-1]} costs no more than {columns.models[0]} "
            f"({cost[-1]:g} against {cost[0]:g} a query): put the models in the order cheap to "
            "expensive, or use the better one alone."
        )
    return max(0.0, float((quality[-1] - quality[0]) / (cost[-1] - cost[0])))


def _candidates(
    learner: CandidateFitter,
    weight: float,
    abstain_value: float | None,
    family: Family,
    most_complex: int = 3,
) -> tuple[FittedCandidate | FittedRule, list[Candidate]]:
    if family == "automix":
        candidates = learner.candidates(weight, abstain_value, most_complex=most_complex)
        return select_candidate(candidates)
    return fit_rule(learner.columns, weight, family), []


def _for_weight(
    learner: CandidateFitter, weight: float, abstain_value: float | None, family: Family
) -> _ChosenPlans:
    best, records = _candidates(learner, weight, abstain_value, family)
    return _ChosenPlans((best.plan,), 1.0, weight, tuple(records))


def _on_frontier(
    learner: CandidateFitter, goal: Goal, family: Family, foretell: bool, own_cost: bool
) -> _ChosenPlans:
    """Meet a target by mixing two neighbouring policies of the frontier."""

    def hull(part: CandidateFitter) -> list[FrontierPoint]:
        points = _points(part, _slope(part), goal.abstain_value, family)
        return frontier(_by_own_cost(part, points) if own_cost else points)

    judged = JudgedFrontier(learner, hull, own_cost)
    where: Mixture | int
    if goal.confidence is None:
        where, notes = meet_in_expectation(judged, goal, foretell=foretell)
    else:
        where, notes = meet_with_confidence(judged, goal, goal.confidence)
    if isinstance(where, Mixture):
        return _mixed(judged.points, where, notes)
    plan = always(learner.columns.models, where)
    return _ChosenPlans((plan,), 1.0, _slope(learner), (), notes)


def _mixed(points: list[FrontierPoint], where: Mixture, notes: tuple[str, ...]) -> _ChosenPlans:
    first = points[where.first]
    if where.share == 1:
        return _ChosenPlans((first.plan,), 1.0, first.weight, (), notes)
    second = points[where.first + 1]
    slope = (second.quality - first.quality) / (second.cost - first.cost)
    plans = (first.plan, second.plan)
    return _ChosenPlans(plans, where.share, max(slope, 0.0), (), notes)


def _by_own_cost(learner: CandidateFitter, points: list[FrontierPoint]) -> list[FrontierPoint]:
    """Adjust points by what changes on the log if each query's own cost scales the price."""
    rows = learner.columns.rows(learner.sample)
    means, found = mean_costs(learner.columns), []
    for point in points:
        plain, own = (replay_plan(point.rule, rows, each) for each in (None, means))
        cost, quality = (
            float(rows.mean(getattr(own, name) - getattr(plain, name)))
            for name in ("cost", "quality")
        )
        found.append(replace(point, cost=point.cost + cost, quality=point.quality + quality))
    return found


def _points(
    learner: CandidateFitter, weight: float, abstain_value: float | None, family: Family
) -> list[FrontierPoint]:
    data = learner.columns
    points = [
        FrontierPoint(
            float(data.mean(data.cost)[j]), float(learner.level[j]), always(data.models, j), weight
        )
        for j in learner.singles
    ]
    base = weight or 1.0 / max(float(data.mean(data.cost)[-1]), 1e-300)
    # Judge only once whether more than two models or several checks pay, since their trees take the
    # most time.
    middle, _ = _candidates(learner, base, abstain_value, family)
    most_complex = 3 if isinstance(middle, FittedCandidate) and middle.complexity == 3 else 2  # noqa: PLR2004
    for rung in _COST_WEIGHTS:
        fitted, _ = _candidates(learner, rung * base, abstain_value, family, most_complex)
        outcomes = learner.replay(fitted.rule)
        cost = float(data.weight @ outcomes.cost / data.weight.sum())
        # Use the quality that the shrunk belief expects; that on this very log would be too
        # optimistic.
        quality = fitted.expected + rung * base * cost
        points.append(
            FrontierPoint(cost, min(max(quality, 0.0), 1.0), compact(fitted.rule), rung * base)
        )
    if family == "automix" and len(data.models) > 2:  # noqa: PLR2004
        points += _points_of_pairs(learner, base, abstain_value)
    return points


def _points_of_pairs(
    learner: CandidateFitter, base: float, abstain_value: float | None
) -> Iterator[FrontierPoint]:
    """Yield what every pair of models is expected to reach with checks, at every cost weight.

    A single choice per cost weight would omit pairs that are second best there, and the hull of the
    others would lie below what these pairs reach by themselves.
    """
    data = learner.columns
    rows = data if len(data) <= CROSS_FIT_ROWS else data.rows(learner.sample)
    for weight in _weights_of_pairs(data, base):
        for fitted in learner.candidates(weight, abstain_value, most_complex=1):
            if fitted.complexity == 1:
                cost = float(rows.mean(replay_plan(fitted.rule, rows).cost))
                quality = min(max(fitted.expected + weight * cost, 0.0), 1.0)
                yield FrontierPoint(cost, quality, compact(fitted.rule), weight)


def _weights_of_pairs(columns: LogArrays, base: float) -> list[float]:
    """Return cost weights around the price of quality between every two models, and 0.

    This price is the slope from one model to a dearer and better one. It differs between pairs, and
    each pair performs best around its own.
    """
    quality, cost = columns.mean(columns.quality), columns.mean(columns.cost)
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (quality[None, :] - quality[:, None]) / (cost[None, :] - cost[:, None])
    known = slopes[np.isfinite(slopes) & (slopes > 0)]
    low, high = (known.min(), known.max()) if len(known) else (base, base)
    number = round(_STEPS_PER_DOUBLING * (math.log2(high / low) + 2 * _DOUBLINGS)) + 1
    spread: float = 2.0**_DOUBLINGS
    return [0.0, *np.geomspace(low / spread, high * spread, min(number, _MOST_WEIGHTS)).tolist()]


def _remarks(learner: CandidateFitter, goal: Goal, weight: float) -> tuple[str, ...]:
    """Return notes on the log for the reader of the policy."""
    data, notes = learner.columns, list(learner.notes)
    if all(getattr(goal, name) is None for name in GOALS):
        notes.append(
            f"No goal was given, so quality is weighed at {weight:g} a unit of cost: there, mixing "
            f"{data.models[0]} and {data.models[-1]} at random neither gains nor loses."
        )
    if not learner.checkable:
        notes.append(
            "No answer in the log was checked, or too few were, so only policies without a check "
            "were compared."
        )
    if 0 < learner.labels < FEW:
        number = "one complete query" if len(data) == 1 else f"{len(data)} complete queries"
        notes.append(
            f"The log has {number}; below about {FEW} the choice rests on prior assumptions more "
            "than on the data."
        )
    if float(np.ptp(data.quality)) == 0:
        notes.append("All answers have the same quality: the cheapest model is as good as any.")
    return (*notes, *learner.notes_on_labels)


def policy_frontier(columns: LogArrays, *, seed: int = 0) -> list[Plan]:
    """Return the plans along the frontier of quality against cost, from cheap to good."""
    return [point.plan for point in frontier_points(CandidateFitter(columns, seed=seed))]


def frontier_points(learner: CandidateFitter) -> list[FrontierPoint]:
    """Return the frontier on which a bound on cost or quality is met, from cheap to good."""
    return frontier(_points(learner, _slope(learner), None, "automix"))


def _indifferent(learner: CandidateFitter) -> float:
    """Return the indifferent cost weight, given the expected qualities of the models."""
    return indifferent_weight(learner.columns, learner.level)


def _slope(learner: CandidateFitter) -> float:
    """Return the indifferent cost weight, or 0 if the models are not ordered by cost."""
    try:
        return _indifferent(learner)
    except AutoMixError:
        return 0.0
