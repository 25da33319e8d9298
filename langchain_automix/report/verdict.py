"""The verdict in one sentence, and the three numbers below it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from langchain_automix.evaluation.recommendation import FEW
from langchain_automix.evaluation.result import Evaluation
from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.baselines import BestSingle, best_single
from langchain_automix.policy.replay import Outcomes
from langchain_automix.policy.statistics import Interval, mean_interval, ratio_interval
from langchain_automix.policy.ties import first_best
from langchain_automix.report.contents import Number
from langchain_automix.utils.formatting import (
    format_change,
    format_interval,
    format_percent,
    format_quality,
    format_query_cost,
    format_signed,
)

_TELLING = 0.1
"""If the 95 % interval of the difference in quality is wider than this, it tells too little."""

_NEGLIGIBLE = 0.005
"""A share of the cost that counts as no difference."""


@dataclass(frozen=True)
class Findings:
    """The basis of the sentences: a policy and its performance on a log."""

    policy: Policy
    data: LogArrays
    outcomes: Outcomes
    evaluation: Evaluation
    seed: int

    @property
    def cost(self) -> str:
        """Mean cost of a query."""
        return format_query_cost(self.evaluation.cost, self.evaluation.currency)

    @property
    def largest(self) -> str:
        """Name of the last model."""
        return self.data.models[-1]

    @property
    def best(self) -> int:
        """Index of the single model with the best mean quality; the cheaper one if tied."""
        return first_best(self.data.quality.mean(axis=0))

    @property
    def single(self) -> str | None:
        """Name of the only model, if the policy gives it every query unchecked; else None."""
        [first, *more] = self.policy.plans
        return None if more or first.tables else self.policy.models[first.opening.model]

    @property
    def is_stable(self) -> bool:
        """Whether a single-model policy gives that model all queries here.

        In cross-fitting, policies fitted without a part of the log may choose otherwise.
        """
        if self.single is None:
            return True
        same = self.outcomes.model == self.data.models.index(self.single)
        return bool((same & (self.outcomes.asked == 1)).all())

    @cached_property
    def worthiest(self) -> BestSingle:
        """The single model with the best mean utility at the cost weight, or several tied ones."""
        return best_single(self.data, self.evaluation.cost_weight)

    @property
    def utility_gained(self) -> Interval:
        """95 % interval of the utility gained over the worthiest single model."""
        abstain_value = self.policy.goal.get("abstain_value")
        utility = self.outcomes.utility(self.evaluation.cost_weight, abstain_value)
        return mean_interval(utility - self.worthiest.utility)

    @cached_property
    def saving(self) -> tuple[float, Interval] | None:
        """Share of the largest model's cost that is saved, and its 95 % interval.

        None if the largest model costs nothing.
        """
        costs = np.stack([self.outcomes.cost, self.data.cost[:, -1]], axis=1)
        own, large = costs.mean(axis=0).tolist()
        if large <= 0:
            return None
        low, high = ratio_interval(costs[:, 0], costs[:, 1], self.seed)
        return (large - own) / large, (1 - high, 1 - low)

    @property
    def difference(self) -> tuple[float, Interval]:
        """Quality gained over the best single model, and its 95 % interval."""
        gained = self.outcomes.quality - self.data.quality[:, self.best]
        return float(gained.mean()), mean_interval(gained)

    @property
    def qualities(self) -> str:
        """The quality beside that of the best single model, for use in brackets, without interval.

        The verdict must be readable at a glance; the second number below it has the interval.
        """
        best = self.data.models[self.best]
        of = "" if best == self.largest else f" of always {best}"
        own, other = self.evaluation.quality, float(self.data.quality[:, self.best].mean())
        return f"quality {format_quality(own)} against {format_quality(other)}{of}"


def describe_verdict(findings: Findings) -> str:
    """Describe what the policy achieves, in one sentence that claims no more than the log shows."""
    if len(findings.data) < FEW:
        number = "one query" if len(findings.data) == 1 else f"{len(findings.data)} queries"
        return f"This log of {number} is too small to tell what the policy saves or loses."
    if "max_risk" in findings.policy.goal:
        return f"{_risk(findings)}, at {_relative_cost(findings)}."
    if findings.single is not None:
        return _single_model(findings, findings.single)
    if not any(plan.tables for plan in findings.policy.plans):
        return _random_mix(findings)
    if findings.evaluation.abstention_rate:
        return _abstaining(findings)
    return f"{_saving(findings)}{_quality(findings)}; {_utility(findings)}."


def _single_model(findings: Findings, single: str) -> str:
    largest, best = findings.largest, findings.worthiest
    if not findings.is_stable:
        return (
            f"This log is too small to tell what pays: the policy gives every query to {single}, "
            "unchecked, but fitted to parts of the log it chooses otherwise."
        )
    if single not in best.models and findings.utility_gained[1] < 0:
        return (
            f"The policy gives every query to {single}, unchecked, but at this cost weight always "
            f"{best.name} is worth more on this log ({findings.qualities})."
        )
    text = f"One model alone is chosen: every query goes to {single}, unchecked"
    if single == largest:
        return f"{text}, so the policy saves nothing and loses nothing against always {single}."
    if findings.data.models.index(single) == findings.best:
        saving = findings.saving
        less = "" if saving is None else f", at {_change(saving[0])} cost than always {largest}"
        return f"{text}{less}; no model alone answers better on this log."
    return f"{text}, at {_relative_cost(findings)} ({findings.qualities})."


def _random_mix(findings: Findings) -> str:
    names = [findings.policy.models[plan.opening.model] for plan in findings.policy.plans]
    return (
        f"No check is made: the policy gives queries to {names[0]} or to {names[-1]} at random, "
        f"at {_relative_cost(findings)} ({findings.qualities})."
    )


def _risk(findings: Findings) -> str:
    answered = findings.outcomes.model >= 0
    wrong = float(np.where(answered, 1 - findings.outcomes.quality, 0.0).mean())
    limit = findings.policy.goal["max_risk"]
    return (
        f"Answers {format_percent(float(answered.mean()))} of the queries and gives a wrong answer "
        f"to {format_percent(wrong)} of all, {'within' if wrong <= limit else 'above'} the limit "
        f"of {format_percent(limit)}"
    )


def _abstaining(findings: Findings) -> str:
    silent = findings.evaluation.abstention_rate
    answered = ""
    if silent < 1:
        quality = format_quality(findings.evaluation.quality / (1 - silent))
        answered = f" and answers the others with quality {quality}"
    return (
        f"Gives no answer to {format_percent(silent)} of the queries{answered}, at "
        f"{_relative_cost(findings)}; {_utility(findings)}, if no answer is worth "
        f"{findings.policy.goal.get('abstain_value', 0.0):g}."
    )


def _change(saved: float) -> str:
    return f"{format_percent(abs(saved))} {'less' if saved > 0 else 'more'}"


def _relative_cost(findings: Findings) -> str:
    if findings.saving is None:
        return f"a cost of {findings.cost}"
    if abs(findings.saving[0]) < _NEGLIGIBLE:
        return f"about the cost of always {findings.largest}"
    return f"{_change(findings.saving[0])} cost than always {findings.largest}"


def _saving(findings: Findings) -> str:
    if findings.saving is None:
        return f"Costs {findings.cost}"
    saved, (low, high) = findings.saving
    if low <= 0 <= high and high - low > 2 * _TELLING:
        return f"Is not shown to save anything against always {findings.largest}"
    if abs(saved) < _NEGLIGIBLE or low <= 0 <= high:
        return f"Costs about as much as always {findings.largest}"
    if saved < 0:
        return f"Costs {format_percent(-saved)} more than always {findings.largest}"
    return f"Saves {format_percent(saved)} of the cost of always {findings.largest}"


def _quality(findings: Findings) -> str:
    _, (low, high) = findings.difference
    figures = f"({findings.qualities})"
    if low > 0:
        return f" and answers better {figures}"
    if high < 0:
        return f", but loses quality {figures}"
    if high - low > _TELLING:
        return f"; the log is too small to tell what that does to quality {figures}"
    return f" with no loss of quality shown {figures}"


def _utility(findings: Findings) -> str:
    (low, high), best = findings.utility_gained, findings.worthiest.name
    if low > 0:
        return "at this cost weight, that is worth more than any model alone"
    if high < 0:
        return f"at this cost weight, {best} alone is worth more"
    return f"at this cost weight, it is not shown to be worth more than {best} alone"


def describe_goal(policy: Policy, evaluation: Evaluation) -> list[str]:
    """Describe whether the requested cost or quality is reached on this log."""
    notes = []
    if (limit := policy.goal.get("max_cost")) is not None:
        met = "within" if evaluation.cost <= limit * (1 + 1e-9) else "above"
        asked, cost = (format_query_cost(c, evaluation.currency) for c in (limit, evaluation.cost))
        notes.append(
            f"The goal was a mean cost of at most {asked}; on this log it is {cost}, {met} that."
        )
    if (least := policy.goal.get("min_quality")) is not None:
        met = "which reaches that" if evaluation.quality >= least - 1e-9 else "below that"
        notes.append(
            f"The goal was a mean quality of at least {format_quality(least)}; on this log it is "
            f"{format_quality(evaluation.quality)}, {met}."
        )
    if (most := policy.goal.get("max_loss")) is not None:
        singles = {f"always:{name}" for name in policy.models}
        qualities = [b.quality for name, b in evaluation.baselines.items() if name in singles]
        lost = max(qualities, default=evaluation.quality) - evaluation.quality
        met = "within" if lost <= most + 1e-9 else "above"
        notes.append(
            f"The goal was to lose at most {format_quality(most)} of quality against the best "
            f"single model; on this log the policy loses {format_quality(lost)}, {met} that."
        )
    return notes


def build_numbers(findings: Findings) -> tuple[Number, Number, Number]:
    """Build cost against the largest model, quality against the best one, and escalations."""
    return _cost_number(findings), _quality_number(findings), _escalation_number(findings)


def _cost_number(findings: Findings) -> Number:
    largest = findings.largest
    if findings.saving is None:
        detail = f"Always {largest} costs nothing in this log, so there is nothing to save."
        return Number("Cost", findings.cost, detail)
    saved, (low, high) = findings.saving
    label = f"Cost against always {largest}"
    large = float(findings.data.cost[:, -1].mean())
    large_cost = format_query_cost(large, findings.evaluation.currency)
    if findings.single == largest and saved == 0:
        detail = f"The policy always asks {largest}, so it saves nothing: {large_cost}."
        return Number(label, format_percent(0.0), detail)
    interval = f" (95 % interval of the change {-high * 100:+.1f} % to {-low * 100:+.1f} %)"
    if len(findings.data) == 1:  # a single query has none
        interval = ""
    detail = f"{findings.cost} against {large_cost} for always {largest}{interval}."
    return Number(label, format_change(-saved), detail)


def _quality_number(findings: Findings) -> Number:
    best = findings.data.models[findings.best]
    label = f"Quality against always {best}"
    difference, interval = findings.difference
    quality = format_quality(float(findings.data.quality[:, findings.best].mean()))
    if findings.single == best and difference == 0:
        detail = f"The policy always asks {best}, the best model alone: quality {quality}."
        return Number(label, format_signed(0.0), detail)
    ends = "" if len(findings.data) == 1 else f" ({format_interval(interval)})"
    detail = (
        f"{format_quality(findings.evaluation.quality)} against {quality} for always {best}, the "
        f"best model alone{ends}."
    )
    if findings.evaluation.abstention_rate:
        detail += " A query that gets no answer counts as quality 0."
    return Number(label, format_signed(difference), detail)


def _escalation_number(findings: Findings) -> Number:
    evaluation = findings.evaluation
    rate, silent = evaluation.escalation_rate, evaluation.abstention_rate
    drawn = f"{evaluation.verification_samples:.2f} verdicts are drawn a query"
    if silent:
        detail = (
            f"{format_percent(silent)} get no answer; {format_percent(rate)} are escalated, and "
            f"{drawn}."
        )
        return Number("Queries answered", format_percent(1 - silent), detail)
    if findings.single is not None and findings.is_stable:
        detail = f"Every query goes to {findings.single}, and no answer is checked."
        return Number("Queries escalated", format_percent(0.0), detail)
    if not any(plan.tables for plan in findings.policy.plans) and not rate:
        share = float((findings.outcomes.model == len(findings.data.models) - 1).mean())
        detail = "Each query goes to one model, and no answer is checked."
        return Number(f"Queries given to {findings.largest}", format_percent(share), detail)
    paths = findings.outcomes.paths
    if not evaluation.verification_samples and paths is not None:
        share = float(paths.checked.any(axis=1).mean())
        drawn = f"on {format_percent(share)} of the queries an answer is checked"
    detail = f"On these more than one model is asked; {drawn}."
    return Number("Queries escalated", format_percent(rate), detail)
