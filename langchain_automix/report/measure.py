"""Measure all that a report says, from a policy and a routing log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.evaluation.evaluate import FEW, evaluate_outcomes, same_models
from langchain_automix.evaluation.result import Evaluation
from langchain_automix.policy.benefit import believed_benefit, benefit_groups
from langchain_automix.policy.data.arrays import Floats, LogArrays, to_arrays
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.decision.describe import describe_policy
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.cross_fitting import CrossFit
from langchain_automix.policy.fitting.digest import was_fitted_to
from langchain_automix.policy.replay import Outcomes, Trajectories, replay_policy
from langchain_automix.policy.statistics import Interval, mean_interval, wilson_interval
from langchain_automix.report.advice import PolicyOnLog, build_advice
from langchain_automix.report.contents import (
    Benefit,
    Contents,
    CostPart,
    Labels,
    Point,
    Reliability,
    ReliabilityGroup,
)
from langchain_automix.report.decisions import decisions_of
from langchain_automix.report.labels import labels_of
from langchain_automix.report.verdict import Findings, goal_notes, numbers_of, verdict_of

_RUNGS, _FEW_RUNGS = 13, 6
"""Cost weights that are fitted for the frontier; fewer where the log can tell few apart."""

_FEW_QUERIES = 50


def measure(
    policy: Policy, log: RoutingLog, *, cost_weight: float | None = None, seed: int = 0
) -> Contents:
    """Measure all that a report says.

    A policy that was fitted to this very log would flatter itself on it. Then the log is cut into
    five folds, a policy is fitted for the same goal to the others of each, and its decisions on
    the fold are those that are reported. On any other log the policy itself is judged.

    Args:
        policy: The policy.
        log: A log of the same models; only queries that all models answered count.
        cost_weight: Quality that one unit of cost is worth, for utilities. None: the policy's.
        seed: For folds and resampling; the same seed gives the same figures.

    Raises:
        AutoMixError: The policy is for other models, the log has no complete query or lacks what
            the policy asks for, or the cost weight is no number of at least 0.
    """
    if cost_weight is not None and not 0 <= cost_weight < float("inf"):
        raise AutoMixError(f"cost_weight must be a number of at least 0; given: {cost_weight!r}.")
    measured = _Measured.of(policy, log, cost_weight, seed)
    found = measured.evaluation
    said = Findings(policy, measured.data, measured.outcomes, found, seed)
    labels = labels_of(measured.metadata, measured.data.models[-1])
    return Contents(
        models=policy.models,
        currency=log.currency,
        queries=len(measured.data),
        left_out=len(log) - len(measured.data),
        judged=measured.judged,
        labels=labels,
        verdict=verdict_of(said),
        numbers=numbers_of(said),
        policy_words=describe_policy(policy),
        goal=dict(policy.goal),
        cost_weight=found.cost_weight,
        point=_point(found),
        baselines=_baselines(found, measured.data),
        frontier=_frontier(measured),
        benefits=tuple(_benefits(policy, measured.data, found.cost_weight)),
        reliabilities=_reliabilities(found),
        cost_split=_cost_split(measured.data, measured.paths),
        decisions=decisions_of(
            measured.outcomes, measured.paths, measured.data, measured.ids, measured.metadata
        ),
        advice=build_advice(measured.situation(labels), measured.crossed),
        notes=_notes(measured, log, labels),
    )


@dataclass(frozen=True)
class _Measured:
    """A policy on a log, judged fairly."""

    policy: Policy
    log: RoutingLog
    data: LogArrays
    ids: Sequence[str]
    metadata: Sequence[object]
    judged: Literal["cross-fitted", "held out", "fitted to it"]
    outcomes: Outcomes
    crossed: CrossFit | None
    """None where there is nothing to hold out."""

    cost_weight: float
    seed: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, policy: Policy, log: RoutingLog, cost_weight: float | None, seed: int) -> _Measured:
        same_models(policy, log)
        columns = to_arrays(log)
        places = np.flatnonzero(columns.complete).tolist()
        if not places:
            raise AutoMixError(
                "The routing log has no query that all models answered, with quality and cost: "
                "there is nothing to report."
            )
        data = columns.rows(np.array(places))
        ids = [log.store.ids[place] for place in places]
        weight = policy.cost_weight if cost_weight is None else cost_weight
        crossed = CrossFit(data, ids, weight, seed) if len(places) > 1 else None
        flattered = was_fitted_to(policy, log)
        notes: tuple[str, ...] = ()
        judged: Literal["cross-fitted", "held out", "fitted to it"] = "held out"
        if flattered and crossed is not None:
            judged = "cross-fitted"
            outcomes, notes = crossed.like(policy)
        else:
            judged = "fitted to it" if flattered else judged
            outcomes = replay_policy(policy, data, ids)
        return cls(
            policy,
            log,
            data,
            ids,
            [log.store.metadata.get(place) for place in places],
            judged,
            outcomes,
            crossed,
            weight,
            seed,
            notes,
        )

    @cached_property
    def evaluation(self) -> Evaluation:
        """The same figures as `evaluate` gives, of what the policy is judged by."""
        return evaluate_outcomes(
            self.outcomes,
            self.data,
            self.cost_weight,
            policy=self.policy,
            currency=self.log.currency,
            seed=self.seed,
        )

    @property
    def paths(self) -> Trajectories:
        """How each query came to its outcome."""
        assert self.outcomes.paths is not None  # noqa: S101
        return self.outcomes.paths

    def situation(self, labels: Labels) -> PolicyOnLog:
        """Return what advice is given on."""
        unanswered = self.policy.goal.get("abstain_value")
        return PolicyOnLog(
            data=self.data,
            utility=self.outcomes.utility(self.cost_weight, unanswered),
            paths=self.paths,
            cost_weight=self.cost_weight,
            cost=float(self.outcomes.cost.mean()),
            abstain_value=unanswered,
            currency=self.log.currency,
            labels=labels,
        )


def _point(found: Evaluation) -> Point:
    return Point(
        name="policy",
        cost=found.cost,
        quality=found.quality,
        quality_interval=found.quality_interval,
        cost_interval=found.cost_interval,
        escalation_rate=found.escalation_rate,
        verification_samples=found.verification_samples,
        cost_weight=found.cost_weight,
    )


def _baselines(found: Evaluation, data: LogArrays) -> tuple[Point, ...]:
    intervals = {
        f"always:{name}": _within(mean_interval(data.quality[:, j]))
        for j, name in enumerate(data.models)
    }
    return tuple(
        Point(
            name=name,
            cost=baseline.cost,
            quality=baseline.quality,
            quality_interval=intervals.get(name),
            utility_difference=baseline.utility_difference,
            utility_interval=baseline.interval,
        )
        for name, baseline in found.baselines.items()
    )


def _within(interval: Interval) -> Interval:
    return max(interval[0], 0.0), min(interval[1], 1.0)


def _frontier(measured: _Measured) -> tuple[Point, ...]:
    """Return the policies from cheap to good, cross-fitted on the log.

    One fit a cost weight, judged on queries that it has not seen; what another one, or a single
    model, beats in both cost and quality is left out. Picking by the very figures that are shown
    flatters them a little. The cheapest and the dearest model are always there.
    """
    data, crossed = measured.data, measured.crossed
    means = data.cost.mean(axis=0)
    points = {j: _alone(data, j) for j in (int(means.argmin()), int(means.argmax()))}
    ends = list(points.values())
    ladder = [] if crossed is None else _ladder(data, measured.cost_weight)
    fitted = [_fitted(crossed, weight) for weight in ladder if crossed is not None]
    found: list[Point] = []
    for point in sorted([*ends, *fitted], key=lambda p: (p.cost, -p.quality, p.name)):
        if not found or point.quality > found[-1].quality:
            found.append(point)
    found += [end for end in ends if not any(_alike(end, point) for point in found)]
    return tuple(sorted(found, key=lambda p: (p.cost, p.quality)))


def _alike(one: Point, other: Point) -> bool:
    return (one.cost, one.quality) == (other.cost, other.quality)


def _alone(data: LogArrays, model: int) -> Point:
    quality, cost = data.quality[:, model], data.cost[:, model]
    return Point(
        name=f"always:{data.models[model]}",
        cost=float(cost.mean()),
        quality=float(quality.mean()),
        quality_interval=_within(mean_interval(quality)),
        cost_interval=mean_interval(cost),
        escalation_rate=0.0,
        verification_samples=0.0,
    )


def _fitted(crossed: CrossFit, weight: float) -> Point:
    outcomes = crossed.at(weight)
    return Point(
        name=crossed.name(weight),
        cost=float(outcomes.cost.mean()),
        quality=float(outcomes.quality.mean()),
        quality_interval=_within(mean_interval(outcomes.quality)),
        cost_interval=mean_interval(outcomes.cost),
        escalation_rate=float((outcomes.asked > 1).mean()),
        verification_samples=float(outcomes.samples.mean()),
        cost_weight=weight,
    )


def _ladder(data: LogArrays, own: float) -> list[float]:
    """Return the cost weights to fit: 0, the one that counts, and steps over all that matter.

    Above 1 / (cost of the second cheapest model) no answer of it is worth its price, however
    good. Below an eighth of the least price of quality between two models, price does not count.
    """
    means = np.sort(data.cost.mean(axis=0))
    dearer = means[means > 0][1:] if (means > 0).all() else means[means > 0]
    if not len(dearer):
        return sorted({0.0, own})
    high = 1.0 / float(dearer[0])
    slopes = list(_slopes(data))
    low = min([*slopes, high]) / 8 if slopes else 1.0 / float(means[-1]) / 64
    number = _RUNGS if len(data) >= _FEW_QUERIES else _FEW_RUNGS
    return sorted(
        {0.0, own, *np.geomspace(min(low, high / 8), high, number).tolist()}, reverse=True
    )


def _slopes(data: LogArrays) -> Iterator[float]:
    """Yield how much quality a unit of cost buys from each model to the next dearer better one."""
    means: list[tuple[float, float]] = sorted(
        zip(data.cost.mean(axis=0).tolist(), data.quality.mean(axis=0).tolist(), strict=True)
    )
    for (cost, quality), (more, better) in pairwise(means):
        if more > cost and better > quality:
            yield (better - quality) / (more - cost)


def _benefits(policy: Policy, data: LogArrays, cost_weight: float) -> Iterator[Benefit]:
    """Yield, for each checked model, the benefit of the larger model that the policy may ask."""
    for small in range(len(data.models) - 1):
        groups = benefit_groups(data, small, len(data.models) - 1)
        if not groups:
            continue
        plan, table = next(
            ((p, t) for p in policy.plans for t in p.tables if t.model == small), (None, None)
        )
        large = len(data.models) - 1
        curve: tuple[tuple[float, float], ...] = ()
        if plan is not None and table is not None and plan.plays[-1] > small:
            large = plan.plays[-1]
            curve = believed_benefit(table, plan.plays.index(small))
            groups = benefit_groups(data, small, large)
        yield Benefit(
            model=data.models[small],
            larger=data.models[large],
            groups=groups,
            curve=curve,
            price=cost_weight * float(data.cost[:, large].mean()),
        )


def _reliabilities(found: Evaluation) -> tuple[Reliability, ...]:
    return tuple(
        Reliability(
            name=name,
            groups=tuple(
                ReliabilityGroup(stated, actual, wilson_interval(actual, number), number)
                for stated, actual, number in each.reliability
            ),
            ece=each.ece,
            auroc=each.auroc,
            auroc_interval=each.auroc_interval,
        )
        for name, each in found.calibration.items()
    )


def _cost_split(data: LogArrays, paths: Trajectories) -> tuple[CostPart, ...]:
    """Return what the answers and the checks of each model cost; parts that cost 0 are left out."""
    answers: Floats = np.where(paths.asked, data.cost, 0.0).mean(axis=0)
    checks: Floats = paths.check_cost.mean(axis=0)
    parts = [
        part
        for j, name in enumerate(data.models)
        for part in (
            CostPart("answers", name, float(answers[j])),
            CostPart("checks", name, float(checks[j])),
        )
    ]
    return tuple(part for part in parts if part.cost)


def _notes(measured: _Measured, log: RoutingLog, labels: Labels) -> tuple[str, ...]:
    """Return what the reader should know, the weightiest first."""
    policy, n = measured.policy, len(measured.data)
    notes = []
    if measured.judged == "cross-fitted":
        notes.append(
            "The policy was fitted to this very log, so each query is judged by a policy that was "
            "fitted for the same goal without it; the policy that is used has seen more queries "
            "than those."
        )
    elif policy.fit.queries and policy.fit.log is None:
        notes.append(
            "The policy file does not say which log it was fitted to. If it saw some of these "
            "queries, the figures flatter it."
        )
    if not policy.fit.queries:
        notes.append("The policy is a prior that was not fitted to any log.")
    if measured.judged == "fitted to it":
        notes.append("The policy was fitted to this one query: the figures say nothing.")
    if len(log) > n:
        notes.append(
            f"{len(log) - n} of the {len(log)} queries {'was' if len(log) == n + 1 else 'were'} "
            "left out: not all models answered, with quality and cost."
        )
    notes += goal_notes(policy, measured.evaluation)
    if labels.kind in ("agreement", "mixed"):
        notes.append(labels.text)
    if FEW <= n < 2 * _FEW_QUERIES:
        notes.append(f"{n} queries are few: most differences below some hundredths are luck.")
    notes += measured.notes
    # The fit's remarks are of the log that it saw; those on this log come from the evaluation.
    return tuple(dict.fromkeys((*notes, *measured.evaluation.words, *policy.fit.notes)))
