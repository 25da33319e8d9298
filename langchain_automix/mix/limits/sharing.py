"""State shared by mixes with the same models and the same verifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from langchain_automix.utils.locks import ProcessLock

T = TypeVar("T")

_LOCK = ProcessLock()
# An entry lives no longer than its mix and models, so ids are not reused.
_SHARED: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()


def shared(kind: Callable[[], T], models: Sequence[Any], *others: Any) -> T:
    """Return the object of a kind that mixes with these models, verifier and so on share.

    `configurable_fields`, for example, makes a new mix for every query, and that mix must not start
    from scratch.
    """
    with _LOCK:
        found: T = _SHARED.setdefault((kind, *map(id, models), *map(id, others)), kind())
        return found
