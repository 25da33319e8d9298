"""Convert values of other libraries, and values written as text, to plain Python."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

_CONVERSIONS = ("as_py", "to_pylist", "tolist", "to_list")  # of Arrow, numpy and polars
_LONGEST_LITERAL = 1_000_000


def to_plain(value: Any) -> Any:
    """Convert a value of numpy, Arrow, pandas or polars to plain Python, at any depth."""
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
    """Return the list or object that Python wrote as a text, or None if that is uncertain.

    `['a' 'b']` is uncertain: in numpy it means two texts, in Python one.
    """
    text = text.strip()
    if not text.startswith(("[", "{")) or len(text) > _LONGEST_LITERAL:
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list | dict) and repr(value) == text else None
