"""Smooth curves against a Gaussian process of which each kernel is inverted by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_automix.policy.data.arrays import Floats
from langchain_automix.policy.pomdp.smooth_curves import smooth_curves

PLACE = (np.arange(10) + 0.5) / 10
WAVE = np.sin(PLACE * 6)
SPREADS = (0.1, 0.2, 0.4, 0.8)
BENDS = [(0.0, 0.15), *((s, length) for s in (0.002, 0.006, 0.02, 0.06) for length in (0.15, 0.3))]


def smooth(count: Floats, mean: Floats, *, slope: float) -> Floats:
    noise, flat = np.array([1.0]), np.zeros(len(count))
    curves = smooth_curves(
        PLACE, count, mean[None], noise=noise, slope=np.array([slope]), invalid_share=flat
    )
    return np.ravel(curves)


def slowly(
    place: Floats, count: Floats, mean: Floats, noise: float, slope: float, invalid: Floats
) -> Floats:
    """Smooth one curve with one inverse a kernel."""
    seen, line = count > 0, slope * (place - 0.5)
    evidences, curves = [], []
    apart = (place[:, None] - place) ** 2 + (invalid[:, None] - invalid) ** 2
    along = np.outer(place - 0.5, place - 0.5) + np.outer(invalid, invalid)
    for spread in SPREADS:
        for size, length in BENDS:
            kernel = spread**2 * along + size * np.exp(-apart / (2 * length**2))
            inverse = np.linalg.inv(kernel[seen][:, seen] + np.diag(noise / count[seen]))
            level = inverse.sum(axis=0) @ (mean - line)[seen] / inverse.sum()
            residual = (mean - line)[seen] - level
            curves.append(level + kernel[:, seen] @ inverse @ residual + line)
            evidences.append(
                np.linalg.slogdet(inverse)[1]
                - np.log(inverse.sum())
                - residual @ inverse @ residual
            )
    share = np.exp((np.array(evidences) - max(evidences)) / 2)
    return np.asarray(share @ np.array(curves) / share.sum())


groups = st.tuples(
    st.floats(0, 1), st.floats(0, 1), st.one_of(st.just(0.0), st.floats(0.1, 500)), st.floats(0, 1)
)


@given(
    drawn=st.lists(groups, min_size=1, max_size=12).filter(lambda g: any(each[2] for each in g)),
    noise=st.tuples(st.floats(0.001, 0.3), st.floats(0.001, 0.3)),
    slope=st.floats(-0.5, 0.5),
    has_invalid=st.booleans(),
)
def test_one_factor_for_all_slopes_gives_what_an_inverse_each_gives(
    drawn: Any, noise: tuple[float, float], slope: float, has_invalid: bool
) -> None:
    place, mean, count, invalid = np.array(drawn).T
    invalid = invalid * has_invalid
    means = np.stack([mean, 1 - mean**2])
    found = smooth_curves(
        place,
        count,
        means,
        noise=np.array(noise),
        slope=np.array([slope, -slope]),
        invalid_share=invalid,
    )
    for curve, own, its_noise, its_slope in zip(found, means, noise, (slope, -slope), strict=True):
        slow = slowly(place, count, own, its_noise, its_slope, invalid)
        assert curve == pytest.approx(slow, abs=1e-8)


def test_a_curve_is_close_to_the_prior_with_little_data_and_to_much_data() -> None:
    flat = np.zeros(10)
    assert np.diff(smooth(flat + 0.01, WAVE, slope=-0.3)) == pytest.approx(
        np.full(9, -0.03), abs=0.02
    )
    assert smooth(flat + 10_000, WAVE, slope=-0.3) == pytest.approx(WAVE, abs=0.05)


def test_a_gap_is_bridged() -> None:
    count = np.where(np.arange(10) == 4, 0.0, 10_000.0)
    assert smooth(count, WAVE, slope=0.0)[4] == pytest.approx(WAVE[4], abs=0.1)
