"""Judge a router on a routing log: quality, cost, baselines, and how certain they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.evaluation.result import Baseline, Evaluation
from langchain_automix.evaluation.router_replay import RouterOutcome, replay_router
from langchain_automix.policy.bounds import oracle
from langchain_automix.policy.data.arrays import Floats, Ints, LogArrays, to_arrays
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.baselines import Family, best_single, confidences
from langchain_automix.policy.fitting.digest import was_fitted_to
from langchain_automix.policy.fitting.fit import fit_policy, indifferent_weight, policy_frontier
from langchain_automix.policy.fitting.fitting_data import complete
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.replay import Outcomes, replay_plan, replay_policy
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

FEW = 20
"""Queries below which no difference is more than luck."""

_CHANCE = 0.5
"""AUROC of a check that tells nothing."""

_SHOWN_DIFFERENCE = 0.02
"""A difference in utility that matters: a log whose interval is wider is called too small."""

_FLATTERED = (
    "The policy was fitted to this very log, which flatters it: judge it on queries that it has "
    "not seen, or by `automix report`, which fits anew without each query."
)


def evaluate(
    router: Router, log: RoutingLog, *, cost_weight: float | None = None, seed: int = 0
) -> Evaluation:
    """Replay a router on a log, beside the baselines.

    Sequential policies draw the recorded verdicts in order. The threshold rules and the
    frontier are cross-fitted on two halves of the log, so that no rule is judged on the queries
    that it was fitted to.

    Args:
        router: Any router; one with a policy is replayed as fast as the log is read.
        log: Queries that all models answered.
        cost_weight: Quality that one unit of cost is worth. None: the policy's own, or, for
            routers without one, where random mixing of the end models is indifferent.
        seed: For halves and resampling.

    Raises:
        AutoMixError: The router is for other models, asks for something that the log does not
            hold, or no query is complete.
    """
    arrays = to_arrays(log)
    policy = router.policy if isinstance(router, POMDPRouter) and router.is_calibrated else None
    if policy is not None:
        validate_models(policy, log)
    usable = complete(arrays)
    if cost_weight is None:
        cost_weight = indifferent_weight(usable) if policy is None else policy.cost_weight
    data = arrays.rows(arrays.complete)
    rows = np.flatnonzero(arrays.complete).tolist()
    if policy is None or getattr(router, "on_unknown", "escalate") != "escalate":
        outcomes = _to_outcomes([replay_router(router, log[row : row + 1])[0] for row in rows])
    else:
        outcomes = replay_policy(policy, data, [log.store.ids[row] for row in rows])
    evaluation = evaluate_outcomes(
        outcomes, data, cost_weight, policy=policy, currency=log.currency, seed=seed
    )
    words = (*evaluation.words, *arrays.notes)
    if policy is not None and was_fitted_to(policy, log):
        words += (_FLATTERED,)
    return replace(evaluation, words=words)


def evaluate_outcomes(
    outcomes: Outcomes,
    data: LogArrays,
    cost_weight: float,
    *,
    policy: Policy | None = None,
    currency: str | None = None,
    seed: int = 0,
) -> Evaluation:
    """Return the figures of what became of each query, beside the baselines.

    Args:
        outcomes: What became of each query.
        data: The queries, all complete.
        cost_weight: Quality that one unit of cost is worth.
        policy: What decided; for the words, and for what no answer is worth.
        currency: Of every cost.
        seed: For halves and resampling.
    """
    abstain_value = None if policy is None else policy.goal.get("abstain_value")
    utility = outcomes.utility(cost_weight, abstain_value)
    baselines = {
        name: _compare(utility, quality, cost, quality - cost_weight * cost)
        for name, (quality, cost) in _rules(data, cost_weight, outcomes, seed)
    }
    baselines["oracle"] = _oracle(data, utility, cost_weight, abstain_value)
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
        frontier_efficiency=_efficiency(data, outcomes, seed),
        calibration=calibrations,
        words=tuple(_describe(data, utility, cost_weight, calibrations, policy)),
        currency=currency,
    )


def _describe(
    data: LogArrays,
    utility: Floats,
    cost_weight: float,
    calibrations: Mapping[str, Calibration],
    policy: Policy | None,
) -> Iterator[str]:
    """Say in words what the figures show."""
    if len(data) < FEW:
        number = "one query" if len(data) == 1 else f"{len(data)} queries"
        yield f"This log of {number} is too small to tell one router from another."
        return
    if policy is not None and all(not plan.tables for plan in policy.plans):
        yield "The policy pays for no check: single models, as they are, served best."
    yield _describe_standing(data, utility, cost_weight)
    yield from _describe_checks(calibrations)


def validate_models(policy: Policy, log: RoutingLog) -> None:
    """Check that a policy and a log are of the same models.

    Raises:
        AutoMixError: They are not.
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
) -> Iterator[tuple[str, tuple[Floats, Floats]]]:
    """Yield quality and cost of each query under every rule to compare with."""
    for j, name in enumerate(data.models):
        yield f"always:{name}", (data.quality[:, j], data.cost[:, j])
    yield "random_mix", _random_mix(data, float(outcomes.cost.mean()))
    families: tuple[Family, ...] = ("threshold", "double_threshold", "released")
    for family in families:
        yield family, _cross_fitted(data, weight, family, seed)


def _oracle(
    data: LogArrays, utility: Floats, weight: float, abstain_value: float | None
) -> Baseline:
    """Pick each query's best model; or the cheapest and no answer, where that is worth more."""
    rows, best = np.arange(len(data)), (data.quality - weight * data.cost).argmax(axis=1)
    quality, cost = data.quality[rows, best], data.cost[rows, best]
    worth = oracle(data, weight, abstain_value)
    is_silent = worth > quality - weight * cost
    quality = np.where(is_silent, 0.0, quality)
    cost = np.where(is_silent, data.cost.min(axis=1), cost)
    return _compare(utility, quality, cost, worth)


def _random_mix(data: LogArrays, budget: float) -> tuple[Floats, Floats]:
    """Mix the first and the last model at random so that the cost is the router's."""
    low, high = data.cost[:, 0].mean(), data.cost[:, -1].mean()
    share = 0.0 if high <= low else float(np.clip((budget - low) / (high - low), 0, 1))
    mixed = [(1 - share) * x[:, 0] + share * x[:, -1] for x in (data.quality, data.cost)]
    return mixed[0], mixed[1]


def _halves(data: LogArrays, seed: int) -> list[tuple[LogArrays, Ints]]:
    """Return, for each of two random halves, its queries and the rows of the other."""
    order = np.random.default_rng(seed).permutation(len(data))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    return [(data.rows(first), second), (data.rows(second), first)]


def _cross_fitted(
    data: LogArrays, weight: float, family: Family, seed: int
) -> tuple[Floats, Floats]:
    """Fit a rule to each half and replay it on the other."""
    quality, cost = np.empty(len(data)), np.empty(len(data))
    halves = _halves(data, seed) if len(data) > 1 else [(data, np.arange(1))]
    for train, rest in halves:
        try:
            policy = fit_policy(train, Goal(cost_weight=weight), family=family, seed=seed)
        except AutoMixError:  # nothing was checked: the rule has nothing to read
            policy = fit_policy(train, Goal(cost_weight=weight), family="always", seed=seed)
        outcomes = replay_plan(policy.plans[0], data.rows(rest))
        quality[rest], cost[rest] = outcomes.quality, outcomes.cost
    return quality, cost


def _lift(outcomes: Outcomes, data: LogArrays, seed: int) -> Lift:
    ends = [np.stack([data.quality[:, j], data.cost[:, j]], axis=1) for j in (0, -1)]
    return ibc_lift(outcomes.quality, outcomes.cost, ends[0], ends[1], seed)


def _efficiency(data: LogArrays, outcomes: Outcomes, seed: int) -> float | None:
    """Return the gain over random mixing as a share of what the checks make possible."""
    if len(data) < FEW:  # two halves of nothing
        return None
    budget = float(outcomes.cost.mean())
    mixed = float(_random_mix(data, budget)[0].mean())
    reached = []
    for train, rest in _halves(data, seed):
        held_out = data.rows(rest)
        replays = (replay_plan(plan, held_out) for plan in policy_frontier(train, seed=seed))
        costs, qualities = np.array(sorted((o.cost.mean(), o.quality.mean()) for o in replays)).T
        reached.append(float(np.interp(budget, costs, np.maximum.accumulate(qualities))))
    possible = float(np.mean(reached)) - mixed
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
    """Say how the router compares with the best single model, or with the mean of tied ones."""
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
