"""Targets with confidence: the bound, the order of tests, the promise, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_automix import POMDPRouter
from langchain_automix.errors import AutoMixError, OutOfReachError, TooFewExamplesError
from langchain_automix.policy.data.arrays import Floats, LogArrays
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.confidence import (
    Margin,
    examples_needed,
    lower_bound,
)
from langchain_automix.policy.fitting.expectation import chance_of_meeting
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.fitting.risk_control import _binomial_below
from langchain_automix.policy.replay import replay_plan
from langchain_automix.policy.statistics import wilson_interval
from tests.support.builders.synthetic_logs import scored, unchecked, world


def lower(values: Any, confidence: float, worst: float, seed: int = 0) -> float:
    margin = Margin(np.asarray(values, dtype=float), worst)
    return lower_bound([margin], np.ones(len(margin.values)), confidence, seed)


def clopper_pearson(right: int, n: int, confidence: float) -> float:
    """The exact lower bound of a rate: the least one at which so many right are not too many."""
    low, high = 0.0, right / n
    for _ in range(60):
        middle = (low + high) / 2
        chance = 1 - _binomial_below(right - 1, n, middle) if right and middle > 0 else 0.0
        low, high = (middle, high) if chance < 1 - confidence else (low, middle)
    return low


def judged(policy: Policy, test: LogArrays) -> tuple[float, float]:
    """True quality and cost of a policy, its plans mixed by their shares."""
    shares = (policy.first_share, 1 - policy.first_share)
    outcomes = [replay_plan(plan, test) for plan in policy.plans]
    quality = sum(s * o.quality.mean() for s, o in zip(shares, outcomes, strict=False))
    return float(quality), float(
        sum(s * o.cost.mean() for s, o in zip(shares, outcomes, strict=False))
    )


class TestBound:
    @pytest.mark.parametrize(("right", "n"), [(0, 10), (1, 10), (9, 10), (40, 50), (100, 100)])
    @pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
    def test_of_a_rate_is_the_exact_one(self, right: int, n: int, confidence: float) -> None:
        found = lower([1.0] * right + [0.0] * (n - right), confidence, worst=0.0)
        assert found == pytest.approx(clopper_pearson(right, n, confidence), abs=0.012)

    @given(
        st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=2, max_size=40), st.floats(0.5, 0.99)
    )
    @settings(max_examples=40, deadline=None)
    def test_lies_between_the_worst_and_the_mean_and_falls_with_confidence(
        self, values: list[float], confidence: float
    ) -> None:
        found = lower(values, confidence, worst=-1.0)
        # At a confidence of a half the median of a skewed distribution may lie above its mean.
        spread = 0.5 / math.sqrt(len(values))
        assert -1 - 1e-12 <= found <= np.mean(values) + spread
        assert lower(values, (1 + confidence) / 2, worst=-1.0) <= found + 1e-12

    @pytest.mark.parametrize(
        ("chances", "n"), [((0.03, 0.97, 0.0), 60), ((0.1, 0.8, 0.1), 60), ((0.02, 0.9, 0.08), 25)]
    )
    def test_holds_in_the_share_of_draws_that_it_says(
        self, chances: tuple[float, ...], n: int
    ) -> None:
        """Differences of -1, 0 and 1, as between two models that are right or wrong."""
        rng, truth = np.random.default_rng(3), chances[2] - chances[0]
        held = [
            lower(rng.choice([-1.0, 0.0, 1.0], size=n, p=chances), 0.9, -1.0, seed) <= truth
            for seed in range(120)
        ]
        assert wilson_interval(float(np.mean(held)), len(held))[1] >= 0.9

    def test_what_is_so_by_definition_needs_no_examples(self) -> None:
        margin = Margin(np.full(5, 0.01), 0.01)
        assert lower_bound([margin], np.ones(5), 0.99) == pytest.approx(0.01)
        assert examples_needed(margin, 0.99) == 0

    @pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
    def test_so_many_examples_are_needed(self, share: float) -> None:
        """With as many, and the same shares, the bound reaches 0; with 20 % fewer it does not."""

        def margin(n: int) -> Floats:
            values = np.full(n, 0.02)
            values[: round(share * n / 2)] -= 1
            values[-round(share * n / 2) or n :] += 1
            return values

        needed = examples_needed(Margin(margin(1000), -0.98), 0.9)
        assert lower(margin(round(1.15 * needed)), 0.9, -0.98) >= 0
        assert lower(margin(round(0.85 * needed)), 0.9, -0.98) < 0


def test_the_chance_of_meeting_a_target_is_that_of_a_second_draw() -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(0.02, 0.3, 200)
    draws = [
        rng.choice(margin, 200).mean() + rng.choice(margin, 200).mean() - margin.mean() >= 0
        for _ in range(4000)
    ]
    assert chance_of_meeting(margin, np.ones(200)) == pytest.approx(np.mean(draws), abs=0.03)
    assert chance_of_meeting(np.zeros(5), np.ones(5)) == 1
    assert chance_of_meeting(np.full(5, -0.1), np.ones(5)) == 0


LOSS = 0.03
WORLDS: dict[str, Callable[[int, int], LogArrays]] = {
    "a check that helps": lambda n, seed: scored("monotone", n, seed),
    "a check that is a coin": lambda n, seed: scored("chance", n, seed),
    "two models nearly as good": lambda n, seed: unchecked((0.6, 0.88, 0.9), n, seed),
    "two models as good": lambda n, seed: unchecked((0.6, 0.9, 0.9), n, seed),
}


class TestThePromise:
    @pytest.mark.parametrize("name", WORLDS)
    def test_max_loss_holds_in_the_share_of_fits_that_was_asked_for(self, name: str) -> None:
        test = WORLDS[name](20_000, 10**6)
        best, kept = test.quality.mean(axis=0).max(), []
        for seed in range(12):
            try:
                policy = fit_policy(WORLDS[name](150, seed), Goal(max_loss=LOSS, confidence=0.8))
            except TooFewExamplesError:
                continue  # nothing is promised
            kept.append(best - judged(policy, test)[0] <= LOSS + 0.002)  # of the test's own error
        assert len(kept) >= 3
        assert wilson_interval(float(np.mean(kept)), len(kept))[1] >= 0.8

    @pytest.mark.parametrize("target", [{"min_quality": 0.8}, {"max_cost": 6.0}])
    def test_other_targets_hold_too(self, target: dict[str, float]) -> None:
        test, kept = scored("monotone", 20_000, 10**6), []
        for seed in range(8):
            goal = Goal(**target, confidence=0.9)
            quality, cost = judged(fit_policy(scored("monotone", 150, seed), goal), test)
            least, most = target.get("min_quality", 0.0), target.get("max_cost", np.inf)
            kept.append(quality >= least - 0.002 and cost <= most + 0.02)
        assert wilson_interval(float(np.mean(kept)), len(kept))[1] >= 0.9

    def test_more_examples_save_more(self) -> None:
        test, goal = scored("monotone", 5_000, 10**6), Goal(max_loss=LOSS, confidence=0.9)
        policies = {
            n: [fit_policy(scored("monotone", n, seed), goal) for seed in range(2)]
            for n in (100, 600)
        }
        few, many = (np.mean([judged(p, test)[1] for p in found]) for found in policies.values())
        bold = fit_policy(scored("monotone", 600, 0), Goal(max_loss=LOSS), foretell=False)
        assert many < few - 0.5
        assert judged(bold, test)[1] < judged(policies[600][0], test)[1]

    def test_the_same_log_in_another_order_gives_the_same_policy(self) -> None:
        log, goal = scored("monotone", 150, 0), Goal(max_loss=0.05, confidence=0.9)
        other = log.rows(np.random.default_rng(1).permutation(150))
        assert fit_policy(log, goal) == fit_policy(other, goal)


class TestWhatIsSaid:
    def test_a_log_too_small_says_what_it_shows_and_how_many_more_it_would_take(self) -> None:
        log = unchecked((0.6, 0.88, 0.9), 100, 0)
        with pytest.raises(TooFewExamplesError, match="these would be needed") as caught:
            fit_policy(log, Goal(max_loss=0.01, confidence=0.9))
        assert f"to lose at most {caught.value.nearest:g}" in str(caught.value)
        fit_policy(log, Goal(max_loss=caught.value.nearest, confidence=0.9))
        assert caught.value.more > 100

    def test_a_target_that_the_log_speaks_against_is_out_of_reach(self) -> None:
        with pytest.raises(OutOfReachError, match="would not help") as caught:
            fit_policy(scored("monotone", 100, 0), Goal(min_quality=0.99, confidence=0.9))
        assert not isinstance(caught.value, TooFewExamplesError)
        fit_policy(
            scored("monotone", 100, 0), Goal(min_quality=caught.value.nearest, confidence=0.9)
        )

    def test_a_cost_that_cannot_be_shown_names_one_that_can(self) -> None:
        with pytest.raises(TooFewExamplesError, match="to cost at most") as caught:
            fit_policy(scored("monotone", 100, 0), Goal(max_cost=1.02, confidence=0.9))
        fit_policy(scored("monotone", 100, 0), Goal(max_cost=caught.value.nearest, confidence=0.9))

    def test_where_nothing_cheaper_can_be_shown_the_best_model_stays_and_the_note_says_so(
        self,
    ) -> None:
        policy = fit_policy(scored("monotone", 60, 1), Goal(max_loss=0.01, confidence=0.95))
        assert [plan.name for plan in policy.plans] == ["always:large"]
        assert policy.fit.notes[0].startswith("The policy is always large and saves nothing")
        assert "more like them would be needed to show 0.01" in policy.fit.notes[0]

    def test_a_target_in_expectation_says_how_likely_it_is_met(self) -> None:
        policy = fit_policy(scored("monotone", 300, 0), Goal(max_loss=0.02))
        assert "met in expectation only" in policy.fit.notes[0]
        assert "the chance that 300 new queries meet the goal is about" in policy.fit.notes[0]
        silent = fit_policy(scored("monotone", 300, 0), Goal(max_loss=0.02), foretell=False)
        assert silent.plans == policy.plans
        assert silent.fit.notes == policy.fit.notes[1:]

    def test_a_certain_policy_says_what_its_fits_did_on_queries_not_seen(self) -> None:
        policy = fit_policy(scored("monotone", 600, 0), Goal(max_loss=0.05, confidence=0.9))
        assert policy.goal == {"max_loss": 0.05, "confidence": 0.9}
        assert policy.fit.notes[0].startswith(
            "max_loss=0.05 holds on new queries like these 600 with confidence 0.9."
        )

    def test_a_confidence_needs_a_target(self) -> None:
        with pytest.raises(AutoMixError, match="confidence says how sure a target must be"):
            Goal(cost_weight=0.1, confidence=0.9)
        with pytest.raises(AutoMixError, match="confidence must be a chance between 0 and 1"):
            Goal(max_loss=0.1, confidence=1.0)


class TestTheEarlierName:
    def test_confidence_level_is_confidence(self) -> None:
        log = world(120, k=2)
        asked = {"max_risk": 0.6, "cost_weight": 0.05}
        old = POMDPRouter.fit(log, **asked, confidence_level=0.8).policy  # type: ignore[arg-type]
        new = POMDPRouter.fit(log, **asked, confidence=0.8).policy  # type: ignore[arg-type]
        assert old == new
        assert new.goal == {"cost_weight": 0.05, "max_risk": 0.6, "confidence": 0.8}

    def test_a_policy_file_of_an_earlier_version(self) -> None:
        goal = Goal.of_record({"max_risk": 0.3, "confidence_level": 0.8, "of_a_later_version": 1})
        assert goal == Goal(max_risk=0.3, confidence=0.8)
