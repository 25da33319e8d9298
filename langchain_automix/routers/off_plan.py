"""Decide when no table of a policy reads what a check found."""

from __future__ import annotations

from typing import Any

from langchain_automix.policy.decision.policy import Policy
from langchain_automix.routers.base import ask, keep
from langchain_automix.routers.explanations import findings
from langchain_automix.types import Decision, RoutingState


def decide_unknown(
    policy: Policy, state: RoutingState, later: int | None, *, by_means: bool
) -> Decision:
    """Decide when the check gives no evidence that the policy reads.

    Args:
        policy: The policy, or the prior.
        state: The evidence so far.
        later: The model to ask next; None if there is none.
        by_means: Whether to decide by the models' mean qualities; else the next model is asked.
    """
    check = state.current.verification
    if later is None:
        return keep(state, why=f"{findings(check)}, and there is no larger model to ask.")
    if by_means:
        return _decide_by_means(policy, state, later)
    is_known = check is not None and check.score is not None
    unread = "no evidence that this policy reads" if is_known else "unknown"
    why = f"{findings(check)}: {unread}, so {state.models[later]} is asked to be safe."
    return ask_unchecked(later, why=why) if policy.fit.queries else ask(state, later, why=why)


def _decide_by_means(policy: Policy, state: RoutingState, later: int) -> Decision:
    fit, current = policy.fit, state.current.model_index
    here, there = (current, later) if fit.queries else (0, 1)  # the prior has two models
    weight = policy.cost_weight if state.cost_weight is None else state.cost_weight
    gain, price = fit.quality[there] - fit.quality[here], weight * fit.cost[there]
    name = state.models[later]
    belief = {state.models[current]: fit.quality[here], name: fit.quality[there]}
    why = (
        f"{findings(state.current.verification)}: on average {name} gains {gain:+.2f} in quality, "
        f"and its cost is worth {price:.2f} of quality."
    )
    if gain > price:
        return ask_unchecked(later, why=why, belief=belief)
    return keep(state, why=why, belief=belief)


def decide_unread(state: RoutingState, later: int | None) -> Decision:
    """Decide when an answer was checked, but the policy reads no check.

    Args:
        state: The evidence so far.
        later: The model that the policy asks next; None if it asks no other.
    """
    trusted = state.models[state.current.model_index if later is None else later]
    why = (
        f"{findings(state.current.verification)}, but the policy trusts {trusted} on every "
        "query and reads no check."
    )
    return keep(state, why=why) if later is None else ask_unchecked(later, why=why)


def ask_unchecked(model_index: int, **details: Any) -> Decision:
    """Return the decision to ask another model without checking its answer."""
    return Decision(action="escalate", model_index=model_index, samples=0, **details)
