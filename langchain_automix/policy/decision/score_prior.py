"""The meaning of a score before any label: a prior estimated from public logs, in plain Python.

For a check with a score in [0, 1] (the probability of the answer's tokens, P(yes), the share of
agreeing samples), the probabilities that the small and the large model are right are two logistic
curves of x = logit(score) / 3. Their four coefficients are uncertain: they have a joint Gaussian
distribution, as they vary over pairs of models and benchmarks whose prices differ by a factor of 3
or more. The lead of the large model, the difference of the two curves, is assumed to fall with the
score or to stay the same. So before any label, a lower score never favours keeping an answer.

The prior is estimated from 22 pairs on four benchmarks (multiple choice, and short questions with
P(yes), with Llama 1B to 405B; dates, with 16 samples of gpt-3.5-turbo, and gpt-4). It was tested on
a different kind of log, with answers of a few words by models of 0.5B and 1.5B. There it predicts
better than the log's own mean qualities from agreement and from the probability of the least
probable or the first token. The share of accepting verdicts is treated like a share of agreeing
samples, for lack of better data, and there it predicts worse than the means: such small models
accept wrong answers nearly as often as right ones, and the prior trusts them too much. Verdicts of
larger models, other languages and long answers have not been tested.

`make benchmark DATA=FOLDER ARGS="--only prior"` prints every number in this file.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from langchain_automix.errors import AutoMixError

ScoreKind = Literal["token_probability", "yes_probability", "agreement"]
"""The kind of check that gave a score."""

SCALE = 3.0
"""Divisor of a score's logit, so that intercept and slope have similar magnitudes."""

CLIP = 0.01
"""Scores are clipped to [CLIP, 1 - CLIP], since more extreme logits would dominate everything."""

_FURTHEST = math.log((1 - CLIP) / CLIP) / SCALE
"""The scaled log-odds of the highest score."""

_LEADS = 300
"""Number of steps at which the large model's lead is computed; it is linear in between."""

LOGGED_SAMPLES = 16
"""Number of samples behind each share of agreement from which the prior was estimated."""

_AGREEMENT = (0.5816, 0.2095)
"""Parameters of the Beta distribution of the rate at which samples agree with an answer."""

_QUANTILES: dict[ScoreKind, tuple[float, ...]] = {
    "token_probability": (
        *(0.34016, 0.39884, 0.45551, 0.51736, 0.57145, 0.60136, 0.63342, 0.66802, 0.70358),
        *(0.74673, 0.79917, 0.85378, 0.90274, 0.94073, 0.9676, 0.98534, 0.99522, 0.99818),
        *(0.99925, 0.99981),
    ),
    "yes_probability": (
        *(0.0064, 0.04736, 0.06809, 0.08661, 0.10272, 0.12762, 0.17142, 0.4385, 0.71213),
        *(0.92144, 0.97652, 0.99279, 0.99732, 0.99903, 0.99963, 0.99984, 0.99992, 0.99996),
        *(0.99998, 1.0),
    ),
}
"""Equally likely scores of a model that costs at most a third of another one."""

_NODES = tuple(i / 2 for i in range(-10, 11))
_WEIGHTS = tuple(math.exp(-node * node / 2) for node in _NODES)


@dataclass(frozen=True)
class ScorePrior:
    """A Gaussian over the coefficients of two logistic curves of a score.

    Attributes:
        mean: Intercept and slope of the small model's probability of being right, then of the large
            model's, as functions of `log_odds` of the score of the small model's answer.
        covariance: (4, 4): how the coefficients vary across pairs of models and tasks.
    """

    mean: tuple[float, float, float, float]
    covariance: tuple[tuple[float, float, float, float], ...]

    def expected_qualities(self, score: float) -> tuple[float, float]:
        """Return the probability that the small and that the large model are right, given a score.

        Each is the mean of a logistic curve over its Gaussian coefficients, by the trapezoidal
        rule. The large model's lead never increases with the score. At low scores, the curves may
        suggest that a question is too hard for both models; the lead is then taken from the score
        at which it is largest. The logs contain few such scores, and without a label nothing
        distinguishes a hard question from a bad answer, so a worse score must not be a reason to
        keep an answer.

        Args:
            score: The score of the small model's answer, in [0, 1]. For a share of agreeing
                samples, use `agreement_belief`, or (accepts + 0.5) / (samples + 1).

        Raises:
            AutoMixError: The score is not a number in [0, 1].
        """
        x = log_odds(score)
        lead = self._lead(x)
        small = min(self._curve(0, x), 1.0 - lead)  # preserve the lead, which decides
        return small, small + lead

    def _lead(self, x: float) -> float:
        """Return how much likelier the large model is to be right; it never increases with `x`."""
        leads = self._leads
        place = min(max((x / _FURTHEST + 1) / 2, 0.0), 1.0) * (len(leads) - 1)
        below = min(int(place), len(leads) - 2)
        return leads[below] + (place - below) * (leads[below + 1] - leads[below])

    @functools.cached_property
    def _leads(self) -> tuple[float, ...]:
        """At evenly spaced log-odds, the largest lead of the curves there or at a higher score."""
        places = (_FURTHEST * (2 * i / _LEADS - 1) for i in reversed(range(_LEADS + 1)))
        own = (self._curve(2, x) - self._curve(0, x) for x in places)
        return tuple(itertools.accumulate(own, max))[::-1]

    def _curve(self, first: int, x: float) -> float:
        """Return the expected value of the curve whose intercept has this index."""
        second = first + 1
        middle = self.mean[first] + self.mean[second] * x
        own = self.covariance
        variance = own[first][first] + 2 * own[first][second] * x + own[second][second] * x * x
        spread = math.sqrt(max(variance, 0.0))
        values = (
            w / (1 + math.exp(-middle - spread * z)) for z, w in zip(_NODES, _WEIGHTS, strict=True)
        )
        return math.fsum(values) / math.fsum(_WEIGHTS)


SHIPPED = ScorePrior(
    mean=(-0.6322, 2.4046, 1.5854, 2.0172),
    covariance=(
        (1.2502, -1.1705, 0.496, -1.2004),
        (-1.1705, 5.1349, -2.6473, 2.9774),
        (0.496, -2.6473, 2.6892, -1.592),
        (-1.2004, 2.9774, -1.592, 2.7929),
    ),
)
"""The prior that fits and mixes use."""


def log_odds(score: float) -> float:
    """Return the argument of the curves: the logit of a clipped score, divided by 3.

    Raises:
        AutoMixError: The score is not a number in [0, 1].
    """
    if not 0 <= score <= 1:
        raise AutoMixError(f"A score is a number in [0, 1]; given: {score!r}.")
    clipped = min(max(score, CLIP), 1 - CLIP)
    return math.log(clipped / (1 - clipped)) / SCALE


@functools.lru_cache(maxsize=4096)
def expected_qualities(score: float) -> tuple[float, float]:
    """Return the probability that the small and that the large model are right, given a score.

    It uses the shipped prior; see `ScorePrior.expected_qualities`.
    """
    return SHIPPED.expected_qualities(score)


def score_distribution(kind: ScoreKind) -> tuple[tuple[float, float], ...]:
    """Return the distribution of a score before the check is made, as (score, probability) pairs.

    Together with `expected_qualities`, it defines the whole joint distribution: if the answer is
    right, a score is likelier by the factor P(right | score) / P(right); see `score_given`.

    Args:
        kind: `token_probability` was measured only on multiple choice (answers of one token),
            `yes_probability` on one benchmark of short questions, and `agreement` with 16 samples
            on one benchmark. How the least probable token of a longer answer is distributed is
            unknown.
    """
    if kind == "agreement":
        return tuple((_smoothed(s, LOGGED_SAMPLES), p) for s, p in enumerate(_agreements()))
    values = _QUANTILES[kind]
    return tuple((value, 1 / len(values)) for value in values)


def score_given(kind: ScoreKind, *, right: bool) -> tuple[tuple[float, float], ...]:
    """Return the distribution of a score, given that the small model's answer is right or wrong.

    It follows from `score_distribution` and `expected_qualities` by Bayes' rule.
    """
    chances = []
    for score, chance in score_distribution(kind):
        quality = expected_qualities(score)[0]
        chances.append((score, chance * (quality if right else 1 - quality)))
    total = math.fsum(chance for _, chance in chances)
    return tuple((score, chance / total) for score, chance in chances)


def unchecked_qualities(kind: ScoreKind) -> tuple[float, float]:
    """Return the probability that the small and that the large model are right before a check."""
    found = [(chance, expected_qualities(score)) for score, chance in score_distribution(kind)]
    small, large = (math.fsum(chance * own[j] for chance, own in found) for j in range(2))
    return small, large


@dataclass(frozen=True)
class AgreementBelief:
    """The belief after some samples, or verdicts, on the small model's answer.

    Attributes:
        chance: Probability of exactly these findings in one particular order; multiply by
            `math.comb(accepts + rejects, accepts)` for any order.
        small: Probability that the small model's answer is right.
        large: Probability that the large model's answer would be right.
    """

    chance: float
    small: float
    large: float


@functools.lru_cache(maxsize=1024)
def agreement_belief(accepts: int, rejects: int) -> AgreementBelief:
    """Return the belief given how many samples agree with an answer and how many do not.

    Each answer is imagined to have 16 samples, some of which agree; those drawn are a random
    subset. So beliefs after few samples are the means of beliefs after more, for any number, as
    backward induction over samples requires.

    Args:
        accepts: Samples that agree with the answer, or verdicts that accept it.
        rejects: Samples or verdicts that do not; at most 16 together with `accepts`.

    Raises:
        AutoMixError: There are more than 16 samples, or a count is negative.
    """
    drawn = accepts + rejects
    if min(accepts, rejects) < 0 or drawn > LOGGED_SAMPLES:
        raise AutoMixError(
            f"The prior knows of 0 to {LOGGED_SAMPLES} samples; given: {accepts} that agree and "
            f"{rejects} that do not."
        )
    left = LOGGED_SAMPLES - drawn
    chances = [
        chance * math.comb(left, all_accepts - accepts) / math.comb(LOGGED_SAMPLES, all_accepts)
        if accepts <= all_accepts <= LOGGED_SAMPLES - rejects
        else 0.0
        for all_accepts, chance in enumerate(_agreements())
    ]
    total = math.fsum(chances)
    qualities = [
        expected_qualities(_smoothed(s, LOGGED_SAMPLES)) for s in range(LOGGED_SAMPLES + 1)
    ]
    small, large = (_mean([own[j] for own in qualities], chances) for j in range(2))
    return AgreementBelief(total, small, large)


def _smoothed(accepts: int, samples: int) -> float:
    return (accepts + 0.5) / (samples + 1)


@functools.cache
def _agreements() -> tuple[float, ...]:
    """Return the probability that 0, 1, ... 16 of 16 samples agree (Beta-binomial)."""
    a, b = _AGREEMENT
    n = LOGGED_SAMPLES
    return tuple(
        math.comb(n, s) * math.exp(_log_beta(a + s, b + n - s) - _log_beta(a, b))
        for s in range(n + 1)
    )


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / math.fsum(weights)
