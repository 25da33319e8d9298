"""JSON values: find them in texts, compare them, and check that they survive a round trip."""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any

_FENCED = re.compile(r"```[^`\n]*\n(.*?)```", re.DOTALL)


def find_json(text: str, **parsers: Any) -> tuple[Any] | None:
    """Return the JSON value of a text or its last fenced block, in a tuple; None if there is none.

    NaN and Infinity are not accepted. `parsers` are passed to `json.loads`, such as `parse_int`.
    """
    text = text.removeprefix("\ufeff")
    fenced = _FENCED.findall(text)
    for candidate in (text, *fenced[-1:]):
        try:
            return (json.loads(candidate, parse_constant=_refuse_constant, **parsers),)
        except (ValueError, RecursionError, InvalidOperation):
            continue
    return None


def json_value(text: str) -> tuple[Any] | None:
    """Return the JSON value of a text, for use with `same_json`; None if there is none."""
    # Wrap numbers in tuples, which JSON does not have, since True would equal 1.
    return find_json(text, parse_int=_number, parse_float=_number)


def same_json(one: tuple[Any], other: tuple[Any]) -> bool:
    """Whether two values of `json_value` are equal; False if they are nested too deeply."""
    try:
        return one == other
    except RecursionError:
        return False


def json_copy(value: Any) -> tuple[Any] | None:
    """Return a value after a JSON round trip, in a tuple, or None if the round trip changes it."""
    try:
        copy = json.loads(json.dumps(value, allow_nan=False))
        is_same = copy == value
    except (TypeError, ValueError, RecursionError):
        return None
    return (copy,) if is_same else None


def _number(text: str) -> tuple[Decimal]:
    return (Decimal(text),)


def _refuse_constant(constant: str) -> Any:
    raise ValueError(constant)
