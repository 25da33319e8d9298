"""Rows of the demo, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_automix.local.demo.measuring import Answered, Checked, Row, Spent


def row_dict(row: Row) -> dict[str, Any]:
    """Return a row as plain values."""
    question = row.question
    return {
        "id": question.id,
        "kind": question.kind,
        "part": row.part,
        "question": question.question,
        "references": list(question.references),
        "small": _answer_dict(row.small),
        "large": _answer_dict(row.large),
        "checks": {name: _check_dict(each) for name, each in row.checks.items()},
        "automix": dict(row.record) or None,
        "final": {"answer": row.final.text, "correct": row.final.correct},
    }


def _check_dict(checked: Checked) -> Mapping[str, Any]:
    return {
        "verdicts": list(checked.found.verdicts),
        "confidence": checked.found.confidence,
        **_spent_dict(checked.spent),
    }


def _answer_dict(answered: Answered) -> dict[str, Any]:
    return {"answer": answered.text, "correct": answered.correct, **_spent_dict(answered.spent)}


def _spent_dict(spent: Spent) -> dict[str, Any]:
    return {
        "seconds": round(spent.seconds, 3),
        "tokens_in": spent.tokens_in,
        "tokens_out": spent.tokens_out,
    }
