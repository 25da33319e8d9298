"""Measure everything in a report, given a policy and a routing log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.evaluation.cost_at_quality import cross_fit, frontier_weights
from langchain_automix.evaluation.evaluate import evaluate_outcomes, validate_models
from langchain_automix.evaluation.recommendation import FEW
from langchain_automix.evaluation.result import Evaluation
from langchain_automix.policy.benefit import believed_benefit, benefit_groups
from langchain_automix.policy.data.arrays import Floats, LogArrays, to_arrays
from langchain_automix.policy.data.log import RoutingLog
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
from langchain_automix.report.decisions import build_decisions, choose_listed
from langchain_automix.report.labels import describe_labels
from langchain_automix.report.verdict import (
    Findings,
    build_numbers,
    describe_goal,
    describe_verdict,
)
from langchain_automix.routers.pomdp import POMDPRouter

_FEW_QUERIES = 50


def measure(
    policy: Policy, log: RoutingLog, *, cost_weight: float | None = None, seed: int = 0
) -> Contents:
    """Measure everything in a report.

    On the very log that it was fitted to, a policy would look too good. In that case, the log is
    split into five folds, and each fold is decided by a policy fitted to the others for the same
    goal. These decisions are reported. On any other log, the policy itself is judged.

    Args:
        policy: The policy.
        log: A log of the same models; only queries that all models answered count.
        cost_weight: How much quality one unit of cost is worth, for utilities. None: the policy's
            own.
        seed: Seed for folds and resampling; the same seed gives the same figures.

    Raises:
        AutoMixError: The policy is for other models, the log has no complete query or lacks what
            the policy asks for, or the cost weight is not a number of at least 0.
    """
    if cost_weight is not None and not 0 <= cost_weight < float("inf"):
        raise AutoMixError(f"cost_weight must be a number of at least 0; given: {cost_weight!r}.")
    measured = _Measurement.of(policy, log, cost_weight, seed)
    data, outcomes, evaluation = measured.data, measured.outcomes, measured.evaluation
    findings = Findings(policy, data, outcomes, evaluation, seed)
    labels = describe_labels(measured.metadata, data.models[-1])
    listed = choose_listed(outcomes, measured.paths, data, evaluation.cost_weight, seed)
    return Contents(
        models=policy.models,
        currency=log.currency,
        queries=len(data),
        left_out=len(log) - len(data),
        judged=measured.judged,
        labels=labels,
        verdict=describe_verdict(findings),
        numbers=build_numbers(findings),
        policy_words=POMDPRouter(policy=policy).explain(),
        goal=dict(policy.goal),
        cost_weight=evaluation.cost_weight,
        point=_policy_point(evaluation),
        baselines=_baselines(evaluation, data),
        frontier=_frontier(measured),
        benefits=tuple(_benefits(policy, data, evaluation.cost_weight)),
        reliabilities=_reliabilities(evaluation),
        cost_split=_cost_split(data, measured.paths),
        decisions=build_decisions(
            listed.rows, outcomes, measured.paths, data, measured.ids, measured.metadata
        ),
        advice=build_advice(measured.for_advice(labels), measured.folds),
        notes=_notes(measured, log, labels),
        recommendation=evaluation.recommendation,
        headline=evaluation.headline,
        cost_at_quality=evaluation.cost_at_quality,
        kinds=listed.kinds,
        sample=listed.words,
    )


@dataclass(frozen=True)
class _Measurement:
    """A policy judged fairly on a log."""

    policy: Policy
    data: LogArrays
    ids: Sequence[str]
    metadata: Sequence[object]
    """Read when accessed, so that the metadata of a million queries is never in memory at once."""

    judged: Literal["cross-fitted", "held out", "fitted to it"]
    outcomes: Outcomes
    folds: CrossFit | None
    """The queries, or a sample of very many, in folds; None if nothing can be held out."""

    cost_weight: float
    currency: str | None
    seed: int
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, policy: Policy, log: RoutingLog, cost_weight: float | None, seed: int
    ) -> _Measurement:
        validate_models(policy, log)
        arrays = to_arrays(log)
        rows = np.flatnonzero(arrays.complete).tolist()
        if not rows:
            raise AutoMixError(
                "The routing log has no query that all models answered, with quality and cost: "
                "there is nothing to report."
            )
        data = arrays.rows(np.array(rows))
        ids = [log.store.ids[row] for row in rows]
        weight = policy.cost_weight if cost_weight is None else cost_weight
        folds = cross_fit(data, ids, weight, seed) if len(rows) > 1 else None
        is_flattered = was_fitted_to(policy, log)
        notes: tuple[str, ...] = ()
        judged: Literal["cross-fitted", "held out", "fitted to it"]
        if is_flattered and folds is not None:
            judged = "cross-fitted"
            # Judge every query, so that every decision can be counted.
            whole = folds if len(folds.data) == len(data) else CrossFit(data, ids, weight, seed)
            outcomes, notes = whole.like(policy)
        else:
            judged = "fitted to it" if is_flattered else "held out"
            outcomes = replay_policy(policy, data, ids)
        return cls(
            policy=policy,
            data=data,
            ids=ids,
            metadata=_Metadata(log.store.metadata, rows),
            judged=judged,
            outcomes=outcomes,
            folds=folds,
            cost_weight=weight,
            currency=log.currency,
            seed=seed,
            notes=notes,
        )

    @cached_property
    def evaluation(self) -> Evaluation:
        """The figures that `evaluate` gives for the judged outcomes."""
        return evaluate_outcomes(
            self.outcomes,
            self.data,
            self.cost_weight,
            policy=self.policy,
            currency=self.currency,
            folds=self.folds if len(self.data) >= FEW else None,
            seed=self.seed,
        )

    @property
    def paths(self) -> Trajectories:
        """How each query arrived at its outcome."""
        assert self.outcomes.paths is not None  # noqa: S101
        return self.outcomes.paths

    def for_advice(self, labels: Labels) -> PolicyOnLog:
        """Return the basis of the advice."""
        abstain_value = self.policy.goal.get("abstain_value")
        return PolicyOnLog(
            data=self.data,
            utility=self.outcomes.utility(self.cost_weight, abstain_value),
            paths=self.paths,
            cost_weight=self.cost_weight,
            cost=float(self.outcomes.cost.mean()),
            abstain_value=abstain_value,
            currency=self.currency,
            labels=labels,
        )


class _Metadata(Sequence[object]):
    """Everything that the log stores for some queries except the numbers, by index."""

    def __init__(self, stored: Any, rows: Sequence[int]) -> None:
        self._stored, self._rows = stored, rows

    @overload
    def __getitem__(self, place: int) -> object: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[object]: ...
    @override
    def __getitem__(self, place: int | slice) -> object:
        if isinstance(place, slice):
            return [self._stored.get(row) for row in self._rows[place]]
        return self._stored.get(self._rows[place])

    @override
    def __len__(self) -> int:
        return len(self._rows)


def _policy_point(evaluation: Evaluation) -> Point:
    return Point(
        name="policy",
        cost=evaluation.cost,
        quality=evaluation.quality,
        quality_interval=evaluation.quality_interval,
        cost_interval=evaluation.cost_interval,
        escalation_rate=evaluation.escalation_rate,
        verification_samples=evaluation.verification_samples,
        cost_weight=evaluation.cost_weight,
    )


def _baselines(evaluation: Evaluation, data: LogArrays) -> tuple[Point, ...]:
    intervals = {
        f"always:{name}": _quality_interval(data.quality[:, j])
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
        for name, baseline in evaluation.baselines.items()
    )


def _quality_interval(quality: Floats) -> Interval:
    low, high = mean_interval(quality)
    return max(low, 0.0), min(high, 1.0)


def _frontier(measured: _Measurement) -> tuple[Point, ...]:
    """Return the policies from cheap to good, cross-fitted on the log.

    There is one fit per cost weight, judged on queries that it has not seen. A fit is left out if
    another one, or a single model, beats it in both cost and quality. Selecting by the very figures
    that are shown makes them slightly too good. The cheapest and the dearest model are always
    included.
    """
    data, folds = measured.data, measured.folds
    means = data.cost.mean(axis=0)
    ends = [_single_point(data, j) for j in sorted({int(means.argmin()), int(means.argmax())})]
    fitted: list[Point] = []
    if folds is not None:
        weights = frontier_weights(data, measured.cost_weight)
        fitted = [_fitted_point(folds, weight) for weight in weights]
    frontier: list[Point] = []
    for point in sorted([*ends, *fitted], key=lambda p: (p.cost, -p.quality, p.name)):
        if not frontier or point.quality > frontier[-1].quality:
            frontier.append(point)
    there = {(point.cost, point.quality) for point in frontier}
    frontier += [end for end in ends if (end.cost, end.quality) not in there]
    return tuple(sorted(frontier, key=lambda p: (p.cost, p.quality)))


def _single_point(data: LogArrays, model: int) -> Point:
    quality, cost = data.quality[:, model], data.cost[:, model]
    return Point(
        name=f"always:{data.models[model]}",
        cost=float(cost.mean()),
        quality=float(quality.mean()),
        quality_interval=_quality_interval(quality),
        cost_interval=mean_interval(cost),
        escalation_rate=0.0,
        verification_samples=0.0,
    )


def _fitted_point(cross_fit: CrossFit, weight: float) -> Point:
    outcomes = cross_fit.at(weight)
    return Point(
        name=cross_fit.name(weight),
        cost=float(outcomes.cost.mean()),
        quality=float(outcomes.quality.mean()),
        quality_interval=_quality_interval(outcomes.quality),
        cost_interval=mean_interval(outcomes.cost),
        escalation_rate=float((outcomes.asked > 1).mean()),
        verification_samples=float(outcomes.samples.mean()),
        cost_weight=weight,
    )


def _benefits(policy: Policy, data: LogArrays, cost_weight: float) -> Iterator[Benefit]:
    """Yield, for each checked model, the benefit of the larger model that the policy may ask."""
    for small in range(len(data.models) - 1):
        large = len(data.models) - 1
        curve: tuple[tuple[float, float], ...] = ()
        plan, table = next(
            ((p, t) for p in policy.plans for t in p.tables if t.model == small), (None, None)
        )
        if plan is not None and table is not None and plan.plays[-1] > small:
            large = plan.plays[-1]
            curve = believed_benefit(table, plan.plays.index(small))
        if groups := benefit_groups(data, small, large):
            yield Benefit(
                model=data.models[small],
                larger=data.models[large],
                groups=groups,
                curve=curve,
                price=cost_weight * float(data.cost[:, large].mean()),
            )


def _reliabilities(evaluation: Evaluation) -> tuple[Reliability, ...]:
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
        for name, each in evaluation.calibration.items()
    )


def _cost_split(data: LogArrays, paths: Trajectories) -> tuple[CostPart, ...]:
    """Return the cost of each model's answers and checks; omit parts that cost 0."""
    answers: Floats = np.where(paths.asked, data.cost, 0.0).mean(axis=0)
    checks: Floats = paths.check_cost.mean(axis=0)
    parts = [
        part
        for name, answer, check in zip(data.models, answers, checks, strict=True)
        for part in (
            CostPart("answers", name, float(answer)),
            CostPart("checks", name, float(check)),
        )
    ]
    return tuple(part for part in parts if part.cost)


def _notes(measured: _Measurement, log: RoutingLog, labels: Labels) -> tuple[str, ...]:
    """Return notes for the reader, the most important first."""
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
    notes += describe_goal(policy, measured.evaluation)
    if labels.kind in ("agreement", "mixed"):
        notes.append(labels.text)
    if FEW <= n < 2 * _FEW_QUERIES:
        notes.append(f"{n} queries are few: most differences below some hundredths are luck.")
    notes += measured.notes
    # The fit's remarks are about the log it has seen; those on this log come from the evaluation.
    return tuple(dict.fromkeys((*notes, *measured.evaluation.words, *policy.fit.notes)))
