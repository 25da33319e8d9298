"""JSON found in a text, and when two values are the same."""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any

_FENCED = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.DOTALL)


def find_json(text: str, **parsers: Any) -> tuple[Any] | None:
    """Return the JSON value that a text holds, in a tuple of one; None if it holds none.

    JSON in a fenced block is read, too. NaN and Infinity are no JSON.

    Args:
        text: The text.
        **parsers: How `json.loads` reads numbers (`parse_int`, `parse_float`).
    """
    fenced = _FENCED.findall(text)
    for candidate in (text, *fenced[-1:]):
        try:
            return (json.loads(candidate, parse_constant=_refuse_constant, **parsers),)
        except (ValueError, RecursionError, InvalidOperation):
            continue
    return None


def json_value(text: str) -> tuple[Any] | None:
    """Return the JSON value that a text holds, to be compared by `same_json`; None if none."""
    # Numbers in a tuple, which JSON has not: True would equal 1.
    return find_json(text, parse_int=_number, parse_float=_number)


def same_json(one: tuple[Any], other: tuple[Any]) -> bool:
    """Whether two values of `json_value` are the same; not so where they are too deep to tell."""
    try:
        return one == other
    except RecursionError:
        return False


def _number(text: str) -> tuple[Decimal]:
    return (Decimal(text),)


def _refuse_constant(constant: str) -> Any:
    raise ValueError(constant)
