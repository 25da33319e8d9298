"""Policies of two models that read a score, made row by row, or that read nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_automix import POMDPRouter
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import FitStatistics, Policy
from langchain_automix.policy.decision.table import DecisionRow, DecisionTable, PlannedAction

ESCALATE = PlannedAction(action="escalate", model=1, samples=0)
ANSWER = PlannedAction(action="answer", model=0)
ABSTAIN = PlannedAction(action="abstain", model=0)
STEPS = (ESCALATE, ANSWER, ABSTAIN)


def score_router(
    edges: Sequence[float], steps: Sequence[PlannedAction], **fields: Any
) -> POMDPRouter:
    """A router whose table has these bins, and does this in each.

    Args:
        edges: Of the bins, ascending.
        steps: One for each bin, one more than edges.
        **fields: Of the policy, such as `own_cost`; `on_unknown` is the router's.
    """
    known = {"on_unknown": fields.pop("on_unknown")} if "on_unknown" in fields else {}
    rows = tuple(_row(i, step, len(steps)) for i, step in enumerate(steps))
    table = DecisionTable(model=0, kind="score", edges=tuple(edges), rows=rows)
    opening = PlannedAction(action="escalate", model=0, samples=None, then=0)
    plan = Plan(name="of a test", opening=opening, plays=(0, 1), tables=(table,), cost_weight=0.01)
    fit = FitStatistics(queries=100, quality=(0.5, 0.8), cost=(1.0, 10.0))
    policy = Policy(models=("small", "large"), cost_weight=0.01, plans=(plan,), fit=fit, **fields)
    return POMDPRouter(policy=policy, **known)


def unchecked_router(model: int) -> POMDPRouter:
    """A router that keeps whatever one model says."""
    opening = PlannedAction(action="escalate", model=model, samples=0)
    plan = Plan(name="of a test", opening=opening, plays=(model,), cost_weight=0.01)
    fit = FitStatistics(queries=100, quality=(0.5, 0.8), cost=(1.0, 10.0))
    policy = Policy(models=("small", "large"), cost_weight=0.01, plans=(plan,), fit=fit)
    return POMDPRouter(policy=policy)


def _row(place: int, step: PlannedAction, number: int) -> DecisionRow:
    """A row whose values are such that its step is the best, and would be at other prices."""
    small = 0.9 if step is ANSWER else 0.2
    values = {"answer": small, "escalate:large": 0.7, "abstain": 0.8 if step is ABSTAIN else 0.1}
    chance = 1 / number
    return DecisionRow(seen=(place,), step=step, chance=chance, quality=(small, 0.8), values=values)
