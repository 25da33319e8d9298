"""JSON-schema validators that give up on a value that takes too long to compare.

A schema may come from a client, and the value from a model that does as the client says. A pattern
such as `(a+)+$` then practically never ends, and neither do definitions that each refer to the next
one twice. Meanwhile no other thread runs, since Python's `re` keeps the interpreter's lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from typing import Any

import regex
from jsonschema.exceptions import ValidationError
from jsonschema.validators import Draft202012Validator, extend, validator_for
from referencing import Registry

_MOST_PARTS = 20_000
"""Objects and lists that a schema may have."""

_MOST_STEPS = 50_000
"""Keywords that may be looked at for one value; each takes about 10 microseconds."""

_PATTERN_SECONDS = 0.1
"""How long all searches for patterns may take for one value."""

_UNEVALUATED = {"unevaluatedProperties", "unevaluatedItems"}
_UNCOUNTED = {"patternProperties", "dependentSchemas"}
"""Keywords that jsonschema follows on its own for the keywords above."""


class SchemaTooCostlyError(Exception):
    """A value takes too long to be compared with a schema."""


def schema_errors(value: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    """Yield where a value does not fit a JSON schema.

    Raises:
        SchemaTooCostlyError: That takes too long to find out.
        Exception: The schema is invalid or refers to another one; the type of the error varies.
    """
    _check_parts(schema)
    kind = validator_for(schema, default=Draft202012Validator)
    kind.check_schema(dict(schema))
    own = {name: part for name, part in schema.items() if name != "$schema"}  # `kind` follows it
    token = _BUDGET.set(_Budget())
    try:
        # The default registry would fetch the target of a `$ref`; an empty one fetches nothing.
        yield from list(_bounded(kind)(own, registry=Registry()).iter_errors(value))
    finally:
        _BUDGET.reset(token)


class _Budget:
    """What may still be done for one value."""

    def __init__(self) -> None:
        self._steps, self._seconds = _MOST_STEPS, _PATTERN_SECONDS

    def take_step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise SchemaTooCostlyError(f"it takes more than {_MOST_STEPS:,} steps")

    def finds(self, pattern: str, text: str) -> bool:
        began = time.monotonic()
        try:
            return regex.search(pattern, text, timeout=max(self._seconds, 1e-6)) is not None
        except TimeoutError as error:
            raise SchemaTooCostlyError(f"a pattern takes more than {_PATTERN_SECONDS} s") from error
        finally:
            self._seconds -= time.monotonic() - began


_BUDGET: ContextVar[_Budget] = ContextVar("automix_schema_budget")


def _check_parts(schema: Mapping[str, Any]) -> None:
    """Refuse a schema that is too large, or of which a part would be validated without a budget.

    Raises:
        SchemaTooCostlyError: It is such a schema.
    """
    waiting: list[Any] = [schema]
    seen, names = 0, set[str]()
    while waiting:
        part = waiting.pop()
        seen += 1
        if seen > _MOST_PARTS:
            raise SchemaTooCostlyError(f"it has more than {_MOST_PARTS:,} parts")
        if isinstance(part, Mapping):
            if part is not schema and isinstance(part.get("$schema"), str):
                raise SchemaTooCostlyError("a part of it has a $schema of its own")
            names |= part.keys()
            part = part.values()
        waiting.extend(each for each in part if isinstance(each, Mapping | list | tuple))
    if names & _UNEVALUATED and names & _UNCOUNTED:
        used = ", ".join(sorted(names & (_UNEVALUATED | _UNCOUNTED)))
        raise SchemaTooCostlyError(f"it has all of {used}")


@cache
def _bounded(kind: Any) -> Any:
    """Return a class of validators that take every step out of the present budget."""
    keywords = {**kind.VALIDATORS, "pattern": _pattern}
    if "patternProperties" in keywords:
        keywords |= {"patternProperties": _pattern_properties}
        keywords |= {"additionalProperties": _additional_properties(kind)}
    counted = {name: _counted(keyword) for name, keyword in keywords.items()}
    return extend(kind, counted)  # type: ignore[no-untyped-call]


Keyword = Callable[[Any, Any, Any, Any], Any]


def _counted(keyword: Keyword) -> Keyword:
    def check(validator: Any, wanted: Any, instance: Any, schema: Any) -> Any:
        _BUDGET.get().take_step()
        return keyword(validator, wanted, instance, schema)

    return check


def _pattern(validator: Any, pattern: str, instance: Any, _: Any) -> Iterator[ValidationError]:
    is_text = validator.is_type(instance, "string")
    if is_text and not _BUDGET.get().finds(pattern, instance):
        yield ValidationError("The text does not match the pattern.")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, _: Any
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, subschema in patterns.items():
        for name, value in instance.items():
            if _BUDGET.get().finds(pattern, name):
                yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(kind: Any) -> Keyword:
    """Return the keyword as `kind` has it, for what no pattern of the schema matches."""

    def check(validator: Any, wanted: Any, instance: Any, schema: Any) -> Any:
        patterns = schema.get("patternProperties") or {}
        if patterns and validator.is_type(instance, "object"):
            finds = _BUDGET.get().finds
            instance = {
                name: value
                for name, value in instance.items()
                if not any(finds(pattern, name) for pattern in patterns)
            }
            schema = {name: part for name, part in schema.items() if name != "patternProperties"}
        return kind.VALIDATORS["additionalProperties"](validator, wanted, instance, schema)

    return check
