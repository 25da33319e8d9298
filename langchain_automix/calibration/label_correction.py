"""Qualities without references: what agreement with the largest model tells about an answer.

If no reference is known, the largest model's answer takes its place: an answer is graded by how far
it agrees with that one, and the largest model itself seems to be perfect. A few labelled examples
show how well agreement predicts quality on this task: how good answers are that agree, how good
they are if they do not, and how good the largest model is if no other model agrees with it.
"""

from __future__ import annotations

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.arrays import Floats

STRENGTH = 4.0
"""Weight, as a number of labelled examples, of the assumption "an answer that agrees is right", and
of "an answer that does not agree is wrong". Of 1, 2, 4, 8 and 16, this value did best on the
benchmark's logs by squared error: with a lower value, 5 labels can do harm; a higher value wastes
some of 50 labels."""


def correct_labels(agreement: Floats, quality: Floats) -> Floats:
    """Return the quality of every answer: its label, or the quality expected from its agreement.

    For each model, the expected quality is linear in the agreement, between that of an answer that
    disagrees and that of one that agrees. Both ends are fitted to the labelled answers by least
    squares. Each is shrunk by `STRENGTH` examples towards the value assumed without labels: 0 and
    1, or 1 and 1 for the largest model. For agreements of 0 and 1 they are beta-binomial means:
    (number right among those that agree + 4) / (number that agree + 4), and (number right among the
    others) / (their number + 4). The agreement of a cheaper model is its own, and more agreement
    never means less quality. The agreement of the largest model is the mean agreement of the
    cheaper ones with it. Its quality may fall with agreement: if models make the same mistakes,
    agreement speaks against all of them.

    Expected qualities vary less than true ones. A fit uses means and therefore stays unbiased, but
    the standard errors of its choice are too small, especially with few labels. (Two alternatives
    were measured: drawing a quality of 0 or 1 for each answer, which keeps the variance, and a
    higher weight for labelled rows. Utility stayed the same within 0.001.) The check is assumed to
    add nothing to the agreement; if it does, its value is underestimated.

    `python -m tests.benchmarks --only labels` measures all these effects.

    Args:
        agreement: (n, models) in [0, 1], cheap to expensive; 1 for the largest model, with which
            all are compared; NaN if an answer is missing.
        quality: (n, models) in [0, 1]; NaN if unknown.

    Returns:
        (n, models) in [0, 1]. Known qualities are unchanged; NaN if nothing is known. If no quality
        is known at all, the agreements are returned.

    Raises:
        AutoMixError: The shapes differ, there are fewer than two models, or a number is out of
            range.
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
    """Return the expected quality at no agreement and at full agreement, by ridge regression."""
    prior = np.array([1.0 if largest else 0.0, 1.0])
    seen = ~(np.isnan(support) | np.isnan(quality))
    shares = np.stack([1 - support[seen], support[seen]], axis=1)
    precision = shares.T @ shares + STRENGTH * np.eye(2)
    low, high = np.linalg.solve(precision, shares.T @ quality[seen] + STRENGTH * prior)
    if not largest and high < low:
        # The best-fitting line that does not fall is level.
        held = STRENGTH * prior.sum()
        low = high = (quality[seen].sum() + held) / (seen.sum() + 2 * STRENGTH)
    return float(low), float(high)


def _mean(columns: Floats, where: Floats) -> Floats:
    """Return the mean of each row's known numbers; NaN if there are none, or not `where`."""
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
