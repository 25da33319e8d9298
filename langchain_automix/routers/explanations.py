"""Put findings and reasons into words, for `why` in decisions."""

from __future__ import annotations

from typing import Any

from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.decision.table import DecisionRow
from langchain_automix.types import RoutingState, Verification


def decision_details(
    policy: Policy,
    plan: Plan,
    state: RoutingState,
    row: DecisionRow,
    names: tuple[str, ...],
    cost_weight: float,
) -> dict[str, Any]:
    """Return the belief, the values and the reason of a policy's decision.

    Args:
        policy: The policy, or the prior.
        plan: The plan that decides.
        state: The evidence so far.
        row: The step, and the value of each option.
        names: Names of the models.
        cost_weight: The cost weight of this query.
    """
    models, cost = plan.plays, policy.fit.cost
    # The cost of the last model in play, as the quality that its answer must gain.
    price = cost_weight * cost[models[-1]] if cost else 0.0
    caveat = "" if policy.fit.queries else " (by a prior, not calibrated)"
    reason = _reason(row, names, models, price)
    return {
        "belief": {names[j]: q for j, q in zip(models, row.quality, strict=False)},
        "values": row.values,
        "why": f"{findings(state.current.verification)}: {reason}{caveat}.",
    }


def findings(verification: Verification | None) -> str:
    """Describe what one check or several found, as the start of a sentence."""
    if verification is None:
        return "The answer was not checked"
    if not verification.usable and not verification.problem:
        return "The answer cannot be used"
    first, checks = verification, verification.checks
    found = [f"{name!r}: {_describe(check)}" for name, check in checks.items()]
    if not checks or first.verdicts or first.problem or first.score is not None:
        found.insert(0, _describe(first))
    text = "; ".join(found)
    return text[0].upper() + text[1:]


def _reason(
    row: DecisionRow, names: tuple[str, ...], models_in_play: tuple[int, ...], price: float
) -> str:
    """Describe the reason for the step of a row, as half a sentence."""
    step, values = row.step, row.values
    name = names[step.model]
    if not values:
        return f"by the rule, the answer of {name} is {_DONE[step.action]}"
    kept = values["answer"]
    other = max((v for option, v in values.items() if option != "answer"), default=kept)
    if step.action == "verify":
        number = "more verdicts" if step.samples is None else f"{step.samples} more"
        if step.check is not None:
            number = f"the check {step.check!r}"
        return (
            f"{number} may change the decision, which is worth {other:.2f} with their price paid, "
            f"against {kept:.2f} for the answer as it is"
        )
    if step.action == "abstain":
        return f"no answer is worth giving; the best would be worth {kept:.2f}"
    large = names[models_in_play[-1]]
    if len(models_in_play) == 2 and (asked := f"escalate:{large}") in values:  # noqa: PLR2004
        # Computed from the values, which decide; the qualities are clipped to [0, 1].
        gain = values[asked] + price - kept
        verb = "more" if step.action == "escalate" else "not more"
        return (
            f"{large} is expected to gain {gain:+.2f} in quality, {verb} than the {price:.2f} of "
            "quality that its cost is worth"
        )
    if step.action == "answer":
        return f"keeping {name}'s answer is worth {kept:.2f}, anything else at most {other:.2f}"
    return f"asking {name} is worth {other:.2f} with its price paid, the answer so far {kept:.2f}"


_DONE = {"answer": "kept", "escalate": "asked for", "verify": "checked on", "abstain": "not given"}


def _describe(check: Verification) -> str:
    if check.problem:
        return check.problem
    valid = check.accepts + check.rejects
    if valid:
        invalid = f" ({check.invalid} more were invalid)" if check.invalid else ""
        undrawn = f" ({check.undrawn})" if check.undrawn else ""
        return f"{check.accepts} of {valid} verdicts accept the answer{invalid}{undrawn}"
    if check.is_upper_bound:
        return f"the draft was given up, for the check could score it {check.score:.2f} at most"
    if check.score is not None:
        return f"the check scored the answer {check.score:.2f}"
    return f"none of the {check.invalid} verdicts is valid"
