"""A policy and an evaluation, in words and as tables, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from langchain_automix.policy.decision.observation import CheckEncoding, Observation
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.decision.table import DecisionRow, DecisionTable, PlannedAction
from langchain_automix.utils.tables import text_table

_MOST_ROWS = 20


def describe_policy(policy: Policy) -> str:
    """Return a policy in words and as a table."""
    lines = [*_origin(policy), ""]
    for plan, share in zip(
        policy.plans, (policy.first_share, 1 - policy.first_share), strict=False
    ):
        if len(policy.plans) > 1:
            lines.append(f"For {share:.1%} of the queries, chosen by their id ({plan.name}):")
        lines += [*_plan(policy, plan), ""]
    if policy.fit.candidates:
        lines += [*_choice(policy), ""]
    lines += list(policy.fit.notes)
    return "\n".join(lines).strip()


def _origin(policy: Policy) -> Iterable[str]:
    unit = f" {policy.currency}" if policy.currency else ""
    if not policy.fit.queries:
        yield "A prior, not fitted to any log and not calibrated to your models."
    else:
        yield f"Fitted to {policy.fit.queries} logged queries."
    goal = ", ".join(f"{name} {value:g}" for name, value in policy.goal.items())
    yield f"Goal: {goal or 'none given'}."
    yield f"Cost weight: {policy.cost_weight:g} of quality for one unit{unit or ' of cost'}."
    if policy.fit.quality:
        rows = [
            (name, f"{quality:.4f}", f"{cost:g}{unit}")
            for name, quality, cost in zip(
                policy.models, policy.fit.quality, policy.fit.cost, strict=True
            )
        ]
        yield from text_table(("model", "mean quality", "mean cost"), rows)


def _plan(policy: Policy, plan: Plan) -> Iterable[str]:
    yield f"Start: {_said(policy, plan.opening)}."
    for number, table in enumerate(plan.tables):
        yield f"Table {number}: after the check of {policy.models[table.model]}'s answer,"
        rows = _rows(policy, plan, table)
        names = [f"E[quality {policy.models[j]}]" for j in plan.plays]
        yield from text_table((_heading(table), "how often", *names, "do"), rows[:_MOST_ROWS])
        if len(rows) > _MOST_ROWS:
            yield f"  ... and {len(rows) - _MOST_ROWS} more rows, in the file."


def _heading(table: DecisionTable) -> str:
    if not table.checks:
        return _kind(table)
    return ", ".join(_kind(r) if r.name is None else f"{r.name} ({_kind(r)})" for r in table.checks)


def _kind(read: DecisionTable | CheckEncoding) -> str:
    if read.kind == "score":
        return "score"
    return "accept/reject/invalid" if read.counts_invalid else "accept/reject"


def _rows(policy: Policy, plan: Plan, table: DecisionTable) -> list[tuple[str, ...]]:
    """Return the rows that the policy comes to; all, where it does not know how often."""
    known = any(row.chance for row in table.rows)
    met = [row for row in table.rows if row.chance > 0 or not known]
    return [
        (
            _seen(table, row),
            f"{row.chance:.1%}" if known else "",
            *(f"{q:.3f}" for q in row.quality or ("",) * 0),
            *("",) * (len(plan.plays) - len(row.quality)),
            _said(policy, row.step),
        )
        for row in met
    ]


def _seen(table: DecisionTable, row: DecisionRow) -> str:
    if not table.checks:
        return _finding(table, row.seen)
    said = []
    for reading, seen in zip(table.checks, table.parts(row.seen), strict=True):
        own = (seen[0] - 1,) if reading.kind == "score" else seen
        said.append(_finding(reading, own) if any(seen) else "-")
    return ", ".join(said)


def _finding(read: DecisionTable | CheckEncoding, seen: Observation) -> str:
    if read.kind != "score":
        return "/".join(map(str, seen if read.counts_invalid else seen[:2]))
    low = read.edges[seen[0] - 1] if seen[0] else 0.0
    high = read.edges[seen[0]] if seen[0] < len(read.edges) else 1.0
    return f"{low:.4g} to {high:.4g}"


def _said(policy: Policy, step: PlannedAction) -> str:
    name = policy.models[step.model] if step.model < len(policy.models) else "a later model"
    some = "" if step.samples is None else f" with {step.samples} verdicts"
    if step.samples == 1:
        some = " with 1 verdict"
    if step.check is not None:
        some = f" by {step.check}{some}"
    if step.action == "answer":
        return f"keep the answer of {name}"
    if step.action == "abstain":
        return "give no answer"
    if step.action == "verify":
        return f"check {name} on{some}"
    if step.then is None:
        return f"ask {name}, and keep its answer unchecked"
    return f"ask {name}, and check its answer{some} (table {step.then})"


def _choice(policy: Policy) -> Iterable[str]:
    yield "Chosen from (utility a query; cross-fitted where it was in the running):"
    rows = [
        (
            c.name,
            f"{c.expected:.4f}",
            "" if c.cross_fitted is None else f"{c.cross_fitted:.4f}",
            "" if c.error is None else f"{c.error:.4f}",
        )
        for c in sorted(policy.fit.candidates, key=lambda c: -c.expected)[:_MOST_ROWS]
    ]
    yield from text_table(("candidate", "expected", "cross-fitted", "error of its gain"), rows)
