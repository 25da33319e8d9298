"""Decide with a cost weight other than the one that a policy was solved for.

Only the choice of the answer changes, by reducing the POMDP to one step: escalate if the
expected benefit exceeds cost weight times cost. For two models, this is exact once the check is
paid for. Which checks are made, and how often, stays as solved. So do the solver's values, except
for the price of the model to be asked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from langchain_automix.policy.decision.interpreter import Rule, best_answer, step_for
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.decision.table import DecisionRow


def best_single_model(policy: Policy, cost_weight: float | None = None) -> int | None:
    """Return the best model without any check, or None if the means are unknown."""
    fit = policy.fit
    if not fit.quality or not fit.cost:
        return None
    weight = policy.cost_weight if cost_weight is None else cost_weight
    utility = [q - weight * c for q, c in zip(fit.quality, fit.cost, strict=True)]
    return max(range(len(utility)), key=lambda j: utility[j])


def cost_weight_under_pressure(
    policy: Policy, cost_weight: float | None, pressure: float
) -> float | None:
    """Return the cost weight under pressure to save, or None if no costs are known.

    The gain in quality that justifies the cheapest larger model rises linearly from its price at
    the usual weight to 1, which is more than any answer gains.

    Args:
        policy: The policy, for its own weight and its models' costs.
        cost_weight: The weight set instead of the policy's own; None for the policy's own.
        pressure: In [0, 1]; at 0, the weight is the usual one.
    """
    costs = [cost for cost in policy.fit.cost[1:] if cost > 0]
    if not costs:
        return None
    usual = policy.cost_weight if cost_weight is None else cost_weight
    return usual + pressure * max(0.0, 1 / min(costs) - usual)


def with_cost_weight(
    row: DecisionRow, policy: Policy, plan: Plan, answered: Collection[int], cost_weight: float
) -> DecisionRow:
    """Return a policy's row for another cost weight; see `reweighed`."""
    return reweighed(row, plan, policy.models, policy.fit.cost, answered, cost_weight)


def relative_cost(cost: float | None, mean: float) -> float:
    """Return the cost of an answer relative to the mean, or 1 if it is unknown (None or 0).

    Long questions cost more with every model, so a larger model is assumed to deviate from its own
    mean cost by the same factor.
    """
    return cost / mean if cost and mean > 0 else 1.0


def reweighed(
    row: DecisionRow,
    plan: Rule,
    names: Sequence[str],
    cost: Sequence[float],
    answered: Collection[int],
    cost_weight: float,
) -> DecisionRow:
    """Return a row with its values and its step recomputed for another cost weight.

    Args:
        row: A row. It is not changed if it draws more verdicts or has no expected qualities.
        plan: The plan of the row.
        names: Names of all models.
        cost: Mean cost of an answer of each model.
        answered: Indices of the models that have answered.
        cost_weight: How much quality one unit of cost is worth, at least 0.
    """
    models = [j for j in plan.plays if j in answered]
    if row.step.action == "verify" or not row.quality or not cost or not models:
        return row
    quality = dict(zip(plan.plays, row.quality, strict=True))
    values = {"answer": row.values.get("answer", quality[best_answer(row, plan, models)])}
    for j in (j for j in plan.plays if j > max(models)):
        option = f"escalate:{names[j]}"
        solved = row.values.get(option, quality[j] - plan.cost_weight * cost[j])
        values[option] = solved + (plan.cost_weight - cost_weight) * cost[j]
    if "abstain" in row.values:
        values["abstain"] = row.values["abstain"]
    best = max(values, key=lambda option: values[option])
    step = row.step
    if step.action != "escalate" or best != f"escalate:{names[step.model]}":
        step = step_for(best, row, plan, models, names)
    return row.model_copy(update={"step": step, "values": values})
