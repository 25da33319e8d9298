"""The policy used before any fit: a guess in round numbers, in plain Python."""

from __future__ import annotations

import functools
import math

from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import FitStatistics, Policy
from langchain_automix.policy.decision.table import DecisionRow, DecisionTable, PlannedAction

_SAMPLES = 8
_GROUPS = (((1.0, 1.0), 52, 6), ((0.0, 1.0), 28, 4), ((1.0, 0.0), 8, 6), ((0.0, 0.0), 12, 4))
"""Imagined queries: the qualities of both models, their number, and accepts among 8 verdicts."""

_COST = (1.0, 10.0)


@functools.cache
def prior_policy() -> Policy:
    """Return the policy used before any fit: a guess in round numbers, not a calibration.

    It represents 100 imagined queries: both models are right on 52, only the large one on 28, only
    the small one on 8, neither on 12. Of 8 verdicts, a right small answer gets 6 accepts and a
    wrong one 4, so the check is only moderately better than chance. An answer of the large model
    costs as much as ten of the small one. At this cost weight, random mixing neither gains nor
    loses, so the policy escalates if an answer looks worse than average.
    """
    weight = (0.8 - 0.6) / (_COST[1] - _COST[0])
    rows = tuple(
        _row(accepts, total - accepts, weight)
        for total in range(1, _SAMPLES + 1)
        for accepts in range(total + 1)
    )
    plan = Plan(
        name="prior",
        opening=PlannedAction(action="escalate", model=0, then=0),
        plays=(0, 1),
        tables=(DecisionTable(model=0, kind="verdicts", rows=rows),),
        cost_weight=weight,
    )
    return Policy(
        models=("small", "large"),
        cost_weight=weight,
        plans=(plan,),
        fit=FitStatistics(queries=0, quality=(0.6, 0.8), cost=_COST),
    )


def _row(accepts: int, rejects: int, weight: float) -> DecisionRow:
    chances = [
        queries
        * _beta(1 + logged + accepts, 1 + _SAMPLES - logged + rejects)
        / _beta(1 + logged, 1 + _SAMPLES - logged)
        for _, queries, logged in _GROUPS
    ]
    small, large = (
        math.fsum(c * quality[j] for c, (quality, _, _) in zip(chances, _GROUPS, strict=True))
        / math.fsum(chances)
        for j in range(2)
    )
    escalating = large - weight * _COST[1]
    step = PlannedAction(action="answer", model=0)
    if escalating > small:
        step = PlannedAction(action="escalate", model=1, samples=0)
    values = {"answer": round(small, 6), "escalate:large": round(escalating, 6)}
    return DecisionRow(
        seen=(accepts, rejects, 0),
        step=step,
        quality=(round(small, 6), round(large, 6)),
        values=values,
    )


def _beta(a: int, b: int) -> float:
    return math.exp(math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))
