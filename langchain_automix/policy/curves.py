"""What a check says about the benefit: the data in groups, and what a policy believes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from langchain_automix.policy.columns import Columns
from langchain_automix.policy.metrics import groups_of
from langchain_automix.policy.plan import Plan, Policy, Table
from langchain_automix.policy.rules import confidences

_MOST_GROUPS = 12


@dataclass(frozen=True)
class Group:
    """Some answers of about the same confidence."""

    confidence: float
    benefit: float
    """Mean quality of the larger model's answers minus that of these."""

    error: float
    """Standard error of that mean; 0 for a single answer, of which it is not known."""

    queries: int


def benefit_groups(columns: Columns, small: int, large: int) -> tuple[Group, ...]:
    """Return the benefit of asking a larger model, by the confidence in a smaller one's answer.

    Args:
        columns: Complete queries.
        small: Index of the model whose answers are checked.
        large: Index of the larger model.

    Returns:
        Up to 12 groups, by rising confidence; one a value where there are few values. Answers
        without a known confidence are left out.
    """
    confidence = confidences(columns, small)
    benefit = columns.quality[:, large] - columns.quality[:, small]
    known = np.flatnonzero(~np.isnan(confidence))
    found = []
    for group in groups_of(confidence[known], _MOST_GROUPS):
        inside = benefit[known[group]]
        error = float(inside.std(ddof=1) / np.sqrt(len(inside))) if len(inside) > 1 else 0.0
        middle = float(confidence[known[group]].mean())
        found.append(Group(middle, float(inside.mean()), error, len(inside)))
    return tuple(found)


def checking_plan(policy: Policy) -> tuple[Plan, Table] | None:
    """Return the first plan of a policy that checks an answer, and its first table."""
    return next(((plan, plan.tables[0]) for plan in policy.plans if plan.tables), None)


def believed_benefit(table: Table, here: int) -> tuple[tuple[float, float], ...]:
    """Return (confidence, expected benefit) of the fullest findings of a table, ascending.

    Args:
        table: What is done after each finding.
        here: Place of its model among the models in play.

    Returns:
        Empty for a rule that holds no belief.
    """
    if any(not row.quality for row in table.rows):
        return ()
    if table.kind == "score":
        middles = [(low + high) / 2 for low, high in pairwise((0.0, *table.edges, 1.0))]
        return tuple(
            sorted(
                (middles[row.seen[0]], row.quality[-1] - row.quality[here]) for row in table.rows
            )
        )
    return tuple(
        sorted(
            (row.seen[0] / table.most, row.quality[-1] - row.quality[here])
            for row in table.rows
            if sum(row.seen) == table.most and not row.seen[2]
        )
    )
