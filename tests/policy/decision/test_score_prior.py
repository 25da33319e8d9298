"""What a score says before any label."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.decision import score_prior
from langchain_automix.policy.decision.score_prior import (
    SHIPPED,
    ScoreKind,
    ScorePrior,
    agreement_belief,
    expected_qualities,
    log_odds,
    score_distribution,
    score_given,
    unchecked_qualities,
)
from tests.benchmarks import prior, quality

KINDS: tuple[ScoreKind, ...] = ("token_probability", "yes_probability", "agreement")


coefficients = st.tuples(st.floats(-2, 2), st.floats(0, 4), st.floats(-2, 4), st.floats(0, 4))


@example(0.0, 0.5, (-1.0, 0.0, 3.0, 0.0), 1.0)  # a lead that would lift the large model above 1
@given(st.floats(0, 1), st.floats(0, 1), coefficients, st.floats(0.1, 2))
def test_a_lower_score_never_speaks_for_keeping_an_answer(
    one: float, other: float, mean: tuple[float, float, float, float], spread: float
) -> None:
    lower, higher = sorted((one, other))
    scaled = [[spread * each for each in row] for row in SHIPPED.covariance]
    for each in (SHIPPED, ScorePrior(mean=mean, covariance=scaled)):  # type: ignore[arg-type]
        leads = [large - small for small, large in map(each.expected_qualities, (lower, higher))]
        assert leads[0] >= leads[1] - 1e-9


@given(st.integers(1, 16), st.data())
def test_fewer_samples_that_agree_never_speak_for_keeping_an_answer(
    samples: int, data: st.DataObject
) -> None:
    fewer = data.draw(st.integers(0, samples - 1))
    found = (agreement_belief(accepts, samples - accepts) for accepts in (fewer, fewer + 1))
    leads = [belief.large - belief.small for belief in found]
    assert leads[0] >= leads[1] - 1e-9


@pytest.mark.parametrize("score", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_qualities_are_the_means_of_the_curves_over_the_gaussian(score: float) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.multivariate_normal(SHIPPED.mean, np.array(SHIPPED.covariance), size=200_000)
    x = log_odds(score)
    curves = 1 / (1 + np.exp(-(drawn[:, [0, 2]] + x * drawn[:, [1, 3]])))
    small, large = curves.mean(axis=0)
    found = expected_qualities(score)
    assert found[0] == pytest.approx(small, abs=4e-3)
    # Below some 0.4 the lead of the large model is held where it is largest.
    assert found[1] == pytest.approx(large if score > 0.4 else small + 0.3768, abs=4e-3)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_greater_score_speaks_for_both_models_and_the_large_one_is_the_better(
    one: float, other: float
) -> None:
    (small, large), (more_small, more_large) = map(expected_qualities, sorted((one, other)))
    assert 0 < small <= more_small < 1
    assert 0 < large <= more_large < 1
    assert small < large


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan])
def test_what_is_no_score_is_refused(score: float) -> None:
    with pytest.raises(AutoMixError, match="a number in"):
        expected_qualities(score)


def test_the_covariance_is_one() -> None:
    covariance = np.array(SHIPPED.covariance)
    assert (covariance == covariance.T).all()
    assert (np.linalg.eigvalsh(covariance) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_right_and_wrong_answers_make_up_all_scores(kind: ScoreKind) -> None:
    chances = [p for _, p in score_distribution(kind)]
    right, wrong = ([p for _, p in score_given(kind, right=is_right)] for is_right in (True, False))
    for each in (chances, right, wrong):
        assert math.fsum(each) == pytest.approx(1)
    share = unchecked_qualities(kind)[0]
    mixed = [share * r + (1 - share) * w for r, w in zip(right, wrong, strict=True)]
    assert mixed == pytest.approx(chances)


@given(st.integers(0, 15), st.integers(0, 15))
def test_a_belief_is_the_mean_of_the_beliefs_after_one_more_sample(a: int, r: int) -> None:
    if a + r >= score_prior.LOGGED_SAMPLES:
        return
    now, accepted, rejected = (agreement_belief(*c) for c in ((a, r), (a + 1, r), (a, r + 1)))
    assert accepted.chance + rejected.chance == pytest.approx(now.chance)
    for name in ("small", "large"):
        mean = sum(b.chance * getattr(b, name) for b in (accepted, rejected)) / now.chance
        assert mean == pytest.approx(getattr(now, name))


def test_the_belief_before_any_sample_is_the_mean_over_shares() -> None:
    found = agreement_belief(0, 0)
    assert found.chance == pytest.approx(1)
    assert (found.small, found.large) == pytest.approx(unchecked_qualities("agreement"))


@pytest.mark.parametrize("counts", [(17, 0), (9, 8), (-1, 3)])
def test_more_samples_than_are_known_of_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(AutoMixError, match="0 to 16 samples"):
        agreement_belief(*counts)


def test_what_is_shipped_is_what_the_command_prints() -> None:
    splits = list(quality.splits())
    if not splits:
        pytest.skip("the public logs are not at hand (DATA)")
    found = prior.score_prior(splits)
    assert np.allclose(found.mean, SHIPPED.mean, atol=2e-4)
    assert np.allclose(found.covariance, SHIPPED.covariance, atol=2e-4)
    for kind, values in prior.score_quantiles(splits).items():
        shipped = [score for score, _ in score_distribution(kind)]
        assert np.allclose(values, shipped, atol=2e-5)
    assert prior.agreement_rate(splits) == pytest.approx(score_prior._AGREEMENT, abs=2e-4)
