"""The benefit of a larger model after a check: in the data, by groups, in a policy's belief."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.policy.decision.observation import Observation
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.decision.table import DecisionTable
from langchain_automix.policy.fitting.baselines import confidences
from langchain_automix.policy.statistics import equal_groups

_MOST_GROUPS = 12


@dataclass(frozen=True)
class BenefitGroup:
    """Answers with about the same confidence."""

    confidence: float
    benefit: float
    """Mean quality of the larger model's answers minus that of these answers."""

    error: float
    """Standard error of that mean; 0 for a single answer, for which it is unknown."""

    queries: int


def benefit_groups(data: LogArrays, small: int, large: int) -> tuple[BenefitGroup, ...]:
    """Return the benefit of asking a larger model, by the confidence in a smaller one's answer.

    Args:
        data: Complete queries.
        small: Index of the model whose answers are checked.
        large: Index of the larger model.

    Returns:
        Up to 12 groups, in order of confidence; one per value if there are few values. Answers
        without a known confidence are left out.
    """
    confidence = confidences(data, small)
    benefit = data.quality[:, large] - data.quality[:, small]
    known = ~np.isnan(confidence)
    confidence, benefit = confidence[known], benefit[known]
    groups = []
    for rows in equal_groups(confidence, _MOST_GROUPS):
        inside = benefit[rows]
        error = float(inside.std(ddof=1) / np.sqrt(len(inside))) if len(inside) > 1 else 0.0
        middle = float(confidence[rows].mean())
        groups.append(BenefitGroup(middle, float(inside.mean()), error, len(inside)))
    return tuple(groups)


def checking_plan(policy: Policy) -> tuple[Plan, DecisionTable] | None:
    """Return the first plan of a policy that checks an answer, and its first table."""
    return next(((plan, plan.tables[0]) for plan in policy.plans if plan.tables), None)


def believed_benefit(
    table: DecisionTable, rank: int, check: str | None = None
) -> tuple[tuple[float, float], ...]:
    """Return (confidence, expected benefit) for each complete result of one check, ascending.

    Args:
        table: What to do after each result.
        rank: Position of its model among the models in play.
        check: Name of one of several checks, where the others have found nothing; None for the
            first.

    Returns:
        The pairs; empty for a rule without a belief, and for a table that does not read the check.
    """
    if any(not row.quality for row in table.rows):
        return ()
    curve = [
        (confidence, row.quality[-1] - row.quality[rank])
        for row in table.rows
        if (confidence := _confidence(table, row.seen, check)) is not None
    ]
    return tuple(sorted(curve))


def _confidence(table: DecisionTable, seen: Observation, check: str | None) -> float | None:
    """Return the confidence if one check alone has all its verdicts, else None."""
    encoding = next((e for e in table.encodings if e.name == check), None)
    observations = dict(zip(table.encodings, table.split(seen), strict=True))
    if encoding is None or [e for e, found in observations.items() if any(found)] != [encoding]:
        return None
    found = observations[encoding]
    if encoding.kind == "score":
        low, high = tuple(pairwise((0.0, *encoding.edges, 1.0)))[found[0] - 1]
        return (low + high) / 2
    return found[0] / encoding.most if sum(found) == encoding.most and not found[2] else None
