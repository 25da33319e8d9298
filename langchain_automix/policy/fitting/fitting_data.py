"""Select what a fit uses of a log: labelled queries, and unlabelled ones that were checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.arrays import (
    NOT_DRAWN,
    CheckArrays,
    Floats,
    Ints,
    LogArrays,
    Mask,
)

_OF_A_CHECK = ("verdicts", "score", "fixed_cost", "sample_cost")


def complete(columns: LogArrays) -> LogArrays:
    """Return the complete queries that a fit can learn from, leaving out those that lack a check.

    Raises:
        AutoMixError: There are no such queries, or fewer than two models.
    """
    _validate_models(columns)
    if not columns.complete.any():
        raise AutoMixError(
            "The routing log has no query that all models answered, with quality and cost: there "
            "is nothing to fit."
        )
    index = _usable(columns, columns.complete)
    return columns if len(index) == len(columns) else columns.rows(index)


def concatenated(first: LogArrays, second: LogArrays) -> LogArrays:
    """Concatenate the queries of two parts of the same log."""

    def both(one: Any, other: Any, name: str) -> Any:
        return np.concatenate([getattr(one, name), getattr(other, name)])

    columns: dict[str, Any] = {
        name: both(first, second, name) for name in ("quality", "cost", "weight", *_OF_A_CHECK)
    }
    columns["checks"] = {
        name: CheckArrays(*(both(check, second.checks[name], each) for each in _OF_A_CHECK))
        for name, check in first.checks.items()
    }
    return replace(first, **columns)


@dataclass(frozen=True)
class FittingData:
    """The queries of a log that a fit uses, in their canonical order."""

    queries: LogArrays
    """The labelled queries, and the unlabelled ones on which a check was made. The costs of the
    latter are replaced by the means of the former, so that mean costs do not change."""

    labelled: Mask
    """(n,): whether the quality and the cost of every model are known."""

    left_out: int
    """Number of complete queries that lack a check most queries have, or have it cut short."""

    @cached_property
    def labels(self) -> LogArrays:
        """The labelled queries."""
        return self.queries if self.labelled.all() else self.queries.rows(self.labelled)

    @cached_property
    def unlabelled(self) -> LogArrays:
        """The unlabelled queries."""
        return self.queries.rows(~self.labelled)

    def checked_by(
        self, model: int, check: str | None, fewest: int, labels: LogArrays | None = None
    ) -> LogArrays:
        """Return the labelled queries, and the unlabelled ones on which a check was made.

        Args:
            model: The model whose answers were checked.
            check: Name of the check; None for the first one.
            fewest: Minimum number of verdicts; 0 if the check gives scores.
            labels: A subset of the labelled queries. None: all of them.
        """
        labels = self.labels if labels is None else labels
        if not len(self.unlabelled):
            return labels
        own = self.unlabelled.alone(check)
        drawn = (own.verdicts[:, model] != NOT_DRAWN).sum(axis=1)
        scored = ~np.isnan(own.score[:, model])
        fits = ~scored & (drawn >= fewest) if fewest else scored
        return concatenated(labels, self.unlabelled.rows(fits))


def fitting_data(columns: LogArrays) -> FittingData:
    """Select what a fit uses of a log.

    Raises:
        AutoMixError: There are fewer than two models, or nothing to learn from: no query has the
            quality and the cost of every model, and too little was checked or priced.
    """
    _validate_models(columns)
    weighed = columns.weight > 0
    known = columns.complete
    index = _usable(columns, known)
    if len(index):
        others = np.flatnonzero(~known & weighed & _any_check(columns))
    else:
        index, others = np.empty(0, dtype=np.int64), _without_labels(columns)
    if len(index) == len(columns):  # the usual case; avoid copying
        return FittingData(columns.canonical, known, 0)
    labelled = np.arange(len(index) + len(others)) < len(index)
    rows = columns.rows(np.concatenate([index, others]))
    # Some of a query's labels alone would not be a random subset, so drop them.
    quality = np.where(labelled[:, None], rows.quality, np.nan)
    rows = replace(rows, quality=quality, cost=_priced(rows, labelled)).canonical
    return FittingData(rows, rows.complete, int((known & weighed).sum()) - len(index))


def _validate_models(columns: LogArrays) -> None:
    if not columns.models:
        raise AutoMixError("The routing log is empty: there is nothing to fit.")
    if len(columns.models) < 2:  # noqa: PLR2004
        raise AutoMixError(
            f"A policy is fitted to a log of two or more models; this one has "
            f"{len(columns.models)}: {list(columns.models)}."
        )


def _any_check(columns: LogArrays) -> Mask:
    """Return the queries on which the answer of a model other than the last was checked."""
    made = np.zeros(len(columns), dtype=bool)
    for name in (None, *columns.checks):
        check = columns.alone(name)
        for model in range(len(columns.models) - 1):
            made |= check.checked(model)
    return made


def _usable(columns: LogArrays, known: Mask) -> Ints:
    """Return the indices of the known queries that have the checks that most queries have."""
    index = np.flatnonzero(known)
    last = len(columns.models) - 1
    for model in range(last + 1):
        # The last model's answers need no check, so no query is dropped for lacking its first
        # check.
        names = [None, *columns.checks] if model < last else list(columns.checks)
        for name in names:
            rows = columns if len(index) == len(columns) else columns.rows(index)
            index = index[_checked_throughout(rows, model, name)]
    usable: Ints = index[columns.weight[index] > 0]
    return usable


def _checked_throughout(rows: LogArrays, model: int, name: str | None) -> Mask:
    """Return the queries on which a check was made, or all if it mostly was not."""
    check = rows.alone(name)
    checked = check.checked(model)
    if not len(rows) or checked.mean() < 0.5:  # noqa: PLR2004  (it is not used as evidence)
        return np.ones(len(rows), dtype=bool)
    # A few checks that were cut short must not limit all others to their length.
    drawn = (check.verdicts[:, model] != NOT_DRAWN).sum(axis=1)
    enough: Mask = checked & (drawn >= np.quantile(drawn[checked], 0.1, method="lower"))
    return enough


def _without_labels(columns: LogArrays) -> Ints:
    """Return the indices of the queries whose first answer was checked, in a log without labels.

    Raises:
        AutoMixError: There are none, or the cost of a model is unknown everywhere.
    """
    index = np.flatnonzero((columns.weight > 0) & columns.alone(None).checked(0))
    index = index[_checked_throughout(columns.rows(index), 0, None)]
    if not len(index):
        raise AutoMixError(
            "The routing log has no query that all models answered, with quality and cost, and no "
            f"check of an answer of {columns.models[0]}: there is nothing to fit."
        )
    for name, cost in zip(columns.models, columns.cost[index].T, strict=True):
        if np.isnan(cost).all():
            raise AutoMixError(
                "The routing log has no query that all models answered, with quality and cost, "
                f"and none that says what an answer of {name} costs: there is nothing to fit. "
                "One such query is enough for a policy that rests on prior assumptions."
            )
    return index


def _priced(rows: LogArrays, labelled: Mask) -> Floats:
    """Replace the costs of unlabelled queries by the means of the labelled ones.

    Without any labels, only unknown costs are replaced, by the means of the known ones.
    """
    known = np.where(labelled[:, None], rows.cost, np.nan) if labelled.any() else rows.cost
    given = ~np.isnan(known)
    weight = rows.weight[:, None] * given
    means = (weight * np.where(given, known, 0.0)).sum(axis=0) / weight.sum(axis=0)
    priced: Floats = np.where(given, known, means)
    return priced
