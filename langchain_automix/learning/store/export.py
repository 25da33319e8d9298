"""The queries of a store as the lines of a routing log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    told += [json.loads(each.policy).get("models") for each in versions if each.policy]
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
    return found if answer is None else {**found, **measured(answer)}


def measured(answer: AnswerRecord) -> dict[str, Any]:
    """Return what is known of an answer as in a routing log.

    There, checks have a cost. Where that of one is unknown, that of the answer is, too: a policy
    could not tell what it comes to.
    """
    checks = [answer.verification, *answer.checks.values()]
    is_priced = all(_is_priced(check) for check in checks if check is not None)
    return {
        "cost": answer.cost if is_priced else None,
        "verification": _without_unknown(answer.verification),
        "checks": {name: _without_unknown(check) for name, check in answer.checks.items()},
    }


def _is_priced(check: Mapping[str, Any]) -> bool:
    return None not in [value for name, value in check.items() if name.endswith("cost")]


def _without_unknown(check: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if check is None:
        return None
    return {k: v for k, v in check.items() if v is not None or not k.endswith("cost")}


def _quality(model: int, grades: Sequence[GradeRecord], source: str | None) -> float | None:
    """Return the latest grade of an answer: that of people or judges, where there is one."""
    of_it = [grade for grade in grades if grade.model == model]
    if source is not None:
        of_it = [grade for grade in of_it if grade.source == source]
    best = sorted(of_it, key=lambda grade: (grade.source != AGREEMENT, grade.at))
    return best[-1].quality if best else None
