"""The traffic of a store in stretches of time: cost, quality by source, escalations, shadows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from langchain_automix.learning.estimation import effective_size
from langchain_automix.learning.records import AGREEMENT, StoredQuery
from langchain_automix.policy.statistics import wilson_interval
from langchain_automix.report.timeline.contents import FIRST_MODEL, Graded, Span

_MOST_SPANS = 60
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_LENGTHS = (
    *(1, 5, 15),
    *(minutes * _MINUTE for minutes in (1, 5, 15)),
    *(hours * _HOUR for hours in (1, 3, 6)),
    *(days * _DAY for days in (1, 7, 28, 91, 364)),
)
"""Seconds of a span: the shortest that gives no more than `_MOST_SPANS`."""


def spans_of(stored: Sequence[StoredQuery]) -> tuple[Span, ...]:
    """Return the queries in spans of equal length, without those in which nothing was asked.

    Args:
        stored: The queries, in the order of time; at least one.
    """
    first, last = stored[0].query.at, stored[-1].query.at
    fitting = [n for n in _LENGTHS if last // n - first // n < _MOST_SPANS]
    length = fitting[0] if fitting else int((last - first) / _MOST_SPANS) + 1
    groups = defaultdict[int, list[StoredQuery]](list)
    for each in stored:
        groups[int(each.query.at // length)].append(each)
    return tuple(
        _span(group, place * length, (place + 1) * length) for place, group in groups.items()
    )


def _span(group: Sequence[StoredQuery], start: float, end: float) -> Span:
    queries = [each.query for each in group]
    paid = [(q.cost, q.alone) for q in queries if q.cost is not None and q.alone is not None]
    cost, alone = np.array(paid, dtype=np.float64).reshape(-1, 2).mean(axis=0) if paid else (0, 0)
    answered = [q for q in queries if q.ending == "answered"]
    escalated = [len({a.model for a in q.answers if not a.is_shadow}) > 1 for q in answered]
    return Span(
        start=float(start),
        end=float(end),
        queries=len(queries),
        priced=len(paid),
        cost=float(cost) if paid else None,
        alone=float(alone) if paid else None,
        shadows=sum(each.shadow_cost or 0.0 for each in group),
        escalated=float(np.mean(escalated)) if escalated else None,
        decided=sum(q.stage == "policy" for q in queries) / len(queries),
        shadowed=sum(each.is_shadowed for each in group) / len(queries),
        version=queries[-1].version,
        quality=dict(_qualities(group)),
    )


def _qualities(group: Sequence[StoredQuery]) -> Iterator[tuple[str, Graded]]:
    """Yield the mean quality by source: of what was given, and of the first model's answers."""
    found = defaultdict[str, list[tuple[float, float]]](list)
    for each in group:
        for grade in each.grades:
            weight = _weight(each) if grade.source == AGREEMENT else 1.0
            if weight and grade.model == each.query.kept:
                found[grade.source].append((grade.quality, weight))
            if weight and grade.source == AGREEMENT and grade.model == 0:
                found[FIRST_MODEL].append((grade.quality, weight))
    for source, graded in sorted(found.items()):
        quality, weight = np.array(graded).T
        mean = float(np.clip(quality @ weight / weight.sum(), 0, 1))
        size = max(1, round(effective_size(weight)))
        yield source, Graded(mean, wilson_interval(mean, size), len(graded))


def _weight(each: StoredQuery) -> float:
    """Return by what a grade by agreement counts: the inverse of the chance that it was made.

    A query that had no chance of a shadow is left out, whatever became of it: of its kind, only
    those are graded that were escalated.
    """
    query = each.query
    if query.share <= 0:
        return 0.0
    asked = {answer.model for answer in query.answers if not answer.is_shadow}
    models = {answer.model for answer in query.answers} | {grade.model for grade in each.grades}
    return 1.0 if len(asked) == len(models) and not query.is_drawn else 1 / query.share
