"""What a check of an answer is worth before any fit, in plain Python.

Two models: the one that answered, and a larger one. The belief is the chance that each is right;
what a check may find moves it, and a check is worth the mean by which the best choice after it
beats the best choice now. All is counted in quality. The larger model's answer is priced at the
mean benefit before any check (the cost weight at which nobody who knows nothing would care which of
the two answers), and whatever else may be bought in proportion to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from langchain_automix.policy.decision.score_prior import (
    AgreementBelief,
    agreement_belief,
    expected_qualities,
    score_distribution,
    unchecked_qualities,
)

_BOTH, _ONLY_LARGE, _ONLY_SMALL, _NEITHER = 0.52, 0.28, 0.08, 0.12
"""Chances before any check, as in `prior_policy`: who is right."""

_ODDS_RATIO = _BOTH * _NEITHER / (_ONLY_LARGE * _ONLY_SMALL)
"""By how much the odds that one model is right rise if the other is."""

_CONCENTRATION = 1.0
"""Sum of the parameters of the Beta distribution of one answer's accept rate. Verdicts on the same
answer agree with each other, right or wrong (here with a correlation of a half): eight of them tell
hardly more than two. On the answers of `cookbook/recordings/xquad_checks.jsonl.gz` the AUROC of one
few-shot verdict is 0.54, that of four 0.54."""

_TIE = 1e-9
"""Quality below which a difference is rounding."""


class Rates(NamedTuple):
    """How often a single verdict accepts an answer."""

    right: float
    """Where the answer is right."""

    wrong: float


@dataclass(frozen=True)
class Belief:
    """What is believed of an answer and of what a larger model would answer."""

    small: float
    """Chance that the answer is right."""

    large: float
    """Chance that the larger model's would be."""

    price: float
    """Of the larger model's answer, in quality."""

    @property
    def benefit(self) -> float:
        """Quality that the larger model is expected to gain, at most 1."""
        return self.large - self.small

    @property
    def escalates(self) -> bool:
        """Whether the larger model is worth its price; where it makes no difference, it is not."""
        return self.benefit > self.price + _TIE

    @property
    def favours_small(self) -> bool:
        """Whether the larger model is worth less than its price."""
        return self.benefit < self.price - _TIE

    @property
    def value(self) -> float:
        """Utility of the better choice."""
        return self.large - self.price if self.escalates else self.small

    def repriced(self, factor: float) -> Belief:
        """Return the same belief at another cost weight, as a multiple of the usual one."""
        return Belief(self.small, self.large, self.price * factor)


class Prospect(NamedTuple):
    """What may come of a check that is not made yet."""

    gain: float
    """Utility that it adds in the mean, its own price not counted; at least 0."""

    kept: float
    """Chance that the answer is kept after it."""


def unchecked_belief() -> Belief:
    """Return the belief where nothing is known of an answer."""
    small, large = _BOTH + _ONLY_SMALL, _BOTH + _ONLY_LARGE
    return Belief(small, large, large - small)


def belief_after_tokens(score: float) -> Belief:
    """Return the belief after the probability of an answer's tokens was read.

    Args:
        score: In [0, 1], as `LogProbabilityVerifier` gives it.
    """
    before_small, before_large = unchecked_qualities("token_probability")
    small, large = expected_qualities(score)
    return Belief(small, large, before_large - before_small)


def belief_after_agreement(agreeing: int, others: int) -> Belief:
    """Return the belief after new answers that agree with an answer, and some that do not."""
    return _of_agreement(agreement_belief(agreeing, others))


def belief_after_verdicts(before: Belief, accepts: int, rejects: int, rates: Rates) -> Belief:
    """Return a belief after verdicts on the answer, which tell of the answering model only."""
    small = _right_after(before.small, accepts, rejects, rates)
    if_right, if_wrong = _large_given_small(before.small, before.large)
    return Belief(small, small * if_right + (1 - small) * if_wrong, before.price)


def prospect_of_tokens(factor: float = 1.0) -> Prospect:
    """Return what may come of reading the probability of an answer's tokens, before there is one.

    Args:
        factor: The cost weight, as a multiple of the usual one.
    """
    found = score_distribution("token_probability")
    return _prospect([(p, belief_after_tokens(score).repriced(factor)) for score, p in found])


def prospect_of_agreement(samples: int, factor: float = 1.0) -> Prospect:
    """Return what may come of asking the same model again some times."""
    outcomes = []
    for agreeing in range(samples + 1):
        found = agreement_belief(agreeing, samples - agreeing)
        chance = found.chance * math.comb(samples, agreeing)
        outcomes.append((chance, _of_agreement(found).repriced(factor)))
    return _prospect(outcomes)


def prospect_of_verdicts(
    before: Belief, accepts: int, rejects: int, samples: int, rates: Rates
) -> Prospect:
    """Return what may come of more verdicts on an answer.

    Args:
        before: The belief without any verdict.
        accepts: Verdicts so far that accept it.
        rejects: Those that reject it.
        samples: Number of further verdicts.
        rates: How often one accepts a right answer, and a wrong one.
    """
    right_now = _right_after(before.small, accepts, rejects, rates)
    outcomes = []
    for accepting in range(samples + 1):
        rejecting = samples - accepting
        chances = (
            math.comb(samples, accepting)
            * _chance(accepts + accepting, rejects + rejecting, rate)
            / _chance(accepts, rejects, rate)
            for rate in rates
        )
        if_right, if_wrong = chances
        chance = right_now * if_right + (1 - right_now) * if_wrong
        belief = belief_after_verdicts(before, accepts + accepting, rejects + rejecting, rates)
        outcomes.append((chance, belief))
    return _prospect(outcomes)


def _of_agreement(found: AgreementBelief) -> Belief:
    before = agreement_belief(0, 0)
    return Belief(found.small, found.large, before.large - before.small)


def _prospect(outcomes: list[tuple[float, Belief]]) -> Prospect:
    """Return what may come of a check with these outcomes: the chance and the belief of each."""
    total = math.fsum(chance for chance, _ in outcomes)
    price = outcomes[0][1].price
    small, large, after, kept = (
        math.fsum(chance * value for (chance, _), value in zip(outcomes, values, strict=True))
        / total
        for values in (
            [belief.small for _, belief in outcomes],
            [belief.large for _, belief in outcomes],
            [belief.value for _, belief in outcomes],
            [not belief.escalates for _, belief in outcomes],
        )
    )
    return Prospect(max(0.0, after - Belief(small, large, price).value), kept)


def _right_after(small: float, accepts: int, rejects: int, rates: Rates) -> float:
    right, wrong = (_chance(accepts, rejects, rate) for rate in rates)
    return small * right / (small * right + (1 - small) * wrong)


def _chance(accepts: int, rejects: int, rate: float) -> float:
    """Return the chance of these verdicts in one order: Beta-binomial."""
    a, b = rate * _CONCENTRATION, (1 - rate) * _CONCENTRATION
    return math.exp(_log_beta(a + accepts, b + rejects) - _log_beta(a, b))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _large_given_small(small: float, large: float) -> tuple[float, float]:
    """Return the chance that the larger model is right where the answer is, and where it is not.

    From both chances and the odds ratio (Plackett 1965): the chance that both are right is the root
    of a quadratic equation.
    """
    excess = _ODDS_RATIO - 1
    b = 1 + (small + large) * excess
    root = math.sqrt(b * b - 4 * _ODDS_RATIO * excess * small * large)
    both = (b - root) / (2 * excess)
    if_right = both / small if small > 0 else large
    if_wrong = (large - both) / (1 - small) if small < 1 else large
    return min(max(if_right, 0.0), 1.0), min(max(if_wrong, 0.0), 1.0)
