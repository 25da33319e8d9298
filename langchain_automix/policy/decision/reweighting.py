"""Another cost weight than the one that a policy was solved for, at the time of a query.

Only what is kept is decided anew, by the reduction of the POMDP to one step: escalate where the
expected benefit exceeds cost weight times cost (for two models that is exact once the check
is paid). What is checked, and how often, stays as it was solved, and so do the values that the
solver gave, but for what the model to be asked costs by the other weight.
"""

from __future__ import annotations

from collections.abc import Collection

from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.decision.table import DecisionRow, PlannedAction


def best_alone(policy: Policy, cost_weight: float | None = None) -> int | None:
    """Return the model that is best if no answer is checked; None if its means are not known."""
    fit = policy.fit
    if not fit.quality or not fit.cost:
        return None
    weight = policy.cost_weight if cost_weight is None else cost_weight
    worth = [q - weight * c for q, c in zip(fit.quality, fit.cost, strict=True)]
    return max(range(len(worth)), key=lambda j: worth[j])


def cost_weight_under_pressure(
    policy: Policy, cost_weight: float | None, pressure: float
) -> float | None:
    """Return the cost weight under a pressure to save; None if no costs are known.

    The gain in quality that the nearest larger model must bring rises in a straight line from
    what it costs by the usual weight to 1, which is more than any answer gains.

    Args:
        policy: The policy, for its own weight and its models' costs.
        cost_weight: The weight set instead of the policy's own; None: its own.
        pressure: In [0, 1]; at 0 the weight is the usual one.
    """
    later = [cost for cost in policy.fit.cost[1:] if cost > 0]
    if not later:
        return None
    usual = policy.cost_weight if cost_weight is None else cost_weight
    return usual + pressure * max(0.0, 1 / min(later) - usual)


def with_cost_weight(
    row: DecisionRow, policy: Policy, plan: Plan, answered: Collection[int], cost_weight: float
) -> DecisionRow:
    """Return a row with its values, and what is done, by another cost weight.

    Args:
        row: What the policy does after a finding. One that draws more verdicts, or that does not
            say what quality to expect, stays as it is.
        policy: The policy, for its models' costs.
        plan: The plan that the row is from.
        answered: Models that have answered.
        cost_weight: How much quality one unit of cost is worth, at least 0.
    """
    cost = policy.fit.cost
    if row.step.action == "verify" or not row.quality or not cost:
        return row
    quality = dict(zip(plan.plays, row.quality, strict=True))
    given = [j for j in plan.plays if j in answered]
    if not given:
        return row
    kept = row.kept(given, plan.plays)
    steps = {"answer": PlannedAction(action="answer", model=kept)}
    values = {"answer": row.values.get("answer", quality[kept])}
    for j in plan.plays:
        if j > max(given):
            option = f"escalate:{policy.models[j]}"
            checked = row.step.action == "escalate" and row.step.model == j
            steps[option] = (
                row.step if checked else PlannedAction(action="escalate", model=j, samples=0)
            )
            solved = row.values.get(option, quality[j] - plan.cost_weight * cost[j])
            values[option] = solved + (plan.cost_weight - cost_weight) * cost[j]
    if "abstain" in row.values:
        steps["abstain"] = PlannedAction(action="abstain", model=max(given))
        values["abstain"] = row.values["abstain"]
    best = max(values, key=lambda option: values[option])
    return row.model_copy(update={"step": steps[best], "values": values})
