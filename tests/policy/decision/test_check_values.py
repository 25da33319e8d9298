"""What a check is worth before any fit."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_automix.policy.decision.check_values import (
    Belief,
    Rates,
    belief_after_agreement,
    belief_after_tokens,
    belief_after_verdicts,
    prospect_of_agreement,
    prospect_of_tokens,
    prospect_of_verdicts,
    unchecked_belief,
)
from langchain_automix.policy.decision.prior import prior_policy

chances = st.floats(0.02, 0.98)
beliefs = st.builds(Belief, chances, chances, st.floats(0.0, 0.5))
rates = st.builds(Rates, chances, chances)


def beta_binomial(accepts: int, rejects: int, rate: float) -> float:
    """Chance of verdicts in one order, by Polya's urn: an oracle of its own."""
    chance = 1.0
    for i in range(accepts + rejects):
        seen = i if i < accepts else i - accepts
        own = rate if i < accepts else 1 - rate
        chance *= (own + seen) / (1 + i)
    return chance


@given(beliefs, rates, st.integers(0, 4), st.integers(0, 4))
def test_verdicts_move_the_belief_by_bayes_rule(
    before: Belief, rate: Rates, accepts: int, rejects: int
) -> None:
    right = before.small * beta_binomial(accepts, rejects, rate.right)
    wrong = (1 - before.small) * beta_binomial(accepts, rejects, rate.wrong)
    after = belief_after_verdicts(before, accepts, rejects, rate)
    assert after.small == pytest.approx(right / (right + wrong), rel=1e-6)
    assert 0 <= after.large <= 1 + 1e-9


@given(beliefs, rates, st.integers(1, 5))
def test_a_prospect_is_the_mean_over_every_sequence_of_verdicts(
    before: Belief, rate: Rates, samples: int
) -> None:
    after, small, kept = 0.0, 0.0, 0.0
    for verdicts in itertools.product((True, False), repeat=samples):
        accepts = sum(verdicts)
        rejects = samples - accepts
        chance = before.small * beta_binomial(accepts, rejects, rate.right)
        chance += (1 - before.small) * beta_binomial(accepts, rejects, rate.wrong)
        belief = belief_after_verdicts(before, accepts, rejects, rate)
        after += chance * belief.value
        small += chance * belief.small
        kept += chance * (not belief.escalates)
    found = prospect_of_verdicts(before, 0, 0, samples, rate)
    assert small == pytest.approx(before.small), "what is expected to be believed is believed now"
    assert found.gain == pytest.approx(max(0.0, after - before.value), abs=1e-6)
    assert found.kept == pytest.approx(kept)


@given(beliefs, rates)
def test_nothing_is_gained_by_a_check_that_tells_nothing(before: Belief, rate: Rates) -> None:
    blind = Rates(rate.right, rate.right)
    assert prospect_of_verdicts(before, 0, 0, 8, blind).gain == pytest.approx(0, abs=1e-9)


@given(beliefs, rates)
def test_more_verdicts_are_never_worth_less(before: Belief, rate: Rates) -> None:
    gains = [prospect_of_verdicts(before, 0, 0, number, rate).gain for number in (1, 2, 4, 8)]
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(gains))


def test_eight_verdicts_on_one_answer_are_not_eight_witnesses() -> None:
    rate = Rates(0.65, 0.55)
    one = belief_after_verdicts(unchecked_belief(), 0, 1, rate).small
    eight = belief_after_verdicts(unchecked_belief(), 0, 8, rate).small
    odds = eight / (1 - eight) / (one / (1 - one))
    independent = (0.35 / 0.45) ** 7
    assert independent < odds < 1
    assert math.log(odds) > math.log(independent) / 3
    gains = [prospect_of_verdicts(unchecked_belief(), 0, 0, n, rate).gain for n in (1, 8)]
    assert gains[1] < 1.5 * gains[0]


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_agreement_is_expected_to_leave_the_belief_where_it_is(samples: int) -> None:
    found = prospect_of_agreement(samples)
    before = belief_after_agreement(0, 0)
    assert before.benefit == pytest.approx(before.price), "before it, neither is better"
    assert 0 < found.gain < 0.05
    assert 0.4 < found.kept < 1
    assert belief_after_agreement(samples, 0).small > before.small


def test_tokens_that_were_sure_keep_and_tokens_that_were_not_escalate() -> None:
    assert not belief_after_tokens(0.97).escalates
    assert belief_after_tokens(0.5).escalates
    assert prospect_of_tokens().gain > prospect_of_agreement(4).gain
    dear = prospect_of_tokens(factor=2.0)
    assert dear.kept > prospect_of_tokens().kept, "where money is short, more is kept"


def test_where_nothing_is_known_neither_choice_is_better() -> None:
    before = unchecked_belief()
    assert (before.small, before.large) == pytest.approx(prior_policy().fit.quality)
    assert before.benefit == pytest.approx(before.price)
    assert not before.escalates, "and then nothing is paid"
