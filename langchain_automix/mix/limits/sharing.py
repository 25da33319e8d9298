"""What mixes of the same models and the same verifier learn together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from langchain_automix.utils.locks import ProcessLock

T = TypeVar("T")

_LOCK = ProcessLock()
# What is shared lives no longer than its mix and models, so ids are not reused.
_SHARED: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()


def shared(kind: Callable[[], T], models: Sequence[Any], *others: Any) -> T:
    """Return what mixes of these models, and of this verifier and the like, share, of one kind.

    `configurable_fields`, for one, makes a new mix for every query, which must not start anew.
    """
    with _LOCK:
        found: T = _SHARED.setdefault((kind, *map(id, models), *map(id, others)), kind())
        return found
