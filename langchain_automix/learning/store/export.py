"""The queries of a store as the lines of a routing log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from langchain_automix.learning.records import (
    AGREEMENT,
    AnswerRecord,
    Event,
    GradeRecord,
    PolicyVersion,
    StoredQuery,
)
from langchain_automix.models.prices import CURRENCY


def model_names(
    versions: Sequence[PolicyVersion], events: Sequence[Event], width: int
) -> tuple[str, ...]:
    """Return the names of an epoch's models, as far as the store knows them.

    They are in the event that began the epoch, and in every policy; without any, they are
    numbered.
    """
    told = [event.detail.get("models") for event in events if event.kind == "epoch"]
    told += [json.loads(version.policy).get("models") for version in versions]
    for names in reversed(told):
        if isinstance(names, list | tuple) and len(names) >= max(1, width):
            return tuple(map(str, names))
    return tuple(f"model {place}" for place in range(1, width + 1))


def line(stored: StoredQuery, names: Sequence[str], source: str | None) -> dict[str, Any]:
    """Return a query as a line of a routing log; what is not known is null."""
    query = stored.query
    answers = {answer.model: answer for answer in query.answers}
    return {
        "id": query.id,
        "answers": [
            _answer(name, answers.get(model), _quality(model, stored.grades, source))
            for model, name in enumerate(names)
        ],
        "currency": CURRENCY,
        "metadata": {
            "at": query.at,
            "policy_version": query.version,
            "stage": query.stage,
            "kept": query.kept,
            "share": query.share,
            "is_drawn": query.is_drawn,
        },
    }


def _answer(name: str, answer: AnswerRecord | None, quality: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {"model": name, "quality": quality, "cost": None}
    if answer is not None:
        found["cost"] = answer.cost
        found["verification"] = answer.verification
        found["checks"] = dict(answer.checks)
    return found


def _quality(model: int, grades: Sequence[GradeRecord], source: str | None) -> float | None:
    """Return the latest grade of an answer: that of people or judges, where there is one."""
    of_it = [grade for grade in grades if grade.model == model]
    if source is not None:
        of_it = [grade for grade in of_it if grade.source == source]
    best = sorted(of_it, key=lambda grade: (grade.source != AGREEMENT, grade.at))
    return best[-1].quality if best else None
