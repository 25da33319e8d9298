"""The estimate is unbiased whatever was seen, and its bound holds at all times at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_automix.learning.estimation import (
    doubly_robust,
    effective_size,
    log_capital,
    lower_bound,
    queries_needed,
)


def _ones(n: int) -> np.ndarray:
    return np.ones(n)


def test_where_all_is_seen_the_terms_are_the_values() -> None:
    values = np.array([-1.0, 0.5, 0.0, 1.0])
    terms = doubly_robust(values, np.ones(4, dtype=bool), _ones(4), -1.0)
    assert terms.tolist() == values.tolist()


def test_the_mean_of_the_terms_is_that_of_the_values_though_few_are_seen() -> None:
    """Over all ways in which the values may come to be seen, by brute force."""
    values, chance = np.array([-1.0, 0.5, -0.25, 1.0]), np.array([0.5, 0.1, 0.9, 0.3])
    expected = np.zeros(4)
    for code in range(16):
        seen = np.array([bool(code >> i & 1) for i in range(4)])
        weight = float(np.prod(np.where(seen, chance, 1 - chance)))
        expected += weight * doubly_robust(np.where(seen, values, 99.0), seen, chance, -1.0)
    assert expected == pytest.approx(values)


def test_what_was_not_seen_is_never_read() -> None:
    seen = np.array([True, False, True, False])
    one = doubly_robust(np.array([0.5, np.nan, -1.0, np.nan]), seen, np.full(4, 0.5), -1.0)
    two = doubly_robust(np.array([0.5, 7.0, -1.0, -7.0]), seen, np.full(4, 0.5), -1.0)
    assert np.isfinite(one).all()
    assert one.tolist() == two.tolist()


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.booleans(), st.floats(0.01, 1)), min_size=1),
)
def test_no_term_is_below_what_the_bets_count_with(
    queries: list[tuple[float, bool, float]],
) -> None:
    values, seen, chance = (np.array(column) for column in zip(*queries, strict=True))
    terms = doubly_robust(values, seen.astype(bool), chance, -1.0)
    assert (terms >= -1 / chance - 1e-9).all()


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.floats(-0.9, 0.9))
@settings(max_examples=50)
def test_a_bound_is_where_the_capital_is_just_enough(values: list[float], mean: float) -> None:
    terms, lowest = np.array(values), np.full(len(values), -1.0)
    bound = lower_bound(terms, lowest, 0.05)
    assert bound <= terms.mean() + 1e-9
    is_rejected = log_capital(terms, mean, lowest) >= math.log(20)
    if abs(mean - bound) > 1e-3:
        assert is_rejected == (mean < bound)


@pytest.mark.parametrize("share", [1.0, 0.1])
@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.02, 0.02), (0.3, 0.1)])
def test_it_is_seldom_ever_wrong_however_often_it_is_looked_at(
    chances: tuple[float, float], share: float
) -> None:
    """A true mean is rejected at any of 600 looks in at most one stream of twenty."""
    wins, losses = chances
    mean = wins - losses
    streams, n, wrong = 400, 600, 0
    rng = np.random.default_rng(11)
    for _ in range(streams):
        values = rng.choice([1.0, -1.0, 0.0], size=n, p=[wins, losses, 1 - wins - losses])
        seen = rng.random(n) < share
        chance = np.full(n, share)
        terms = doubly_robust(values, seen, chance, -1.0)
        wrong += log_capital(terms, mean, -1 / chance) >= math.log(20)
    assert wrong / streams <= 0.05


def test_a_gain_is_shown_in_time() -> None:
    rng = np.random.default_rng(5)
    shown = 0
    for _ in range(50):
        values = rng.choice([0.3, -1.0], size=1_000, p=[0.9, 0.1])  # 0.17 on average
        shown += lower_bound(values, np.full(1_000, -1.0), 0.05) > 0
    assert shown >= 48


@pytest.mark.parametrize("chances", [(0.0, 0.0), (0.02, 0.03), (0.3, 0.2), (0.0, 0.05)])
def test_what_is_needed_is_about_what_it_takes(chances: tuple[float, float]) -> None:
    """Also where the terms do not vary at all, as of a policy that never lost anything yet."""
    wins, losses = chances
    rng, found, expected = np.random.default_rng(4), [], []
    for _ in range(60):
        p = [wins, losses, 1 - wins - losses]
        terms = rng.choice([1.0, -1.0, 0.0], size=4_000, p=p)
        lowest = np.full(4_000, -1.0)
        expected.append(queries_needed(terms, -0.1, lowest, 0.01))
        enough = (n for n in range(10, 4_000, 5) if _is_shown(terms[:n], lowest[:n]))
        found.append(next(enough, 4_000))
    assert 0.6 <= np.median(expected) / np.median(found) <= 1.6


def _is_shown(terms: np.ndarray, lowest: np.ndarray) -> bool:
    return log_capital(terms, -0.1, lowest) >= math.log(100)


def test_what_is_not_so_is_never_shown() -> None:
    terms = np.array([-1.0, 0.5] * 50)
    assert queries_needed(terms, 0.0, np.full(100, -1.0), 0.05) == math.inf
    assert queries_needed(np.empty(0), 0.0, np.empty(0), 0.05) == math.inf


def test_nothing_is_shown_by_nothing() -> None:
    assert lower_bound(np.empty(0), np.empty(0), 0.05) == -math.inf
    assert log_capital(np.empty(0), 0.0, np.empty(0)) == 0.0
    assert lower_bound(np.zeros(3), np.full(3, -1.0), 1e-6) < -0.9
    assert lower_bound(np.full(3, -1.0), np.full(3, -1.0), 0.05) == -math.inf


@given(st.lists(st.floats(0.01, 100), min_size=1))
def test_the_effective_size_lies_between_one_and_the_number(weights: list[float]) -> None:
    size = effective_size(np.array(weights))
    assert 1 - 1e-9 <= size <= len(weights) + 1e-9
    assert effective_size(np.full(len(weights), 3.0)) == pytest.approx(len(weights))
