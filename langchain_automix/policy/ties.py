"""Define ties: values so close that they differ only by rounding.

The last bits of a sum depend on the processor, the version of numpy and the order of the terms. If
they decided a choice, fits would differ from machine to machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langchain_automix.policy.data.arrays import Floats, Ints

TIE = 1e-9
"""Values are tied if they differ by at most this, or by this share of the largest one's size."""


def tolerance(value: float) -> float:
    """Return how much another value may differ from this one and still be tied with it."""
    return TIE * max(1.0, abs(value))


def tolerances(values: Floats) -> Floats:
    """Return the tolerance of each of many values; see `tolerance`."""
    found: Floats = TIE * np.maximum(1.0, np.abs(values))
    return found


def tied_best(values: Floats | Sequence[float]) -> Ints:
    """Return the indices of the largest value and of those tied with it, ascending."""
    found = np.asarray(values, dtype=np.float64)
    best = float(found.max())
    tied: Ints = np.flatnonzero(found >= best - tolerance(best))
    return tied


def first_best(values: Floats | Sequence[float]) -> int:
    """Return the index of the largest value, the first if tied."""
    return int(tied_best(values)[0])


def exceeds(value: float, other: float) -> bool:
    """Whether a value is larger than another and not tied with it."""
    return value > other + tolerance(other)
