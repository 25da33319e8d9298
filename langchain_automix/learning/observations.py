"""Stored queries as numbers: what was seen of each, and how likely it was to be seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from langchain_automix.calibration.label_correction import correct_labels
from langchain_automix.learning.records import AGREEMENT, StoredQuery
from langchain_automix.learning.store.export import measured
from langchain_automix.models.prices import CURRENCY
from langchain_automix.policy.data.arrays import Floats, LogArrays, Mask, to_arrays
from langchain_automix.policy.data.log import RoutingLog

_CHANCE = 3.0
"""Standard deviations by which shadows may fall short of their number by chance alone."""


@dataclass(frozen=True)
class Observations:
    """Queries in the order in which they came; n queries, m models."""

    columns: LogArrays
    """Evidence, costs and qualities; NaN where a model was not asked, or its answer not graded."""

    ids: tuple[str, ...]
    at: Floats
    """(n,): when each query ended, in seconds since 1970."""

    share: Floats
    """(n,): the chance of a shadow, set before each query."""

    asked_all: Mask
    """(n,): whether the query itself asked every model, so that no shadow was needed."""

    own: Mask | None = None
    """(n, m): whether the query itself asked the model; None: each of which anything is known."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def complete(self) -> Mask:
        """(n,): whether quality and cost of every model are known."""
        return self.columns.complete

    @property
    def evidence(self) -> Mask:
        """(n,): whether a policy may be fitted to a query.

        One that had no chance of a shadow is complete only where it asked all models, which is
        where the check found something.
        """
        evidence: Mask = self.complete & (self.share > 0)
        return evidence

    @property
    def has_no_price(self) -> bool:
        """Whether there can be no evidence, because costs are unknown.

        Either answers are graded, and of none of these queries all costs are known; or no cost of
        an answer is known at all, so that no query has a shadow.
        """
        if not len(self) or self.complete.any():
            return False
        is_graded = bool((~np.isnan(self.columns.quality)).all(axis=1).any())
        return is_graded or bool(np.isnan(self.columns.cost).all())

    @property
    def chance(self) -> Floats:
        """(n,): how likely each query was to become complete."""
        return np.where(self.asked_all, 1.0, self.shadowed)

    @cached_property
    def shadowed(self) -> Floats:
        """(n,): the chance that a shadow was drawn and came to its end.

        Some come to none: they fail, or are dropped where there are too many at once. That is
        taken to happen whatever a query is like, and as often as it did.
        """
        asked = ~self.asked_all
        expected, found = float(self.share[asked].sum()), int(self.complete[asked].sum())
        spread = math.sqrt(float((self.share * (1 - self.share))[asked].sum()))
        if expected - found <= _CHANCE * spread:
            return self.share
        return self.share * (max(found, 1) / expected)

    def rows(self, index: Any) -> Observations:
        """Return these queries only."""
        chosen = np.arange(len(self))[index]
        return Observations(
            self.columns.rows(chosen),
            tuple(self.ids[i] for i in chosen),
            self.at[chosen],
            self.share[chosen],
            self.asked_all[chosen],
            None if self.own is None else self.own[chosen],
        )

    def since(self, at: float | None) -> Observations:
        """Return the queries that ended after a time; all of them where it is None."""
        return self if at is None else self.rows(self.at > at)

    @cached_property
    def filled(self) -> LogArrays:
        """The columns with a number for everything, for replays of which only paths are used.

        Costs that are unknown are the means of those that are known; qualities are 0.
        """
        cost, quality = self.columns.cost, self.columns.quality
        known = ~np.isnan(cost)
        means = np.where(known, cost, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        return replace(
            self.columns,
            cost=np.where(known, cost, means),
            quality=np.where(np.isnan(quality), 0.0, quality),
        )


def observations_of(
    models: Sequence[str], stored: Sequence[StoredQuery], leading: str | None = None
) -> Observations:
    """Return stored queries of one epoch as numbers; those that failed or were left are left out.

    Where users or evaluators graded some answers, these grades correct what agreement with the
    largest model says of the others (`calibration.label_correction`).

    Args:
        models: Names of the models, cheap to expensive.
        stored: The queries.
        leading: Of a mix without a check of its own, the one of its checks that is read; it then
            stands alone. A query without it is not complete.
    """
    ended = [each for each in stored if each.query.came_to_its_end]
    ended.sort(key=lambda each: (each.query.at, each.query.id))
    log = RoutingLog(_record(models, each, leading) for each in ended)
    columns = to_arrays(log) if ended else _nothing(len(models))
    agreement = _grades(ended, len(models), from_agreement=True)
    given = _grades(ended, len(models), from_agreement=False)
    quality = correct_labels(agreement, given) if ended else agreement
    own = _own(ended, len(models))
    graded: Mask = np.logical_not(np.isnan(quality).any(axis=1))
    return Observations(
        replace(columns, models=tuple(models), quality=quality),
        tuple(each.query.id for each in ended),
        np.array([each.query.at for each in ended], dtype=np.float64),
        np.array([each.query.share for each in ended], dtype=np.float64),
        _asked_all(ended, own, graded),
        own,
    )


def _nothing(models: int) -> LogArrays:
    none = np.empty((0, models))
    verdicts = np.empty((0, models, 0), dtype=np.int8)
    return LogArrays((), none, none, verdicts, none, none, none, np.empty(0))


def _own(stored: Sequence[StoredQuery], models: int) -> Mask:
    """(n, models): whether the query itself asked a model."""
    own = np.zeros((len(stored), models), dtype=np.bool_)
    for place, each in enumerate(stored):
        own[place, [answer.model for answer in each.query.answers if not answer.is_shadow]] = True
    return own


def _asked_all(stored: Sequence[StoredQuery], own: Mask, graded: Mask) -> Mask:
    """(n,): whether each query asked all models itself, and was graded for that.

    A grader that costs something grades only what is drawn for a shadow: then nothing is certain.
    """
    all_asked: Mask = np.all(own, axis=1)
    undrawn: Mask = all_asked & ~np.array([each.query.is_drawn for each in stored], dtype=np.bool_)
    is_free = not undrawn.any() or graded[undrawn].mean() > 0.5  # noqa: PLR2004  (most)
    return all_asked if is_free else np.zeros_like(all_asked)


def _record(models: Sequence[str], each: StoredQuery, leading: str | None) -> dict[str, Any]:
    found = {answer.model: answer for answer in each.query.answers}
    answers: list[dict[str, Any]] = []
    for index, name in enumerate(models):
        row: dict[str, Any] = {"model": name, "quality": None, "cost": None}
        if (answer := found.get(index)) is not None:
            if leading is not None:
                own = answer.verification or answer.checks.get(leading)
                answer = replace(answer, verification=own, checks={})
            row |= measured(answer)
            if leading is not None and row["verification"] is None and index < len(models) - 1:
                row["cost"] = None  # what a policy would have found, and done, is unknown
        answers.append(row)
    return {"id": each.query.id, "currency": CURRENCY, "answers": answers}


def _grades(stored: Sequence[StoredQuery], models: int, *, from_agreement: bool) -> Floats:
    """Return (n, models) grades of one kind; the latest of each answer, NaN where there is none."""
    grades = np.full((len(stored), models), np.nan)
    for place, each in enumerate(stored):
        for grade in sorted(each.grades, key=lambda grade: grade.at):
            if (grade.source == AGREEMENT) == from_agreement:
                grades[place, grade.model] = grade.quality
    return grades
