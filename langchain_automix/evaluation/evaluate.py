"""Judge a router on a routing log: quality, cost, baselines, and how certain they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.evaluation.cost_at_quality import (
    CrossFittedFrontier,
    costs_at_quality,
    cross_fit,
    cross_fitted_frontier,
)
from langchain_automix.evaluation.headline import build_headline
from langchain_automix.evaluation.outlook import Outlook, cross_fitted_outlook, outlook_of
from langchain_automix.evaluation.plain_rules import (
    QualityAndCost,
    cross_fitted_rule,
    random_mix,
    with_foresight,
)
from langchain_automix.evaluation.recommendation import FEW
from langchain_automix.evaluation.result import Baseline, Evaluation
from langchain_automix.evaluation.router_replay import RouterOutcome, replay_router
from langchain_automix.policy.data.arrays import Floats, LogArrays, to_arrays
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.baselines import Family, best_single, confidences
from langchain_automix.policy.fitting.cross_fitting import CrossFit
from langchain_automix.policy.fitting.digest import was_fitted_to
from langchain_automix.policy.fitting.fit import indifferent_weight
from langchain_automix.policy.fitting.fitting_data import complete
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.replay import Outcomes, replay_policy
from langchain_automix.policy.statistics import (
    Calibration,
    Lift,
    bootstrap,
    calibration,
    ibc_lift,
    mean_interval,
)
from langchain_automix.routers.base import Router
from langchain_automix.routers.pomdp import POMDPRouter

_CHANCE = 0.5
"""AUROC of a check that tells nothing."""

_SHOWN_DIFFERENCE = 0.02
"""A difference in utility that matters; if the interval is wider, the log is called too small."""

_FLATTERED = (
    "The policy was fitted to this very log, which flatters the figures of its replay: judge it on "
    "queries that it has not seen. The first lines and the frontier are cross-fitted: there, each "
    "query is judged by a policy that was fitted without it."
)


def evaluate(
    router: Router, log: RoutingLog, *, cost_weight: float | None = None, seed: int = 0
) -> Evaluation:
    """Replay a router on a log, and compare it with the baselines.

    Sequential policies draw the recorded verdicts in order. The threshold rules are cross-fitted on
    two halves of the log, and the frontier in folds, so that no rule is judged on the queries that
    it was fitted to.

    Args:
        router: Any router; one with a policy is replayed as fast as the log is read.
        log: Queries that all models answered.
        cost_weight: How much quality one unit of cost is worth. None: the policy's own weight or,
            for routers without a policy, the weight at which random mixing of the end models is
            indifferent.
        seed: Seed for halves and resampling.

    Raises:
        AutoMixError: The router is for other models, it asks for something that is not in the log,
            or no query is complete.
    """
    arrays = to_arrays(log)
    policy = router.policy if isinstance(router, POMDPRouter) and router.is_calibrated else None
    if policy is not None:
        validate_models(policy, log)
    usable = complete(arrays)
    if cost_weight is None:
        cost_weight = indifferent_weight(usable) if policy is None else policy.cost_weight
    del usable  # a copy that may hold millions of queries
    data = arrays.rows(arrays.complete)
    rows = np.flatnonzero(arrays.complete)
    ids = [log.store.ids[row] for row in rows]
    if policy is None or getattr(router, "on_unknown", "escalate") != "escalate":
        outcomes = _to_outcomes([replay_router(router, log[row : row + 1])[0] for row in rows])
    else:
        outcomes = replay_policy(policy, data, ids)
    folds = cross_fit(data, ids, cost_weight, seed) if len(data) >= FEW else None
    is_flattered, outlook = policy is not None and was_fitted_to(policy, log), None
    if policy is not None and is_flattered and folds is not None:
        outlook = cross_fitted_outlook(policy, folds, cost_weight, seed)
    evaluation = evaluate_outcomes(
        outcomes,
        data,
        cost_weight,
        policy=policy,
        currency=log.currency,
        folds=folds,
        outlook=outlook,
        seed=seed,
    )
    words = (*evaluation.words, *arrays.notes)
    if not is_flattered:
        return replace(evaluation, words=words)
    headline = None if outlook is None else outlook.headline
    return replace(evaluation, words=(*words, _FLATTERED), headline=headline)


def evaluate_outcomes(
    outcomes: Outcomes,
    data: LogArrays,
    cost_weight: float,
    *,
    policy: Policy | None = None,
    currency: str | None = None,
    folds: CrossFit | None = None,
    outlook: Outlook | None = None,
    seed: int = 0,
) -> Evaluation:
    """Return the figures for the outcomes of queries, and compare them with the baselines.

    Args:
        outcomes: The outcome of each query.
        data: The queries, all complete.
        cost_weight: How much quality one unit of cost is worth.
        policy: The policy that decided; for the sentences, and for the value of no answer.
        currency: Currency of every cost.
        folds: The queries, or a sample of them, in folds, for the frontier. None: no frontier.
        outlook: What to expect of the policy. None: derived from these outcomes, if the policy was
            not fitted to these queries.
        seed: Seed for halves and resampling.
    """
    abstain_value = None if policy is None else policy.goal.get("abstain_value")
    utility = outcomes.utility(cost_weight, abstain_value)
    rules = dict(_rules(data, cost_weight, outcomes, seed))
    baselines = {
        name: _compare(utility, quality, cost, quality - cost_weight * cost)
        for name, (quality, cost) in rules.items()
    }
    foreseen = with_foresight(data, cost_weight, abstain_value)
    baselines["oracle"] = _compare(utility, *foreseen)
    if policy is not None and outlook is None:
        outlook = outlook_of(policy, outcomes, data, cost_weight, seed)
    frontier, costs = None, {}
    if folds is not None:
        frontier = cross_fitted_frontier(folds)
        costs = costs_at_quality(folds, frontier)
    lift = _lift(outcomes, data, seed)
    calibrations = _calibrations(data, outcomes)
    return Evaluation(
        queries=len(data),
        quality=float(outcomes.quality.mean()),
        quality_interval=bootstrap(outcomes.quality[:, None], lambda m: m[:, 0], seed)
        or mean_interval(outcomes.quality),
        cost=float(outcomes.cost.mean()),
        cost_interval=mean_interval(outcomes.cost),
        cost_weight=cost_weight,
        utility=float(utility.mean()),
        escalation_rate=float((outcomes.asked > 1).mean()),
        abstention_rate=float((outcomes.model < 0).mean()),
        verification_samples=float(outcomes.samples.mean()),
        ibc_lift=lift.value,
        ibc_lift_interval=lift.interval,
        ibc_lift_delta_interval=lift.delta_interval,
        baselines=baselines,
        frontier_efficiency=None if frontier is None else _efficiency(data, outcomes, frontier),
        calibration=calibrations,
        words=tuple(_describe(data, utility, cost_weight, calibrations, policy)),
        currency=currency,
        headline=build_headline(outcomes, data, seed=seed) if outlook is None else outlook.headline,
        recommendation=None if outlook is None else outlook.recommendation,
        cost_at_quality=costs,
    )


def _describe(
    data: LogArrays,
    utility: Floats,
    cost_weight: float,
    calibrations: Mapping[str, Calibration],
    policy: Policy | None,
) -> Iterator[str]:
    """Describe what the figures show."""
    if len(data) < FEW:
        number = "one query" if len(data) == 1 else f"{len(data)} queries"
        yield f"This log of {number} is too small to tell one router from another."
        return
    if policy is not None and all(not plan.tables for plan in policy.plans):
        yield "The policy pays for no check: single models, as they are, served best."
    yield _describe_standing(data, utility, cost_weight)
    yield from _describe_checks(calibrations)


def validate_models(policy: Policy, log: RoutingLog) -> None:
    """Check that a policy and a log are for the same models.

    Raises:
        AutoMixError: They are for different models.
    """
    if policy.models != log.models:
        raise AutoMixError(
            f"The policy is for the models {list(policy.models)}, the log is of "
            f"{list(log.models)}: evaluate a policy on a log of the same models."
        )


def _to_outcomes(replayed: Sequence[RouterOutcome]) -> Outcomes:
    return Outcomes(
        model=np.array([r.model_index for r in replayed]),
        quality=np.array([r.quality for r in replayed]),
        cost=np.array([r.cost for r in replayed]),
        samples=np.array([r.samples for r in replayed]),
        asked=np.array([1 + r.escalated for r in replayed]),
        expected=np.full(len(replayed), np.nan),
    )


def _compare(utility: Floats, quality: Floats, cost: Floats, other: Floats) -> Baseline:
    """Compare the utility of a router, query by query, with that of another rule."""
    difference = utility - other
    return Baseline(
        quality=float(quality.mean()),
        cost=float(cost.mean()),
        utility_difference=float(difference.mean()),
        interval=mean_interval(difference),
    )


def _rules(
    data: LogArrays, weight: float, outcomes: Outcomes, seed: int
) -> Iterator[tuple[str, QualityAndCost]]:
    """Yield quality and cost of each query under every rule to compare with."""
    for j, name in enumerate(data.models):
        yield f"always:{name}", (data.quality[:, j], data.cost[:, j])
    yield "random_mix", random_mix(data, float(outcomes.cost.mean()))
    families: tuple[Family, ...] = ("threshold", "double_threshold", "released")
    for family in families:
        yield family, cross_fitted_rule(data, Goal(cost_weight=weight), family, seed)


def _lift(outcomes: Outcomes, data: LogArrays, seed: int) -> Lift:
    ends = [np.stack([data.quality[:, j], data.cost[:, j]], axis=1) for j in (0, -1)]
    return ibc_lift(outcomes.quality, outcomes.cost, ends[0], ends[1], seed)


def _efficiency(data: LogArrays, outcomes: Outcomes, frontier: CrossFittedFrontier) -> float | None:
    """Return the gain over random mixing, as a share of the gain that the checks make possible."""
    budget = float(outcomes.cost.mean())
    mixed = float(random_mix(data, budget)[0].mean())
    points = zip(frontier.cost.mean(axis=0), frontier.quality.mean(axis=0), strict=True)
    costs, qualities = np.array(sorted(points)).T
    possible = float(np.interp(budget, costs, np.maximum.accumulate(qualities))) - mixed
    if possible <= 1e-9:  # noqa: PLR2004
        return None
    return (float(outcomes.quality.mean()) - mixed) / possible


def _calibrations(data: LogArrays, outcomes: Outcomes) -> dict[str, Calibration]:
    found = {}
    for j, name in enumerate(data.models[:-1]):
        for check in (None, *data.checks):
            alone = data.alone(check)
            if alone.checked(j).any():
                label = name if check is None else f"{name} by {check}"
                confidence = confidences(alone, j)
                found[f"confidence:{label}"] = calibration(confidence, data.quality[:, j])
    found["belief"] = calibration(outcomes.expected, outcomes.quality)
    return {name: value for name, value in found.items() if value is not None}


def _describe_standing(data: LogArrays, utility: Floats, cost_weight: float) -> str:
    """Describe how the router compares with the best single model, or the mean if tied."""
    best = best_single(data, cost_weight)
    model, difference = best.name, utility - best.utility
    low, high = mean_interval(difference)
    if low > 0:
        return f"The router is better than the best single model, {model}, on this log."
    if high < 0:
        return f"One model alone is best on this log: {model}."
    if not difference.any() and not utility.std():
        return f"The router does just what {model} alone does."
    if high - low > _SHOWN_DIFFERENCE:
        return (
            f"This log of {len(data)} queries is too small to tell the router from {model} alone: "
            f"the difference in utility lies between {low:+.3f} and {high:+.3f}."
        )
    return f"The router is about as good as {model} alone."


def _describe_checks(calibrations: Mapping[str, Calibration]) -> Iterator[str]:
    """Name the checks that are not shown to be better than chance."""
    for key, found in calibrations.items():
        if key == "belief" or found.auroc is None or found.auroc_interval is None:
            continue
        checked = key.removeprefix("confidence:")
        if found.auroc_interval[1] < _CHANCE:
            yield f"The check of {checked} is worse than chance (AUROC {found.auroc:.2f})."
        elif found.auroc_interval[0] <= _CHANCE:
            yield (
                f"The check of {checked} is not shown to be better than chance "
                f"(AUROC {found.auroc:.2f})."
            )
