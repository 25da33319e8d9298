"""Extract the plan for the policy file from a solved POMDP."""

from __future__ import annotations

from typing import Any

from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.table import DecisionTable, PlannedAction
from langchain_automix.policy.pomdp.backward_induction import Solution
from langchain_automix.policy.pomdp.solved_rule import SolvedRule, SolvedTable

_LARGE_TREE = 20_000
"""Number of states from which a tree takes megabytes, while its plan takes kilobytes."""


def solved_rule(
    solution: Solution,
    names: tuple[str, ...],
    *,
    label: str,
    cost_weight: float,
    whole: bool = True,
) -> Plan | SolvedRule:
    """Return the best rule of a solved POMDP; it is already a plan if it checks nothing.

    Args:
        solution: The solved POMDP.
        names: Names of all models of the log.
        label: The kind of rule.
        cost_weight: Cost weight that it was solved for.
        whole: Whether the first table covers everything that several checks can find, rather than
            only what the policy reaches. A mix needs this, since its checks may be cut short.
    """
    option, _ = solution.opening
    if option.draw is not None:
        return SolvedRule(solution, names, name=label, cost_weight=cost_weight, whole=whole)
    index = solution.pomdp.models[option.model]
    opening = PlannedAction(action="escalate", model=index, samples=0)
    return Plan(name=f"always:{names[index]}", opening=opening, plays=(index,))


def extract_plan(rule: Plan | SolvedRule) -> Plan:
    """Return a rule as a plan, with the tables that it can reach."""
    if isinstance(rule, Plan):
        return rule
    rule = rule.unread()  # rows read so far would change the order of its tables
    return Plan(
        name=rule.name,
        opening=rule.opening,
        plays=rule.plays,
        # Building the rows of one table makes the rule add the next ones.
        tables=tuple(_table(table) for table in rule.tables),
        cost_weight=rule.cost_weight,
    )


def compact(rule: Plan | SolvedRule) -> Plan | SolvedRule:
    """Return a rule in a form to be kept with many others: as a plan if its tree is large."""
    is_large = isinstance(rule, SolvedRule) and rule.states > _LARGE_TREE
    return extract_plan(rule) if is_large else rule


def _table(table: SolvedTable) -> DecisionTable:
    evidence = table.evidence
    shape: dict[str, Any]
    if table.is_of_several:
        shape = {"kind": "several", "checks": evidence.readings}
    else:
        shape = {
            "kind": "score" if evidence.is_one_score else "verdicts",
            "counts_invalid": evidence.counts_invalid,
            "edges": tuple(evidence.edges.tolist()),
        }
    rows = tuple(table.row(state, table.chances[state]) for state in table.states)
    return DecisionTable(model=table.model, rows=rows, **shape)
