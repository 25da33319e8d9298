"""Find the cheapest policy that meets a target on quality or cost with a given confidence.

The search walks along the frontier from safe policies to cheap ones. At each step, a one-sided test
asks whether the target is met. For a loss, it is a non-inferiority test of paired differences
against every single model, so it need not be known which of them is truly the best. The first
failure ends the search. Tests in a fixed order, up to the first failure, need no correction for
their number (Learn then Test, Angelopoulos et al. 2021, section 3.2).

The tests use frontiers fitted to four fifths of the log, on queries that these fits have not seen.
The policy that is used has the same place on the frontier of the whole log. That it is no worse is
an assumption: `python -m tests.benchmarks --only goals` measures how often the target holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

from langchain_automix.errors import OutOfReachError, TooFewExamplesError
from langchain_automix.policy.data.arrays import NOT_DRAWN, Floats, LogArrays
from langchain_automix.policy.fitting.candidates import always
from langchain_automix.policy.fitting.frontier import JudgedFrontier, Mixture
from langchain_automix.policy.fitting.goal import Goal
from langchain_automix.policy.ties import first_best
from langchain_automix.utils.formatting import format_percent, pluralize

DRAWS = 4_000
"""Number of resamples behind a bound; they move a confidence of 0.9 by 0.005 (one standard
deviation)."""

_CHUNK = 200
_STEPS = 64
_HALVINGS = 6

_WORTHWHILE = 0.05
"""Share of the cost that must be saved for the saving to be mentioned."""


@dataclass(frozen=True)
class Margin:
    """How far each query is within a target; the target is met if the mean is at least 0."""

    values: Floats
    """(n,)"""

    worst: float
    """The lowest value that one query could have."""

    @property
    def is_certain(self) -> bool:
        """Whether every query has the same margin by definition."""
        return bool((self.values == self.worst).all())


def lower_bound(margins: list[Margin], weight: Floats, confidence: float, seed: int = 0) -> float:
    """Return a lower bound of the means of all margins that holds with a confidence.

    It is the quantile 1 - confidence of the mean under random weights that are uniform on the
    simplex, where one unseen query counts as the worst possible (Gaffke, 2005; Learned-Miller and
    Thomas, "A New Confidence Interval for the Mean of a Bounded Random Variable", 2019). For a
    rate, it is the exact bound of Clopper and Pearson. Unlike a normal bound, it does not treat
    what has not happened yet as impossible.

    Args:
        margins: Margins of the same n queries. If each target is met with the confidence, so are
            all of them, so their number needs no correction.
        weight: (n,) weight of each query.
        confidence: In (0, 1).
        seed: Seed for the random weights.
    """
    seen, unseen = resampled_means(np.array([m.values for m in margins]).T, weight, seed)
    means = seen + unseen[:, None] * np.array([m.worst for m in margins])
    return float(np.quantile(means, 1 - confidence, axis=0).min())


def resampled_means(columns: Floats, weight: Floats, seed: int) -> tuple[Floats, Floats]:
    """Return means of columns under random weights for n queries and one unseen query.

    Args:
        columns: (n, k).
        weight: (n,) weight of each query.
        seed: Seed for the random weights.

    Returns:
        (DRAWS, k) sums over the queries seen, and (DRAWS,) weights of the unseen query.
    """
    counted = np.append(weight, 1.0)
    rng = np.random.default_rng([seed, len(weight)])
    sums, unseen = [], []
    for _ in range(DRAWS // _CHUNK):
        drawn = rng.standard_exponential((_CHUNK, len(counted))) * counted
        drawn /= drawn.sum(axis=1, keepdims=True)
        sums.append(drawn[:, :-1] @ columns)
        unseen.append(drawn[:, -1])
    return np.concatenate(sums), np.concatenate(unseen)


@dataclass(frozen=True)
class _Walk:
    """Tests of a target along the frontier."""

    frontier: JudgedFrontier
    goal: Goal
    confidence: float

    @cached_property
    def best(self) -> int:
        """The single model that is best on the log; the cheapest if several are tied."""
        data = self.frontier.learner.columns
        return first_best(data.mean(data.quality))

    @cached_property
    def levels(self) -> list[float]:
        """Levels to test, starting with the one that is surest to meet the target."""
        points = self.frontier.points
        top = self.frontier.level(points[-1].cost)
        if self.goal.max_loss is not None:
            columns = self.frontier.learner.columns
            top = min(top, self.frontier.level(float(columns.mean(columns.cost)[self.best])))
        levels: list[float] = np.linspace(top, min(0.0, top), _STEPS + 1).tolist()
        return levels[::-1] if self.goal.max_cost is not None else levels

    def margins(self, level: float | None) -> list[Margin]:
        """Return the margins at a level; None stands for the best single model."""
        data, goal = self.frontier.data, self.goal
        if level is None:
            quality, cost = data.quality[:, self.best], data.cost[:, self.best]
        else:
            quality, cost = self.outcomes(level)
        if goal.max_cost is not None:
            return [Margin(goal.max_cost - cost, goal.max_cost - dearest_query(data))]
        if goal.min_quality is not None:
            return [Margin(quality - goal.min_quality, -goal.min_quality)]
        loss = goal.max_loss or 0.0
        return [
            Margin(quality - data.quality[:, j] + loss, loss - (1 - self._share(level, j)))
            for j in range(len(data.models))
        ]

    def outcomes(self, level: float) -> tuple[Floats, Floats]:
        """Return the cross-fitted quality and cost of each query at a level."""
        return self.frontier.cross_fitted(lambda fold: self.frontier.fold_at(fold, level))

    def _share(self, level: float | None, model: int) -> float:
        """Return the least share of queries that a model gets unchecked, so without any loss."""
        if level is None:
            return float(model == self.best)
        frontier = self.frontier
        plan = always(frontier.data.models, model)
        folds = (frontier.fold_at(f, level).share_of(f.points, plan) for f in frontier.folds)
        return min(frontier.at(level).share_of(frontier.points, plan), *folds)

    @cached_property
    def _resampled(self) -> tuple[Floats, Floats]:
        """Resampled means of each fold's points, then of the single models; unseen weights."""
        data, columns = self.frontier.data, []
        for fold in self.frontier.folds:
            for values in fold.cost if self.goal.max_cost is not None else fold.quality:
                columns.append(np.zeros(len(data)))
                columns[-1][fold.held_out] = values
        means = np.concatenate([np.array(columns).T, data.quality], axis=1)
        return resampled_means(means, data.weight, self.frontier.learner.seed)

    def bound(self, level: float) -> float:
        """Return the `lower_bound` of the margins at a level."""
        means, unseen = self._resampled
        frontier, goal, number = self.frontier, self.goal, len(self.frontier.data.models)
        places = [(frontier.fold_at(fold, level), len(fold.points)) for fold in frontier.folds]
        mixed = means[:, :-number] @ np.concatenate([at.of(np.eye(k)) for at, k in places])
        if goal.max_cost is not None:
            found = (goal.max_cost - mixed - unseen * dearest_query(frontier.data))[:, None]
        elif goal.min_quality is not None:
            found = (mixed - goal.min_quality)[:, None]
        else:
            lost = np.array([1 - self._share(level, j) for j in range(number)])
            found = mixed[:, None] - means[:, -number:] - unseen[:, None] * lost
            found += goal.max_loss or 0.0
        return float(np.quantile(found, 1 - self.confidence, axis=0).min())

    def last(self) -> float | None:
        """Return the last level before the first failure, or None if the first test fails."""
        passed = None
        for level in self.levels:
            if self.bound(level) >= 0:
                passed = level
                continue
            return None if passed is None else self._between(passed, level)
        return passed

    def _between(self, passed: float, failed: float) -> float:
        for _ in range(_HALVINGS):
            middle = (passed + failed) / 2
            passed, failed = (middle, failed) if self.bound(middle) >= 0 else (passed, middle)
        return passed


def meet_with_confidence(
    frontier: JudgedFrontier, goal: Goal, confidence: float
) -> tuple[Mixture | int, tuple[str, ...]]:
    """Return the cheapest policy that meets a target with confidence; for a cost target, the best.

    Args:
        frontier: The frontier of the log.
        goal: A goal with `max_loss`, `min_quality` or `max_cost`.
        confidence: Required confidence, in (0, 1).

    Returns:
        A place on the frontier or a single model, and notes.

    Raises:
        TooFewExamplesError: The log is too small to show that any policy meets the target.
        OutOfReachError: No policy appears to meet the target.
    """
    walk = _Walk(frontier, goal, confidence)
    if goal.max_loss is not None:
        # By definition, the best single model loses nothing against itself.
        data, seed = frontier.data, frontier.learner.seed
        bound = lower_bound(walk.margins(None), data.weight, confidence, seed)
        if bound < 0:
            raise _unreached(walk, None, bound)
    level = walk.last()
    if goal.max_loss is None and level is None:
        first = walk.levels[0]
        raise _unreached(walk, first, walk.bound(first))
    if level is None or _is_best_alone(walk, level):
        return walk.best, (_saves_nothing(walk),)
    return frontier.at(level), (_holds(walk, level),)


def _is_best_alone(walk: _Walk, level: float) -> bool:
    plan = always(walk.frontier.data.models, walk.best)
    share = walk.frontier.at(level).share_of(walk.frontier.points, plan)
    return walk.goal.max_loss is not None and share >= 1


def dearest_query(data: LogArrays) -> float:
    """Return the most that a query costs on this log: all models with all their checks."""
    cost = data.cost.sum(axis=1)
    for name in (None, *data.checks):
        check = data.alone(name)
        drawn = (check.verdicts != NOT_DRAWN).sum(axis=2)
        price = np.nan_to_num(check.fixed_cost) + drawn * np.nan_to_num(check.sample_cost)
        cost = cost + price.sum(axis=1)
    return float(cost.max())


def examples_needed(margin: Margin, confidence: float) -> float:
    """Estimate how many examples would show that a target is met, if they resemble these.

    The bound is approximated by mean - d / n - sqrt(z^2 s^2 / n + (log(1 / (1 - c)) - 1)^2 d^2 /
    n^2), where d is the distance of the worst query from the mean. This is correct for large n and
    for s = 0.

    Returns:
        The number of examples; infinity if the mean does not meet the target.
        Infinity where the mean does not meet the target.
    """
    mean, spread = float(margin.values.mean()), float(margin.values.std())
    if margin.is_certain:
        return 0.0 if mean >= 0 else math.inf
    if mean <= 0:
        return math.inf
    worst = mean - margin.worst
    normal = max(NormalDist().inv_cdf(confidence), 0.0) * spread
    unseen = max(math.log(1 / (1 - confidence)) - 1, 0.0)
    # The smaller root of a quadratic in 1 / n.
    a, b = worst**2 * (1 - unseen**2), 2 * mean * worst + normal**2
    return (b + math.sqrt(b**2 - 4 * a * mean**2)) / (2 * mean**2)


def _unreached(walk: _Walk, level: float | None, bound: float) -> OutOfReachError:
    """Return the error for a target that not even the safest policy is shown to meet."""
    data, confidence = walk.frontier.data, walk.confidence
    [(name, target)] = walk.goal.target.items()
    # Rounded to the safe side, so that the reported value can be used as a target.
    if name == "min_quality":
        shown = max(math.floor((target + bound) * 1e4) / 1e4, 0.0)
        what = f"to reach a mean quality of {shown:g}"
    elif name == "max_cost":
        shown = float(f"{(target - bound) * (1 + 1e-5):.6g}")
        what = f"to cost at most {shown:g} a query"
    else:
        shown = math.ceil((target - bound) * 1e4) / 1e4
        what = f"to lose at most {shown:g} against the best single model"
    place, points = walk.frontier.at(level or 0.0), walk.frontier.points
    plan = f"always:{data.models[walk.best]}" if level is None else points[place.first].rule.name
    start = (
        f"{name}={target:g} cannot be shown with confidence {confidence:g} on this log of "
        f"{pluralize(len(data), 'query', 'queries')}. The policy most likely to meet it, {plan}, "
        f"is shown {what}"
    )
    needed = max(examples_needed(margin, confidence) for margin in walk.margins(level))
    if math.isinf(needed):
        return OutOfReachError(
            f"{start}; more examples like these would not help, for on queries that it was not "
            "fitted to, that policy misses the goal.",
            nearest=shown,
        )
    more = max(math.ceil(needed) - len(data), 1)
    return TooFewExamplesError(
        f"{start}; about {_rounded(more)} more examples like these would be needed.",
        nearest=shown,
        more=more,
    )


def _holds(walk: _Walk, level: float) -> str:
    """Describe what holds, and how policies fitted like this one performed."""
    data = walk.frontier.data
    [(name, target)] = walk.goal.target.items()
    quality, cost = (float(data.mean(values)) for values in walk.outcomes(level))
    best, price = float(data.mean(data.quality)[walk.best]), float(data.mean(data.cost)[walk.best])
    at = f"at {format_percent(cost / price)} of its cost" if price > 0 else f"at a cost of {cost:g}"
    return (
        f"{name}={target:g} holds on new queries like these {len(data)} with confidence "
        f"{walk.confidence:g}. Judged on queries that they were not fitted to, policies fitted "
        f"like this one have a quality of {quality:.4f} against {best:.4f} for always "
        f"{data.models[walk.best]}, {at}."
    )


def _saves_nothing(walk: _Walk) -> str:
    """Explain why the best single model stays, and what a saving would require."""
    data = walk.frontier.data
    best = float(data.mean(data.cost)[walk.best])
    if walk.best == int(np.argmin(data.mean(data.cost))):
        return (
            f"The policy is always {data.models[walk.best]}, which answers best and costs least. "
            f"max_loss={walk.goal.max_loss:g} holds with confidence {walk.confidence:g}."
        )
    found = []
    for level in walk.levels:
        cost = float(data.mean(walk.outcomes(level)[1]))
        if cost <= best * (1 - _WORTHWHILE):
            needed = max(examples_needed(m, walk.confidence) for m in walk.margins(level))
            found.append((needed, cost, level))
    text = (
        f"The policy is always {data.models[walk.best]} and saves nothing: no cheaper policy can "
        f"be shown, with confidence {walk.confidence:g}, to lose at most {walk.goal.max_loss:g} "
        "of quality."
    )
    if not found:
        return text
    needed, cost, level = min(found)
    if math.isinf(needed):
        _, cost, level = found[0]
        outlook = "more queries like them would hardly change that"
    else:
        more = max(math.ceil(needed) - len(data), 1)
        outlook = (
            f"about {_rounded(more)} more like them would be needed to show {walk.goal.max_loss:g}"
        )
    shown = (walk.goal.max_loss or 0.0) - walk.bound(level)
    return (
        f"{text} At {format_percent(cost / best)} of the cost, these "
        f"{pluralize(len(data), 'query', 'queries')} show a loss of at most {shown:.4f}; {outlook}."
    )


def _rounded(number: int) -> str:
    """Return a number rounded up to two digits."""
    size = 10 ** max(len(str(number)) - 2, 0)
    return f"{math.ceil(number / size) * size:,}"
