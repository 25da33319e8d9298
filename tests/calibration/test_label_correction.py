"""Qualities without references, and what a few labels make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from langchain_automix.calibration.label_correction import STRENGTH, _ends, correct_labels
from langchain_automix.errors import AutoMixError

share = st.floats(0, 1, width=32)


@st.composite
def tables(draw: Any, *, binary: bool = False, labels: bool = True) -> tuple[Any, Any]:
    shape = (draw(st.integers(1, 40)), draw(st.integers(2, 5)))
    numbers = st.sampled_from([0.0, 1.0]) if binary else share
    agreement = draw(arrays(np.float64, shape, elements=numbers))
    agreement[:, -1] = 1.0
    quality = draw(arrays(np.float64, shape, elements=numbers))
    labelled = draw(arrays(np.bool_, shape[0])) if labels else np.zeros(shape[0], dtype=bool)
    quality[~labelled] = np.nan
    return agreement, quality


@given(tables())
def test_in_range_and_labels_unchanged(given: tuple[Any, Any]) -> None:
    agreement, quality = given
    found = correct_labels(agreement, quality)
    assert ((found >= 0) & (found <= 1)).all()
    known = ~np.isnan(quality)
    assert (found[known] == quality[known]).all()


@given(tables(labels=False))
def test_without_labels_the_agreement_itself(given: tuple[Any, Any]) -> None:
    agreement, quality = given
    assert correct_labels(agreement, quality) == pytest.approx(agreement, abs=1e-12)


@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_examples_does_not_matter(given: tuple[Any, Any], random: Any) -> None:
    agreement, quality = given
    order = list(range(len(agreement)))
    random.shuffle(order)
    shuffled = correct_labels(agreement[order], quality[order])
    assert shuffled == pytest.approx(correct_labels(agreement, quality)[order], abs=1e-9)


@given(tables())
def test_nothing_is_written_to(given: tuple[Any, Any]) -> None:
    agreement, quality = given
    before = agreement.copy(), quality.copy()
    correct_labels(agreement, quality)
    assert np.array_equal(agreement, before[0])
    assert np.array_equal(quality, before[1], equal_nan=True)


@given(tables())
def test_more_agreement_never_means_less_quality_of_a_cheaper_model(given: Any) -> None:
    agreement, quality = given
    found = correct_labels(agreement, quality)
    for model in range(agreement.shape[1] - 1):
        expected = np.isnan(quality[:, model])
        order = np.argsort(agreement[expected, model], kind="stable")
        assert (np.diff(found[expected, model][order]) >= -1e-9).all()


@given(tables(binary=True))
def test_yes_and_no_are_beta_binomial(given: tuple[Any, Any]) -> None:
    agreement, quality = given
    found = correct_labels(agreement, quality)
    labelled = ~np.isnan(quality[:, 0])
    own = agreement[labelled, 0] == 1
    right = quality[labelled, 0]
    low = right[~own].sum() / ((~own).sum() + STRENGTH)
    high = (right[own].sum() + STRENGTH) / (own.sum() + STRENGTH)
    if high < low:
        low = high = (right.sum() + STRENGTH) / (len(right) + 2 * STRENGTH)
    wanted = np.where(agreement[~labelled, 0] == 1, high, low)
    assert found[~labelled, 0] == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(tables())
def test_no_other_line_fits_the_cheap_model_better(given: tuple[Any, Any]) -> None:
    # Every rising line on a grid, by brute force.
    support, quality = (table[:, 0] for table in given)
    known = ~np.isnan(quality)

    def loss(low: Any, high: Any) -> Any:
        misses = np.outer(1 - support[known], low) + np.outer(support[known], high)
        own = np.square(misses - quality[known, None]).sum(axis=0)
        return own + STRENGTH * (low**2 + (high - 1) ** 2)

    low, high = _ends(support, quality, largest=False)
    assert low <= high + 1e-9
    lows, highs = (each.ravel() for each in np.meshgrid(*[np.linspace(-0.5, 1.5, 81)] * 2))
    rising = highs >= lows
    least = loss(lows[rising], highs[rising]).min()
    assert loss(np.array([low]), np.array([high]))[0] <= least + 1e-9


@given(st.integers(0, 30), st.integers(1, 30), st.integers(2, 5))
def test_perfect_agreement_and_perfect_labels_give_one(
    labelled: int, others: int, models: int
) -> None:
    agreement = np.ones((labelled + others, models))
    quality = np.ones_like(agreement)
    quality[labelled:] = np.nan
    assert correct_labels(agreement, quality) == pytest.approx(agreement)


def drawn(n: int, seed: int = 0) -> tuple[Any, Any]:
    """Two models, right at 0.6 and 0.8; two wrong answers are the same one time in three."""
    rng = np.random.default_rng(seed)
    ease = rng.random((n, 1))
    quality = (ease < [0.6, 0.8]) * 1.0
    both_wrong = quality.sum(axis=1) == 0
    agrees = np.where(both_wrong, rng.random(n) < 1 / 3, quality[:, 0] == quality[:, 1])
    return np.stack([agrees * 1.0, np.ones(n)], axis=1), quality


@pytest.mark.parametrize(("labels", "off"), [(20, 0.12), (100, 0.05), (1_000, 0.02)])
def test_labels_bring_the_means_to_the_truth(labels: int, off: float) -> None:
    misses = []
    for seed in range(50):
        agreement, quality = drawn(4_000, seed)
        known = quality.copy()
        known[labels:] = np.nan
        misses.append(correct_labels(agreement, known)[labels:].mean(axis=0) - [0.6, 0.8])
    assert np.sqrt(np.mean(np.square(misses), axis=0)).max() < off


def test_five_labels_do_no_harm() -> None:
    before, after = [], []
    for seed in range(200):
        agreement, quality = drawn(500, seed)
        known = quality.copy()
        known[5:] = np.nan
        before.append(np.square(agreement - quality)[5:].mean())
        after.append(np.square(correct_labels(agreement, known) - quality)[5:].mean())
    assert np.mean(after) < np.mean(before)


def test_agreement_speaks_for_the_largest_model_too() -> None:
    agreement, quality = drawn(1_000)
    quality[200:] = np.nan
    found = correct_labels(agreement, quality)[200:]
    agrees = agreement[200:, 0] == 1
    assert found[agrees, 1].min() > found[~agrees, 1].max()


def test_the_largest_model_may_be_worse_where_all_agree() -> None:
    # Hard questions lead all astray in the same way.
    agreement = np.ones((80, 2))
    agreement[:40, 0] = 0.0
    quality = np.full((80, 2), np.nan)
    quality[:30], quality[40:70] = [0.0, 1.0], [0.0, 0.0]
    found = correct_labels(agreement, quality)
    assert found[75, 1] < found[35, 1]


def test_one_label_of_a_row_is_enough() -> None:
    agreement, quality = drawn(100)
    quality[50:] = np.nan
    quality[:50, 1] = np.nan
    found = correct_labels(agreement, quality)
    assert found[:, 1] == pytest.approx(1.0)
    assert found[50:, 0] != pytest.approx(agreement[50:, 0])


def test_what_is_missing_stays_unknown() -> None:
    agreement = np.array([[1.0, np.nan, 1.0], [np.nan, np.nan, np.nan], [0.0, 1.0, 1.0]])
    quality = np.full((3, 3), np.nan)
    quality[2] = [0.0, 1.0, 1.0]
    found = correct_labels(agreement, quality)
    assert np.isnan(found).tolist() == [[False, True, False], [True] * 3, [False] * 3]


@pytest.mark.parametrize(
    ("agreement", "quality", "says"),
    [
        (np.ones((3, 2)), np.ones((2, 2)), "same shape"),
        (np.ones((3, 1)), np.ones((3, 1)), "two or more models"),
        (np.ones(3), np.ones(3), "two or more models"),
        (np.full((3, 2), 1.5), np.ones((3, 2)), "agreement of example 0, model 0"),
        (np.ones((3, 2)), np.full((3, 2), -0.1), "quality of example 0, model 0"),
        (np.full((3, 2), np.inf), np.ones((3, 2)), "agreement of example 0"),
    ],
)
def test_tables_that_do_not_fit_are_refused(agreement: Any, quality: Any, says: str) -> None:
    with pytest.raises(AutoMixError, match=says):
        correct_labels(agreement, quality)
