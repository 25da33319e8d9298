"""The posterior over logged queries: which of them is the query at hand like?

Every logged query is a particle that carries the qualities of all models. A check of a new
answer weighs the particles by how likely it is to see such a check on them; the weighted
means of their qualities are the belief. There are no bins, and the check at run time may draw
another number of verdicts than the log's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Quality = Annotated[float, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class VerdictCell(_Frozen):
    """Logged queries with the same verdict counts, which no check can tell apart."""

    accepts: int = Field(ge=0)
    rejects: int = Field(ge=0)
    count: float = Field(gt=0)
    quality: tuple[Quality, ...]
    """Mean quality of each model's answers on these queries."""


class VerdictBelief(_Frozen):
    """Belief from verdict counts, by a Beta-binomial likelihood.

    A logged query with a accepts and r rejects has an unknown accept rate with the posterior
    Beta(alpha + a, beta + r); the chance of s accepts in m verdicts on it is
    C(m, s) B(alpha + a + s, beta + r + m - s) / B(alpha + a, beta + r). `alpha` and `beta`
    are fitted to all verdict counts by maximum marginal likelihood (empirical Bayes).
    """

    kind: Literal["verdicts"] = "verdicts"
    alpha: float = Field(gt=0)
    beta: float = Field(gt=0)
    cells: tuple[VerdictCell, ...] = Field(min_length=1)

    def expected_quality(self, accepts: int, rejects: int) -> tuple[float, ...]:
        """Return the expected quality of each model's answer after these valid verdicts."""
        logs = [
            math.log(cell.count)
            + _log_beta(self.alpha + cell.accepts + accepts, self.beta + cell.rejects + rejects)
            - _log_beta(self.alpha + cell.accepts, self.beta + cell.rejects)
            for cell in self.cells
        ]
        top = max(logs)
        weights = [math.exp(log - top) for log in logs]
        return _weighted_means(weights, [cell.quality for cell in self.cells])


class ScorePoint(_Frozen):
    """Logged queries with the same score."""

    score: float = Field(ge=0, le=1)
    count: float = Field(gt=0)
    quality: tuple[Quality, ...]


class ScoreBelief(_Frozen):
    """Belief from a continuous score, by a Gaussian kernel on the ranks of the scores.

    Ranks, in [0, 1], make one bandwidth fit scores of any spread. The bandwidth is the one
    whose leave-one-out predictions of the qualities have the least squared error.
    """

    kind: Literal["score"] = "score"
    bandwidth: float = Field(gt=0)
    points: tuple[ScorePoint, ...] = Field(min_length=1)
    """In ascending order of the score."""

    def expected_quality(self, score: float) -> tuple[float, ...]:
        """Return the expected quality of each model's answer at this score."""
        total = sum(point.count for point in self.points)
        below = sum(point.count for point in self.points if point.score < score)
        same = sum(point.count for point in self.points if point.score == score)
        rank = (below + same / 2) / total
        squares, before = [], 0.0
        for point in self.points:
            squares.append((((before + point.count / 2) / total - rank) / self.bandwidth) ** 2 / 2)
            before += point.count
        # Relative to the nearest point, so that a narrow kernel far from all points is not 0/0.
        weights = [
            point.count * math.exp(min(squares) - square)
            for point, square in zip(self.points, squares, strict=True)
        ]
        return _weighted_means(weights, [point.quality for point in self.points])


def fit_verdicts(
    counts: Iterable[tuple[int, int]], qualities: Iterable[Sequence[float]]
) -> VerdictBelief:
    """Fit a belief to the (accepts, rejects) and the model qualities of logged queries."""
    groups: dict[tuple[int, int], list[Sequence[float]]] = defaultdict(list)
    for count, quality in zip(counts, qualities, strict=True):
        groups[count].append(quality)
    cells = tuple(
        VerdictCell(
            accepts=accepts,
            rejects=rejects,
            count=len(group),
            quality=_weighted_means([1.0] * len(group), group),
        )
        for (accepts, rejects), group in sorted(groups.items())
    )
    alpha, beta = _fit_beta_binomial([(c.accepts, c.rejects, c.count) for c in cells])
    return VerdictBelief(alpha=alpha, beta=beta, cells=cells)


def fit_scores(scores: Sequence[float], qualities: Sequence[Sequence[float]]) -> ScoreBelief:
    """Fit a belief to the scores and the model qualities of logged queries."""
    groups: dict[float, list[Sequence[float]]] = defaultdict(list)
    for score, quality in zip(scores, qualities, strict=True):
        groups[score].append(quality)
    points = tuple(
        ScorePoint(
            score=score, count=len(group), quality=_weighted_means([1.0] * len(group), group)
        )
        for score, group in sorted(groups.items())
    )
    return ScoreBelief(bandwidth=_bandwidth(scores, qualities), points=points)


def _weighted_means(weights: Sequence[float], rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    total = math.fsum(weights)
    means = (
        math.fsum(weight * row[j] for weight, row in zip(weights, rows, strict=True)) / total
        for j in range(len(rows[0]))
    )
    return tuple(min(max(mean, 0.0), 1.0) for mean in means)  # rounding may step out of [0, 1]


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _fit_beta_binomial(counts: Sequence[tuple[int, int, float]]) -> tuple[float, float]:
    """Maximise the marginal likelihood over mean and size by a grid that zooms in.

    The size alpha + beta stays within [0.2, 200]: checks that always agree, or that vary no
    more than one coin would, have their optimum at infinity or zero.
    """

    def log_likelihood(mean: float, size: float) -> float:
        a, b = mean * size, (1 - mean) * size
        return sum(
            n * (_log_beta(a + accepts, b + rejects) - _log_beta(a, b))
            for accepts, rejects, n in counts
        )

    steps = 12
    means, sizes = (0.02, 0.98), (math.log(0.2), math.log(200.0))
    best = (0.5, math.log(2.0))
    for _ in range(4):
        grid = [
            (means[0] + i * (means[1] - means[0]) / steps, sizes[0] + j * span / steps)
            for span in [sizes[1] - sizes[0]]
            for i in range(steps + 1)
            for j in range(steps + 1)
        ]
        best = max(grid, key=lambda point: log_likelihood(point[0], math.exp(point[1])))
        means = _around(best[0], means, steps, (0.02, 0.98))
        sizes = _around(best[1], sizes, steps, (math.log(0.2), math.log(200.0)))
    mean, size = best[0], math.exp(best[1])
    return mean * size, (1 - mean) * size


def _around(
    centre: float, span: tuple[float, float], steps: int, bounds: tuple[float, float]
) -> tuple[float, float]:
    step = (span[1] - span[0]) / steps
    return max(centre - step, bounds[0]), min(centre + step, bounds[1])


def _bandwidth(scores: Sequence[float], qualities: Sequence[Sequence[float]]) -> float:
    import numpy as np  # noqa: PLC0415  (only a fit to scores needs it)

    candidates = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
    if len(scores) < 3:  # noqa: PLR2004  (nothing to leave out)
        return candidates[-1]
    values, quality = np.asarray(scores, dtype=float), np.asarray(qualities, dtype=float)
    ordered = np.sort(values)
    below, upto = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    ranks = (below + upto) / (2 * len(values))

    def error(bandwidth: float) -> float:
        total = 0.0
        for rows in np.array_split(np.arange(len(values)), max(1, len(values) // 500)):
            squares = ((ranks[rows, None] - ranks[None, :]) / bandwidth) ** 2 / 2
            squares[np.arange(len(rows)), rows] = np.inf  # leave itself out
            weights = np.exp(squares.min(axis=1, keepdims=True) - squares)
            predicted = weights @ quality / weights.sum(axis=1, keepdims=True)
            total += float(((predicted - quality[rows]) ** 2).sum())
        return total

    return min(candidates, key=error)
