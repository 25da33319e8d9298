"""Decide when to stop gathering examples, by a sequential test that no rival is much better.

At every look, the policy that a fit would choose now is compared with every other candidate of that
fit, on the same held-out queries. The mean of their paired differences in utility gets an upper
bound that holds at all looks at once, so that frequent looks do not invalidate it. It is the
one-sided normal mixture of Robbins ("Statistical methods related to the law of the iterated
logarithm", 1970) with an estimated variance, an asymptotic confidence sequence (Waudby-Smith,
Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences", Annals of Statistics 2024, arXiv 2103.06476, theorem 2.2 and its one-sided form). Once
the bounds of all rivals lie within the tolerance, more examples are not worth their price.

The theorem does not cover one aspect: the plans are refitted at every look, each on the four fifths
of the queries on which it is not judged. That the rate of wrong stops still stays below `alpha` is
measured: `python -m tests.benchmarks --only stopping`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.arrays import Floats, LogArrays, to_arrays
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.decision.score_prior import SHIPPED, ScorePrior
from langchain_automix.policy.fitting.candidates import CandidateFitter
from langchain_automix.policy.fitting.fit import fit_policy, indifferent_weight
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.fitting.selection import FittedCandidate, select_candidate

TOLERANCE = 0.01
ALPHA = 0.05
FEWEST = 50

MIXTURE = 9 / 500
"""Variance of the mixture; the confidence sequence is tightest at about 500 queries."""

_GROWTH = 1.25
"""Each look comes after this many times the queries of the previous one."""

_UNSEEN = 1.0
"""Difference in utility assumed for one unseen query: as large as qualities allow."""


@dataclass(frozen=True)
class StoppingResult:
    """Whether enough examples have been gathered, and why.

    Attributes:
        stop: Whether more examples would not change the policy by more than the tolerance.
        queries: Number of complete queries that the test could use.
        chosen: The candidate that a fit chooses now; None if none was fitted.
        rival: The candidate that might still gain the most; None if none was fitted.
        bound: Largest mean utility that the rival could still gain over the chosen candidate, in
            quality; None if it was not computed.
        text: The result in one sentence.
    """

    stop: bool
    queries: int
    chosen: str | None
    rival: str | None
    bound: float | None
    text: str


def next_look(queries: int, fewest: int = FEWEST) -> int:
    """Return the number of queries at which to look next: the first of 50, 63, 79, 99, ...

    A look costs a fit, so looks come at geometric intervals. The test is valid for any looks.

    Args:
        queries: Number of queries gathered so far.
        fewest: Number of queries at the first look, at least 1.
    """
    look = fewest
    while look <= queries:
        look = math.ceil(look * _GROWTH)
    return look


def check_stopping(
    log: RoutingLog | LogArrays,
    goal: Goal | None = None,
    *,
    tolerance: float = TOLERANCE,
    alpha: float = ALPHA,
    fewest: int = FEWEST,
    seed: int = 0,
    prior: ScorePrior | None = SHIPPED,
) -> StoppingResult:
    """Test whether a log contains enough examples to fit a policy for a goal.

    The examples must be in random order, so that the first ones represent those that would follow.
    The test can be called at any number of looks and keeps no state between them. For `max_cost`,
    `min_quality` and `max_loss`, policies are compared at the cost weight that the fitted policy
    implies.

    Args:
        log: The queries so far; those that not all models answered are left out.
        goal: The goal of the fit, as for `fit_policy`.
        tolerance: Mean utility, in units of quality, that may be lost by stopping; above 0.
        alpha: Probability, in (0, 1), of ever stopping with a policy that is worse than a rival by
            more than the tolerance.
        fewest: Number of complete queries below which it never stops; at least 2.
        seed: Seed for the folds.
        prior: Assumptions about a score before any label; None for no assumptions.

    Raises:
        AutoMixError: A number is out of range, the log has fewer than two models, or the goal is
            out of reach.
    """
    goal = goal or Goal()
    _refuse(tolerance, alpha, fewest)
    if goal.max_risk is not None:
        return _not_yet(
            len(log),
            "For max_risk every example counts: the more there are, the more answers can be "
            "certified. It does not stop early.",
        )
    columns = log if isinstance(log, LogArrays) else to_arrays(log)
    has_enough = columns.complete.sum() >= fewest
    learner = CandidateFitter(columns, seed=seed, prior=prior) if has_enough else None
    number = len(learner.columns) if learner else int(columns.complete.sum())
    if learner is None or number < fewest:
        return _not_yet(
            number, f"{number} complete queries; the test begins with {fewest} of them."
        )
    weight = _weight(learner, goal, seed)
    candidates = learner.candidates(weight, goal.abstain_value)
    best, _ = select_candidate(candidates)
    bounds = rival_bounds(best, candidates, alpha)
    rival = max(bounds, key=lambda name: bounds[name])
    return _judged(number, best.name, rival, bounds[rival], tolerance)


def rival_bounds(
    best: FittedCandidate, candidates: list[FittedCandidate], alpha: float
) -> dict[str, float]:
    """Return, by name, the most utility that each rival may gain over the chosen candidate.

    The probability that any of the bounds is ever wrong is shared evenly among all candidates but
    one. This is enough even though the chosen candidate may change between looks: a wrong stop
    requires the bound of the truly best candidate over the chosen one to fail, so only pairs with
    the truly best candidate count.

    A rival that currently does the same as the chosen candidate is still a rival, since its family
    may do better with more queries. Without such rivals, in simulated worlds where the check pays a
    little, a third of the stops or more lost over 0.01 against a fit on 1,000 queries.
    """
    share = alpha / max(len(candidates) - 1, 1)
    return {
        rival.name: upper_bound(rival.held_out - best.held_out, share)
        for rival in candidates
        if rival is not best
    }


def upper_bound(differences: Floats, alpha: float) -> float:
    """Return an upper bound on a mean that holds at all sample sizes with probability 1 - alpha.

    It is the mean plus `margin` standard deviations. One unseen difference of size 1 is added to
    the variance, since equal outcomes so far do not prove equal policies.

    Args:
        differences: (t,) differences of independent queries, t at least 1.
        alpha: In (0, 1).
    """
    number = len(differences)
    spread = math.sqrt(float(differences.var()) + _UNSEEN**2 / number)
    return float(differences.mean()) + spread * margin(number, alpha)


def margin(number: int, alpha: float) -> float:
    """Return a limit that the mean of any number of standard normals never exceeds.

    "Never" has probability 1 - alpha, over all numbers t = 1, 2, ... of normals. The limit is
    sqrt(2 (t r + 1) / (t^2 r) log(1 + sqrt(t r + 1) / (2 alpha))). It follows from Ville's
    inequality for the likelihood ratio, mixed over a half-normal drift of variance r; the
    inequality Phi(x) >= 1 - exp(-x^2/2) / 2 gives it a closed form. The variance r is `MIXTURE`. By
    the paper's rule r = (-2 log a + log(1 - 2 log a)) / t, it is the best for t = 500 and a = 0.03,
    and hardly worse for any other a that is used here.
    """
    grown = number * MIXTURE
    log = math.log1p(math.sqrt(grown + 1) / (2 * alpha))
    return math.sqrt(2 * (grown + 1) / (number * grown) * log)


def _refuse(tolerance: float, alpha: float, fewest: int) -> None:
    if not (tolerance > 0 and math.isfinite(tolerance)):
        raise AutoMixError(f"The tolerance must be a utility above 0; given: {tolerance!r}.")
    if not 0 < alpha < 1:
        raise AutoMixError(f"alpha must be a chance between 0 and 1; given: {alpha!r}.")
    if fewest < 2:  # noqa: PLR2004
        raise AutoMixError(f"fewest must be at least 2 queries; given: {fewest!r}.")


def _weight(learner: CandidateFitter, goal: Goal, seed: int) -> float:
    """Return the cost weight at which the policies are compared."""
    if goal.cost_weight is not None:
        return goal.cost_weight
    if not goal.target:
        return indifferent_weight(learner.columns, learner.level)
    return fit_policy(learner.columns, goal, seed=seed, foretell=False).cost_weight


def _not_yet(queries: int, text: str) -> StoppingResult:
    return StoppingResult(False, queries, None, None, None, text)


def _judged(
    queries: int, chosen: str, rival: str, bound: float, tolerance: float
) -> StoppingResult:
    stop = bound <= tolerance
    text = (
        f"After {queries} queries {chosen} is chosen; {rival} could be better by at most "
        f"{bound:.4f} of utility, {'within' if stop else 'more than'} the tolerance of "
        f"{tolerance:g}: {'enough' if stop else 'more examples may change the policy'}."
    )
    return StoppingResult(stop, queries, chosen, rival, bound, text)
