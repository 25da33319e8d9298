"""Values of other libraries, and those written as text, as plain Python."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

_CONVERSIONS = ("as_py", "to_pylist", "tolist", "to_list")  # Arrow's, numpy's, polars'
_LONGEST_LITERAL = 1_000_000


def to_plain(value: Any) -> Any:
    """Return a value of numpy, Arrow, pandas or polars as plain Python, however deep it is."""
    if isinstance(value, Mapping):
        return {key: to_plain(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(to_plain, value))
    for name in _CONVERSIONS:
        convert = None if isinstance(value, type) else getattr(value, name, None)
        if callable(convert):
            plain = convert()
            return plain if type(plain) is type(value) else to_plain(plain)
    return value


def python_value(text: str) -> Any:
    """Return the list or object that Python wrote as a text; None where that is not certain.

    `['a' 'b']` is not: numpy means two texts by it, and Python one.
    """
    text = text.strip()
    if not text.startswith(("[", "{")) or len(text) > _LONGEST_LITERAL:
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list | dict) and repr(value) == text else None
