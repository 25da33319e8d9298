"""Records as rows of the tables, and rows as records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any, TypeVar

from sqlalchemy import Row

from langchain_automix.learning.records import (
    AnswerRecord,
    Event,
    GradeRecord,
    PolicyVersion,
    QueryRecord,
    RequestRecord,
    ShadowRecord,
    StoredQuery,
)

T = TypeVar("T", AnswerRecord, RequestRecord)

_OF_A_CHECK = ("verdicts", "score", "fixed_cost", "sample_cost", "cost")
"""What is kept of a check, as in a routing log; what else it says may quote a prompt."""

_DEFAULTS = {
    kind: {f.name: None if f.default is MISSING else f.default for f in fields(kind)}
    for kind in (AnswerRecord, RequestRecord)
}
_REQUIRED = {
    kind: {f.name: None for f in fields(kind) if f.default is f.default_factory is MISSING}
    for kind in (AnswerRecord, RequestRecord)
}


def query_row(query: QueryRecord) -> dict[str, Any]:
    """Return the row of a query, without the number of its change.

    Raises:
        TypeError, ValueError: It cannot be stored.
    """
    return {
        "id": str(query.id),
        "epoch": str(query.epoch),
        "at": float(query.at),
        "version": int(query.version),
        "stage": str(query.stage),
        "kept": _int(query.kept),
        "share": float(query.share),
        "is_drawn": bool(query.is_drawn),
        "ending": str(query.ending),
        "cost": _float(query.cost),
        "alone": _float(query.alone),
        "run_id": None if query.run_id is None else str(query.run_id),
        "confidence": _float(query.confidence),
        "seconds": _float(query.seconds),
        "answers": _many(query.answers),
        "requests": _many(query.requests),
        "texts": _json(query.texts),
    }


def shadow_row(shadow: ShadowRecord) -> dict[str, Any]:
    """Return the row of a shadow."""
    return {
        "query_id": str(shadow.query_id),
        "at": float(shadow.at),
        "cost": _float(shadow.cost),
        "answers": _many(shadow.answers),
        "requests": _many(shadow.requests),
        "texts": _json(shadow.texts),
    }


def grade_row(grade: GradeRecord) -> dict[str, Any]:
    """Return the row of a grade."""
    quality = float(grade.quality)
    if not 0 <= quality <= 1:
        raise ValueError(f"the quality of a grade lies in [0, 1], not at {quality}")
    return {
        "query_id": str(grade.query_id),
        "model": int(grade.model),
        "source": str(grade.source),
        "quality": quality,
        "at": float(grade.at),
    }


def event_row(event: Event) -> dict[str, Any]:
    """Return the row of an event."""
    row = {
        "at": float(event.at),
        "epoch": str(event.epoch),
        "kind": str(event.kind),
        "text": str(event.text),
        "detail": json.dumps(dict(event.detail)),
    }
    return {"digest": hashlib.sha256(json.dumps(row).encode()).hexdigest(), **row}


def version_row(version: PolicyVersion) -> dict[str, Any]:
    """Return the row of a version, without its number."""
    return {
        "epoch": version.epoch,
        "at": float(version.at),
        "policy": version.policy,
        "status": version.status,
        "why": version.why,
        "parent": int(version.parent),
        "labels": int(version.labels),
        "since": _float(version.since),
        "judged": json.dumps(dict(version.judged)),
    }


def stored_query(
    row: Row[Any], shadow: Row[Any] | None, grades: Sequence[GradeRecord]
) -> StoredQuery:
    """Return a query with its shadow and grades."""
    values = dict(row._mapping)  # noqa: SLF001  (public, as its documentation says)
    del values["changed"]
    sources = [row] if shadow is None else [row, shadow]
    values["answers"] = _merged(a for each in sources for a in _read(AnswerRecord, each.answers))
    values["requests"] = tuple(r for each in sources for r in _read(RequestRecord, each.requests))
    texts = [json.loads(each.texts) for each in sources if each.texts is not None]
    values["texts"] = {name: text for each in reversed(texts) for name, text in each.items()}
    values["texts"] = values["texts"] if texts else None
    return StoredQuery(
        QueryRecord(**values),
        tuple(grades),
        shadow_cost=None if shadow is None else shadow.cost,
        is_shadowed=shadow is not None,
    )


def _merged(answers: Iterable[AnswerRecord]) -> tuple[AnswerRecord, ...]:
    """Return one answer of each model: a shadow may have checked one that the query had asked."""
    found: dict[int, AnswerRecord] = {}
    for each in answers:
        if (asked := found.setdefault(each.model, each)) is not each:
            found[each.model] = replace(asked, verification=each.verification, checks=each.checks)
    return tuple(found[model] for model in sorted(found))


def version_of(row: Row[Any]) -> PolicyVersion:
    """Return the version of a row."""
    values = dict(row._mapping)  # noqa: SLF001
    return PolicyVersion(**{**values, "judged": json.loads(values["judged"])})


def event_of(row: Row[Any]) -> Event:
    """Return the event of a row."""
    return Event(row.at, row.epoch, row.kind, row.text, json.loads(row.detail))


def _many(records: Sequence[AnswerRecord | RequestRecord]) -> str:
    return json.dumps([_values(record) for record in records], separators=(",", ":"))


def _values(record: AnswerRecord | RequestRecord) -> dict[str, Any]:
    """Return the fields that differ from their defaults, so that rows are short."""
    found = {
        name: value
        for name, default in _DEFAULTS[type(record)].items()
        if (value := getattr(record, name)) != default
    }
    if "verification" in found:
        found["verification"] = _checked(found["verification"])
    if checks := found.pop("checks", None):
        found["checks"] = {name: _checked(check) for name, check in checks.items()}
    return found


def _checked(check: Mapping[str, Any]) -> dict[str, Any]:
    return {name: check[name] for name in _OF_A_CHECK if name in check}


def _read(kind: type[T], text: str) -> list[T]:
    known, required = _DEFAULTS[kind], _REQUIRED[kind]
    return [
        kind(**{**required, **{name: value for name, value in each.items() if name in known}})
        for each in json.loads(text)
    ]


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(dict(value))


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _int(value: int | None) -> int | None:
    return None if value is None else int(value)
