"""Qualities without references: what agreement with the largest model says about an answer.

Where no reference is known, the largest model's answer stands in for it: an answer is graded by
how far it agrees with it, and the largest model itself seems perfect. A few labelled
examples show what agreement is worth on this task: how good answers are that agree, how good
those are that do not, and how good the largest model is when no other agrees with it.
"""

from __future__ import annotations

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.arrays import Floats

STRENGTH = 4.0
"""Number of labelled examples that the assumption "what agrees is right" counts for, and as many
for "what does not agree is wrong". Of 1, 2, 4, 8 and 16 it did best on the benchmark's logs, by
squared error: a lower value lets 5 labels do harm; a higher one wastes some of 50."""


def correct_labels(agreement: Floats, quality: Floats) -> Floats:
    """Return the quality of every answer: the labelled one, or the one expected from the agreement.

    For each model the expected quality is linear in the agreement, from that of an answer that
    disagrees to that of one that agrees. Both ends are fitted to the labelled answers by least
    squares, each shrunk by `STRENGTH` examples to what is assumed without labels (0 and 1; for
    the largest model 1 and 1). For agreements of 0 and 1 they are beta-binomial means:
    (right among those that agree + 4) / (number that agree + 4), and (right among the others) /
    (their number + 4). A cheaper model's agreement is its own, and more of it never means less
    quality. The largest model's is the mean of the cheaper ones' with it; its quality may fall
    with it, for where models go wrong together agreement speaks against them all.

    Expected qualities are less spread than true ones. A fit reads means, so it stays unbiased;
    but the standard errors of its choice come out too small, more so the fewer the labels.
    (Drawing a quality of 0 or 1 for each answer, which keeps the spread, and giving labelled
    rows more weight were both measured: utility stayed the same within 0.001.) And the check
    is assumed to say nothing beyond the agreement: where it does, its value is underestimated.
    `python -m tests.benchmarks --only labels` measures the effect of all this.

    Args:
        agreement: (n, models) in [0, 1], cheap to expensive; 1 for the largest model, with
            which all are compared; NaN where an answer is missing.
        quality: (n, models) in [0, 1]; NaN where it is unknown.

    Returns:
        (n, models) in [0, 1]. A known quality stays; NaN where nothing is known. If no quality
        is known at all, these are the agreements.

    Raises:
        AutoMixError: The shapes differ, there are fewer than two models, or a number lies
            outside [0, 1].
    """
    _validate(agreement, quality)
    last = agreement.shape[1] - 1
    corrected = quality.copy()
    for model in range(last + 1):
        own = agreement[:, model]
        support = own if model < last else _mean(agreement[:, :last], where=~np.isnan(own))
        low, high = _ends(support, quality[:, model], largest=model == last)
        unknown = np.isnan(quality[:, model])
        expected = low + (high - low) * support[unknown]
        corrected[unknown, model] = np.clip(expected, 0.0, 1.0)
    return corrected


def _ends(support: Floats, quality: Floats, *, largest: bool) -> tuple[float, float]:
    """Return the expected quality at no and at full agreement, by ridge regression."""
    prior = np.array([1.0 if largest else 0.0, 1.0])
    seen = ~(np.isnan(support) | np.isnan(quality))
    shares = np.stack([1 - support[seen], support[seen]], axis=1)
    precision = shares.T @ shares + STRENGTH * np.eye(2)
    low, high = np.linalg.solve(precision, shares.T @ quality[seen] + STRENGTH * prior)
    if not largest and high < low:
        # The best line that does not fall is level.
        held = STRENGTH * prior.sum()
        low = high = (quality[seen].sum() + held) / (seen.sum() + 2 * STRENGTH)
    return float(low), float(high)


def _mean(columns: Floats, where: Floats) -> Floats:
    """Return the mean of each row's known numbers; NaN where there are none, or not `where`."""
    known = ~np.isnan(columns) & where[:, None]
    count = known.sum(axis=1)
    total = np.where(known, columns, 0.0).sum(axis=1)
    means: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means


def _validate(agreement: Floats, quality: Floats) -> None:
    if agreement.ndim != 2 or agreement.shape[1] < 2 or agreement.shape != quality.shape:  # noqa: PLR2004
        raise AutoMixError(
            "Agreements and qualities must be tables of the same shape, one row an example and "
            f"one column for each of two or more models, not {agreement.shape} and "
            f"{quality.shape}."
        )
    for name, table in (("agreement", agreement), ("quality", quality)):
        wrong = ~np.isnan(table) & ~((table >= 0) & (table <= 1))
        if wrong.any():
            row, model = (int(index) for index in np.argwhere(wrong)[0])
            raise AutoMixError(
                f"The {name} of example {row}, model {model} is {table[row, model]!r}: it must "
                "lie in [0, 1], or be NaN where it is unknown."
            )
