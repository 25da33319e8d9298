"""LangSmith's filter language, as far as tests use it: `and(eq(name, "x"), has(tags, "y"))`."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

Record = dict[str, Any]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
_WORDS = {"true": True, "false": False, "null": None}


def matches(text: str, run: Record, feedback: list[Record]) -> bool:
    """Whether a run is one that the filter asks for; an error for what is not known here."""
    # They read as calls in Python once and, or, not and in are no words of its own.
    tree = ast.parse(re.sub(r"\b(and|or|not|in)\(", r"\1_(", text), mode="eval").body
    return any(_holds(tree, view) for view in _views(run, feedback))


def _views(run: Record, feedback: list[Record]) -> Iterator[Record]:
    """The run with each of its pairs of metadata and of feedback: both hold of the same pair."""
    metadata = (run.get("extra") or {}).get("metadata") or {}
    given = [each for each in feedback if each.get("run_id") == run["id"]]
    for key, value in [*metadata.items(), (None, None)]:
        for score in [*given, {}]:
            yield {
                **run,
                "metadata": metadata,
                "metadata_key": key,
                "metadata_value": value,
                "feedback_key": score.get("key"),
                "feedback_score": score.get("score"),
            }


def _holds(node: ast.expr, run: Record) -> bool:
    assert isinstance(node, ast.Call), ast.dump(node)
    assert isinstance(node.func, ast.Name), ast.dump(node)
    name = node.func.id
    if name in {"and_", "or_"}:
        return (all if name == "and_" else any)(_holds(each, run) for each in node.args)
    if name == "not_":
        return not _holds(node.args[0], run)
    field, wanted = node.args
    assert isinstance(field, ast.Name), ast.dump(field)
    found = run.get(field.id)
    value = _value(wanted)
    if name == "has":
        return _has(found or (), value)
    if name == "in_":
        return found in value
    if name in {"gt", "gte", "lt", "lte"} and found is None:
        return False
    return _COMPARE[name](_like(found, value), value)


def _has(found: Any, value: str) -> bool:
    """Of tags: one of them; of metadata: a JSON object whose pairs all stand in it."""
    if not isinstance(found, dict):
        return value in found
    return all(key in found and found[key] == wanted for key, wanted in json.loads(value).items())


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return _WORDS[node.id]
    return ast.literal_eval(node)


def _like(found: Any, value: Any) -> Any:
    """A text of metadata is compared as text, whatever it was sent as."""
    return json.dumps(found) if isinstance(value, str) and not isinstance(found, str) else found
