"""Compute what a check of an answer is worth before any fit, in plain Python.

There are two models: the one that answered, and a larger one. The belief is the probability that
each is right, and the findings of a check update it. A check is worth the mean amount by which the
best choice after it beats the best choice now. Everything is measured in quality. The larger
model's answer is priced at its mean benefit before any check: the cost weight at which, without
evidence, both answers are worth the same. Everything else that may be bought is priced in
proportion.
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
"""Probabilities of who is right, before any check; the same as in `prior_policy`."""

_ODDS_RATIO = _BOTH * _NEITHER / (_ONLY_LARGE * _ONLY_SMALL)
"""Factor by which the odds that one model is right rise if the other is right."""

_CONCENTRATION = 1.0
"""Sum of the parameters of the Beta distribution of an answer's accept rate. Verdicts on the same
answer agree with each other, right or wrong (here with a correlation of one half), so eight of them
tell little more than two. On the answers of `cookbook/recordings/xquad_checks.jsonl.gz`, the AUROC
of one few-shot verdict is 0.54, and that of four is 0.54 as well."""

_TIE = 1e-9
"""Quality below which a difference counts as rounding."""


class Rates(NamedTuple):
    """How often a single verdict accepts an answer."""

    right: float
    """If the answer is right."""

    wrong: float


@dataclass(frozen=True)
class Belief:
    """Beliefs about the quality of an answer, and of the answer that a larger model would give."""

    small: float
    """Probability that the answer is right."""

    large: float
    """Probability that the larger model's answer would be right."""

    price: float
    """Price of the larger model's answer, in quality."""

    @property
    def benefit(self) -> float:
        """Quality that the larger model is expected to gain, at most 1."""
        return self.large - self.small

    @property
    def escalates(self) -> bool:
        """Whether the larger model is worth more than its price; a tie does not count."""
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
        """Return the same belief at another cost weight, given as a multiple of the usual one."""
        return Belief(self.small, self.large, self.price * factor)


class Prospect(NamedTuple):
    """The expected consequences of a check that has not been made."""

    gain: float
    """Mean utility that it adds, ignoring its own price; at least 0."""

    kept: float
    """Probability that the answer is kept after the check."""


def unchecked_belief() -> Belief:
    """Return the belief when nothing is known about an answer."""
    small, large = _BOTH + _ONLY_SMALL, _BOTH + _ONLY_LARGE
    return Belief(small, large, large - small)


def belief_after_tokens(score: float) -> Belief:
    """Return the belief after reading how probable an answer's tokens were.

    Args:
        score: The score from `LogProbabilityVerifier`, in [0, 1].
    """
    before_small, before_large = unchecked_qualities("token_probability")
    small, large = expected_qualities(score)
    return Belief(small, large, before_large - before_small)


def belief_after_agreement(agreeing: int, others: int) -> Belief:
    """Return the belief given how many new answers agree with an answer and how many do not."""
    return _of_agreement(agreement_belief(agreeing, others))


def belief_after_verdicts(before: Belief, accepts: int, rejects: int, rates: Rates) -> Belief:
    """Return a belief after verdicts on the answer, which concern only the answering model."""
    small = _right_after(before.small, accepts, rejects, rates)
    if_right, if_wrong = _large_given_small(before.small, before.large)
    return Belief(small, small * if_right + (1 - small) * if_wrong, before.price)


def prospect_of_tokens(factor: float = 1.0) -> Prospect:
    """Return the prospect of reading how probable an answer's tokens are, before there is one.

    Args:
        factor: The cost weight, as a multiple of the usual one.
    """
    found = score_distribution("token_probability")
    return _prospect([(p, belief_after_tokens(score).repriced(factor)) for score, p in found])


def prospect_of_agreement(samples: int, factor: float = 1.0) -> Prospect:
    """Return the prospect of asking the same model again several times."""
    outcomes = []
    for agreeing in range(samples + 1):
        found = agreement_belief(agreeing, samples - agreeing)
        chance = found.chance * math.comb(samples, agreeing)
        outcomes.append((chance, _of_agreement(found).repriced(factor)))
    return _prospect(outcomes)


def prospect_of_verdicts(
    before: Belief, accepts: int, rejects: int, samples: int, rates: Rates
) -> Prospect:
    """Return the prospect of more verdicts on an answer.

    Args:
        before: The belief without any verdict.
        accepts: Verdicts so far that accept the answer.
        rejects: Verdicts so far that reject it.
        samples: Number of further verdicts.
        rates: How often a verdict accepts a right answer, and a wrong one.
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
    """Return the prospect of a check, given the probability and the belief of each outcome."""
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
    """Return the probability of these verdicts in one particular order (Beta-binomial)."""
    a, b = rate * _CONCENTRATION, (1 - rate) * _CONCENTRATION
    return math.exp(_log_beta(a + accepts, b + rejects) - _log_beta(a, b))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _large_given_small(small: float, large: float) -> tuple[float, float]:
    """Return the probability that the larger model is right if the answer is, and if it is not.

    It follows from both marginal probabilities and the odds ratio (Plackett 1965): the probability
    that both are right is the root of a quadratic equation.
    """
    excess = _ODDS_RATIO - 1
    b = 1 + (small + large) * excess
    root = math.sqrt(b * b - 4 * _ODDS_RATIO * excess * small * large)
    both = (b - root) / (2 * excess)
    if_right = both / small if small > 0 else large
    if_wrong = (large - both) / (1 - small) if small < 1 else large
    return min(max(if_right, 0.0), 1.0), min(max(if_wrong, 0.0), 1.0)
