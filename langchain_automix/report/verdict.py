"""The verdict in one sentence, and the three numbers under it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from langchain_automix.evaluation.evaluate import FEW
from langchain_automix.evaluation.result import Evaluation
from langchain_automix.policy.data.arrays import Floats, LogArrays
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.replay import Outcomes
from langchain_automix.policy.statistics import Interval, bootstrap, mean_interval
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
"""A 95 % interval of the difference in quality that is wider than this tells too little."""

_SAME = 0.005
"""A share of the cost that is taken for no difference."""


@dataclass(frozen=True)
class Findings:
    """All that the sentences are made of."""

    policy: Policy
    data: LogArrays
    outcomes: Outcomes
    found: Evaluation
    seed: int

    @property
    def largest(self) -> str:
        """Name of the last model."""
        return self.data.models[-1]

    @property
    def best(self) -> int:
        """Index of the single model of the best mean quality, the cheaper one of equals."""
        return int(self.data.quality.mean(axis=0).argmax())

    @property
    def is_steady(self) -> bool:
        """Whether a policy that gives all queries to one model does so here.

        Cross-fitted, policies fitted without a part of the log may choose otherwise.
        """
        single = alone(self.policy)
        if single is None:
            return True
        same = self.outcomes.model == self.data.models.index(single)
        return bool((same & (self.outcomes.asked == 1)).all())

    @property
    def worthiest(self) -> str:
        """Name of the single model of the best mean utility at the cost weight."""
        utility = self.data.quality - self.found.cost_weight * self.data.cost
        return self.data.models[int(utility.mean(axis=0).argmax())]

    @property
    def saving(self) -> tuple[float, Interval] | None:
        """Cost less than that of the largest model alone, as a share, and its 95 % interval.

        None where the largest model costs nothing.
        """
        costs = np.stack([self.outcomes.cost, self.data.cost[:, -1]], axis=1)
        own, large = costs.mean(axis=0).tolist()
        if large <= 0:
            return None
        saved = (large - own) / large
        interval = bootstrap(costs, _saved, self.seed)
        if interval is None:  # the delta method, for very many queries
            low, high = mean_interval((costs[:, 1] * (own / large) - costs[:, 0]) / large)
            interval = (saved + low, saved + high)
        return saved, interval

    @property
    def difference(self) -> tuple[float, Interval]:
        """Quality gained over the best single model, and its 95 % interval."""
        gained = self.outcomes.quality - self.data.quality[:, self.best]
        return float(gained.mean()), mean_interval(gained)

    @property
    def compared(self) -> str:
        """The quality beside that of the best single model, for brackets; no interval.

        The verdict must be read at once; the second number under it has the interval.
        """
        alone = float(self.data.quality[:, self.best].mean())
        best = self.data.models[self.best]
        of = "" if best == self.largest else f" of always {best}"
        return f"quality {format_quality(self.found.quality)} against {format_quality(alone)}{of}"


def _saved(means: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        saved: Floats = np.where(means[:, 1] > 0, 1 - means[:, 0] / means[:, 1], np.nan)
    return saved


def alone(policy: Policy) -> str | None:
    """Return the name of the one model that a policy gives every query to, unchecked, if any."""
    [first, *more] = policy.plans
    if more or first.tables:
        return None
    return policy.models[first.opening.model]


def verdict_of(said: Findings) -> str:
    """Return what the policy comes to, in one sentence that claims no more than the log shows."""
    if len(said.data) < FEW:
        number = "one query" if len(said.data) == 1 else f"{len(said.data)} queries"
        return f"This log of {number} is too small to tell what the policy saves or loses."
    if "max_risk" in said.policy.goal:
        return f"{_risk(said)}{_cost_clause(said)}."
    single = alone(said.policy)
    if single is not None:
        return _single(said, single)
    if not any(plan.tables for plan in said.policy.plans):
        return _mixed(said)
    if said.found.abstention_rate:
        return _abstaining(said)
    return f"{_head(said)}{_quality_clause(said)}; {_utility_clause(said)}."


def _single(said: Findings, single: str) -> str:
    if not said.is_steady:
        return (
            f"This log is too small to tell what pays: the policy gives every query to {single}, "
            "unchecked, but fitted to parts of the log it chooses otherwise."
        )
    better = said.found.baselines[f"always:{said.worthiest}"].interval[1] < 0
    if said.worthiest != single and better:
        return (
            f"The policy gives every query to {single}, unchecked, but at this cost weight always "
            f"{said.worthiest} is worth more on this log ({said.compared})."
        )
    text = f"One model alone is chosen: every query goes to {single}, unchecked"
    if single == said.largest:
        return f"{text}, so the policy saves nothing and loses nothing against always {single}."
    place = said.data.models.index(single)
    if place == said.best:
        saving = said.saving
        less = (
            "" if saving is None else f", at {_change(saving[0])} cost than always {said.largest}"
        )
        return f"{text}{less}; no model alone answers better on this log."
    return f"{text}{_cost_clause(said)} ({said.compared})."


def _mixed(said: Findings) -> str:
    names = [said.policy.models[plan.opening.model] for plan in said.policy.plans]
    return (
        f"No check is made: the policy gives queries to {names[0]} or to {names[-1]} at random"
        f"{_cost_clause(said)} ({said.compared})."
    )


def _risk(said: Findings) -> str:
    answered = said.outcomes.model >= 0
    wrong = float(np.where(answered, 1 - said.outcomes.quality, 0.0).mean())
    limit = said.policy.goal["max_risk"]
    held = "within" if wrong <= limit else "above"
    return (
        f"Answers {format_percent(float(answered.mean()))} of the queries and gives a wrong "
        "answer to "
        f"{format_percent(wrong)} of all, {held} the limit of {format_percent(limit)}"
    )


def _abstaining(said: Findings) -> str:
    silent = said.found.abstention_rate
    answered = ""
    if silent < 1:
        quality = format_quality(said.found.quality / (1 - silent))
        answered = f" and answers the others with quality {quality}"
    worth = said.policy.goal.get("abstain_value", 0.0)
    return (
        f"Gives no answer to {format_percent(silent)} of the "
        f"queries{answered}{_cost_clause(said)}; "
        f"{_utility_clause(said)}, if no answer is worth {worth:g}."
    )


def _change(saved: float) -> str:
    return f"{format_percent(abs(saved))} {'less' if saved > 0 else 'more'}"


def _cost(said: Findings) -> str:
    if said.saving is None:
        return f"a cost of {format_query_cost(said.found.cost, said.found.currency)}"
    if abs(said.saving[0]) < _SAME:
        return f"about the cost of always {said.largest}"
    return f"{_change(said.saving[0])} cost than always {said.largest}"


def _cost_clause(said: Findings) -> str:
    return f", at {_cost(said)}"


def _head(said: Findings) -> str:
    if said.saving is None:
        return f"Costs {format_query_cost(said.found.cost, said.found.currency)}"
    saved, (low, high) = said.saving
    if low <= 0 <= high and high - low > 2 * _TELLING:
        return f"Is not shown to save anything against always {said.largest}"
    if abs(saved) < _SAME or low <= 0 <= high:
        return f"Costs about as much as always {said.largest}"
    if saved < 0:
        return f"Costs {format_percent(-saved)} more than always {said.largest}"
    return f"Saves {format_percent(saved)} of the cost of always {said.largest}"


def _quality_clause(said: Findings) -> str:
    _, (low, high) = said.difference
    figures = f"({said.compared})"
    if low > 0:
        return f" and answers better {figures}"
    if high < 0:
        return f", but loses quality {figures}"
    if high - low > _TELLING:
        return f"; the log is too small to tell what that does to quality {figures}"
    return f" with no loss of quality shown {figures}"


def _utility_clause(said: Findings) -> str:
    against = said.found.baselines[f"always:{said.worthiest}"]
    low, high = against.interval
    if low > 0:
        return "at this cost weight, that is worth more than any model alone"
    if high < 0:
        return f"at this cost weight, {said.worthiest} alone is worth more"
    return f"at this cost weight, it is not shown to be worth more than {said.worthiest} alone"


def goal_notes(policy: Policy, found: Evaluation) -> list[str]:
    """Return whether the cost or the quality that was asked for is reached on this log."""
    notes = []
    if (most := policy.goal.get("max_cost")) is not None:
        met = "within" if found.cost <= most * (1 + 1e-9) else "above"
        notes.append(
            f"The goal was a mean cost of at most {format_query_cost(most, found.currency)}; on "
            f"this log it is {format_query_cost(found.cost, found.currency)}, {met} that."
        )
    if (least := policy.goal.get("min_quality")) is not None:
        met = "which reaches that" if found.quality >= least - 1e-9 else "below that"
        notes.append(
            f"The goal was a mean quality of at least {format_quality(least)}; on this log it is "
            f"{format_quality(found.quality)}, {met}."
        )
    return notes


def numbers_of(said: Findings) -> tuple[Number, Number, Number]:
    """Return cost against the largest model, quality against the best one, and escalations."""
    return _cost_number(said), _quality_number(said), _third_number(said)


def _cost_number(said: Findings) -> Number:
    own = format_query_cost(said.found.cost, said.found.currency)
    if said.saving is None:
        detail = f"Always {said.largest} costs nothing in this log, so there is nothing to save."
        return Number("Cost", own, detail)
    saved, (low, high) = said.saving
    large = format_query_cost(float(said.data.cost[:, -1].mean()), said.found.currency)
    value = format_change(-saved)
    if alone(said.policy) == said.largest and saved == 0:
        detail = f"The policy always asks {said.largest}, so it saves nothing: {large}."
        return Number(f"Cost against always {said.largest}", format_percent(0.0), detail)
    interval = f" (95 % interval of the change {-high * 100:+.1f} % to {-low * 100:+.1f} %)"
    if len(said.data) == 1:  # of one query none is known
        interval = ""
    detail = f"{own} against {large} for always {said.largest}{interval}."
    return Number(f"Cost against always {said.largest}", value, detail)


def _quality_number(said: Findings) -> Number:
    best = said.data.models[said.best]
    difference, interval = said.difference
    mean = float(said.data.quality[:, said.best].mean())
    label = f"Quality against always {best}"
    if alone(said.policy) == best and difference == 0:
        detail = (
            f"The policy always asks {best}, the best model alone: quality {format_quality(mean)}."
        )
        return Number(label, format_signed(0.0), detail)
    detail = (
        f"{format_quality(said.found.quality)} against {format_quality(mean)} for always {best}, "
        "the best model "
        f"alone{'' if len(said.data) == 1 else f' ({format_interval(interval)})'}."
    )
    if said.found.abstention_rate:
        detail += " A query that gets no answer counts as quality 0."
    return Number(label, format_signed(difference), detail)


def _third_number(said: Findings) -> Number:
    found, rate = said.found, said.found.escalation_rate
    drawn = f"{found.verification_samples:.2f} verdicts are drawn a query"
    single = alone(said.policy)
    if found.abstention_rate:
        detail = (
            f"{format_percent(found.abstention_rate)} get no answer; {format_percent(rate)} are "
            "escalated, and "
            f"{drawn}."
        )
        return Number("Queries answered", format_percent(1 - found.abstention_rate), detail)
    if single is not None and said.is_steady:
        detail = f"Every query goes to {single}, and no answer is checked."
        return Number("Queries escalated", format_percent(0.0), detail)
    if not any(plan.tables for plan in said.policy.plans) and not rate:
        share = float((said.outcomes.model == len(said.data.models) - 1).mean())
        detail = "Each query goes to one model, and no answer is checked."
        return Number(f"Queries given to {said.largest}", format_percent(share), detail)
    checked = said.outcomes.paths
    if not found.verification_samples and checked is not None:
        share = float(checked.checked.any(axis=1).mean())
        drawn = f"on {format_percent(share)} of the queries an answer is checked"
    detail = f"On these more than one model is asked; {drawn}."
    return Number("Queries escalated", format_percent(rate), detail)
