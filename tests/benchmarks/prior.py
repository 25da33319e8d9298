"""The prior for scores, from the train splits: as it is shipped, or without a benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langchain_automix import RoutingLog
from langchain_automix.policy.data.arrays import LogArrays, to_arrays
from langchain_automix.policy.decision.score_prior import (
    CLIP,
    LOGGED_SAMPLES,
    SCALE,
    SHIPPED,
    ScoreKind,
    ScorePrior,
)
from langchain_automix.policy.pomdp.likelihood import beta_prior

LEAST_RATIO = 3.0
"""Least price of the larger model of a pair, as a multiple of the smaller one's."""

SPREAD = 1.3
"""Factor on the standard deviations over pairs: other tasks differ more than these do."""

RIDGE = 0.01
"""Precision of a prior on each pair's own coefficients; it only keeps them finite."""

QUANTILES = 20
RECORDED = Path(__file__).parents[2] / "cookbook" / "recordings" / "xquad_checks.jsonl.gz"

Splits = Sequence[tuple[str, LogArrays, LogArrays]]


def score_prior(splits: Splits, without: str | None = None) -> ScorePrior:
    """Return the prior estimated from the train splits.

    Args:
        splits: Name, train split and test split of each log; the test splits are not looked at.
        without: A benchmark to leave out.
    """
    found = np.array(
        [each for name, train, _ in splits if name != without for each in _of_pairs(train)]
    )
    covariance = SPREAD**2 * np.cov(found.T)
    return ScorePrior(
        tuple(np.round(found.mean(axis=0), 4).tolist()),
        tuple(tuple(row) for row in np.round(covariance, 4).tolist()),
    )


def pairs_far_apart(columns: LogArrays) -> Iterator[tuple[int, int]]:
    """Yield the pairs of models whose prices differ enough, the smaller one's answers checked."""
    cost = columns.cost.mean(axis=0)
    for small in range(len(cost) - 1):
        for large in range(small + 1, len(cost)):
            if cost[large] >= LEAST_RATIO * cost[small] and columns.checked(small).all():
                yield small, large


def _of_pairs(columns: LogArrays) -> Iterator[Any]:
    for small, large in pairs_far_apart(columns):
        x = _log_odds(columns, small)
        yield np.concatenate([_logistic(x, columns.quality[:, j]) for j in (small, large)])


def _log_odds(columns: LogArrays, model: int) -> Any:
    score = np.clip(_scores(columns, model), CLIP, 1 - CLIP)
    return np.log(score / (1 - score)) / SCALE


def _scores(columns: LogArrays, model: int) -> Any:
    if columns.is_score(model):
        return columns.score[:, model]
    accepts, rejects, _ = columns.counts(model).T
    return (accepts + 0.5) / (accepts + rejects + 1)


def _logistic(x: Any, y: Any) -> Any:
    """Return intercept and slope of a logistic regression, by Newton's method."""
    features, found = np.stack([np.ones_like(x), x], axis=1), np.zeros(2)
    for _ in range(50):
        chance = 1 / (1 + np.exp(-features @ found))
        curvature = features.T * (chance * (1 - chance)) @ features + RIDGE * np.eye(2)
        found = found + np.linalg.solve(curvature, features.T @ (y - chance) - RIDGE * found)
    return found


def tables(splits: Splits) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Yield what is shipped, and how well it predicts a benchmark that it has not seen."""
    prior = score_prior(splits)
    rows = [
        (name, f"{mean:g}", *(f"{value:g}" for value in row))
        for name, mean, row in zip(
            ("small intercept", "small slope", "large intercept", "large slope"),
            prior.mean,
            prior.covariance,
            strict=True,
        )
    ]
    yield ("coefficient", "mean", "covariance", "", "", ""), rows
    quantiles = score_quantiles(splits)
    yield (
        ("kind of score", "equally likely values"),
        [
            *((kind, " ".join(f"{v:g}" for v in values)) for kind, values in quantiles.items()),
            ("agreement", "Beta({:g}, {:g})".format(*agreement_rate(splits))),
        ],
    )
    rows = []
    for name, train, _ in splits:
        cells = [f"{_loss(train, score_prior(splits, without)):.4f}" for without in (name, None)]
        rows.append((name, *cells, f"{_loss(train, None):.4f}"))
    yield (
        ("log loss on", "prior without this benchmark", "shipped prior", "its own mean qualities"),
        rows,
    )
    yield elsewhere()


def elsewhere() -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return how well the shipped prior predicts checks of kinds that it was not estimated from.

    On the recorded log of the cookbook: answers of some words by two small models, close in price.
    """
    log = to_arrays(RoutingLog.read(RECORDED))
    rows = []
    for name in (None, *log.checks):
        check = log.alone(name)
        check = check.rows(check.complete & check.checked(0))
        losses = (_loss(check, prior, [(0, 1)]) for prior in (SHIPPED, None))
        rows.append((name or "the first check", str(len(check)), *(f"{x:.4f}" for x in losses)))
    return ("log loss on", "queries", "shipped prior", "its own mean qualities"), rows


def _loss(
    columns: LogArrays, prior: ScorePrior | None, pairs: Sequence[tuple[int, int]] = ()
) -> float:
    """Return the mean log loss of what is expected of both models of some pairs, or of all."""
    losses = []
    for pair in pairs or pairs_far_apart(columns):
        right = columns.quality[:, pair]
        expected = np.broadcast_to(right.mean(axis=0), right.shape)
        if prior is not None:
            scores = _scores(columns, pair[0]).tolist()
            expected = np.array([prior.expected_qualities(score) for score in scores])
        chance = right * expected + (1 - right) * (1 - expected)
        losses.append(-np.log(chance).mean())
    return float(np.mean(losses))


def score_quantiles(splits: Splits) -> dict[ScoreKind, tuple[float, ...]]:
    """Return equally likely scores of the smaller models of pairs, each model counting the same."""
    pooled: dict[ScoreKind, list[Any]] = {"token_probability": [], "yes_probability": []}
    middles = (np.arange(QUANTILES) + 0.5) / QUANTILES
    for name, train, _ in splits:
        kind: ScoreKind = "yes_probability" if "triviaqa" in name else "token_probability"
        for small in sorted({small for small, _ in pairs_far_apart(train)}):
            if train.is_score(small):
                own = np.quantile(train.score[:, small], (np.arange(500) + 0.5) / 500)
                pooled[kind].append(own)
    return {
        kind: tuple(np.round(np.quantile(np.concatenate(own), middles), 5).tolist())
        for kind, own in pooled.items()
        if own
    }


def agreement_rate(splits: Splits) -> tuple[float, float]:
    """Return the Beta distribution of the rate at which samples agree with the first answer."""
    counts = [
        train.counts(small)[:, :2]
        for _, train, _ in splits
        for small in sorted({small for small, _ in pairs_far_apart(train)})
        if not train.is_score(small)
    ]
    accepts, rejects = np.concatenate(counts).T
    assert int((accepts + rejects).max()) == LOGGED_SAMPLES
    first, second = beta_prior(accepts, rejects, np.ones(len(accepts)))
    return round(first, 4), round(second, 4)
