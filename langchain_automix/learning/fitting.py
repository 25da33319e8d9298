"""A policy fitted to traffic of which a part was seen in full, each query weighed by its chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from langchain_automix.learning.estimation import effective_size
from langchain_automix.learning.observations import Observations
from langchain_automix.learning.review_settings import ReviewSettings
from langchain_automix.models.prices import CURRENCY
from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.utils.check_spec import CheckSpec

_LEAST_CHANCE = 0.1
"""A query that became complete by a smaller chance counts for no more than one of this chance: the
fit is a little biased then, and far less noisy."""

_TARGET = 0.25
"""Part of the loss allowed that a policy is fitted for; the rest is left for what the proof cannot
see."""


def weighed(observed: Observations) -> LogArrays:
    """Return the complete queries, each weighed by how unlikely it was to be seen in full."""
    seen = observed.rows(observed.evidence)
    weight = 1 / np.maximum(seen.chance, _LEAST_CHANCE)
    return replace(seen.columns, weight=weight * (len(weight) / max(weight.sum(), 1e-300)))


def fit_to(
    observed: Observations, settings: ReviewSettings, check: CheckSpec | str | None = None
) -> tuple[Policy, float]:
    """Fit a policy to the complete queries.

    Args:
        observed: The traffic.
        settings: The goal.
        check: How the check is rebuilt from a policy file, or its fingerprint.

    Returns:
        The policy, and how many queries of equal weight say as much as those that it is fitted to.

    Raises:
        AutoMixError: No policy can be fitted.
    """
    columns = weighed(observed)
    loss = None if settings.max_loss is None else settings.max_loss * _TARGET
    goal = Goal(cost_weight=settings.cost_weight, max_loss=loss)
    policy = fit_policy(
        columns, goal, verifier=check, seed=settings.seed, foretell=False, prior=settings.prior
    )
    return policy.model_copy(update={"currency": CURRENCY}), effective_size(columns.weight)
