"""Issue warnings that point at the user's own line of code, however deep they are raised."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from types import FrameType

# Modules between the user's line and this package: chains, agents, validation, event loops.
_BETWEEN = frozenset(
    {
        *("langchain_automix", "langchain_core", "langchain", "langgraph", "langsmith"),
        *("pydantic", "functools", "contextlib", "contextvars", "asyncio", "concurrent"),
        *("threading", "typer", "click"),
    }
)
_LINE: ContextVar[tuple[str, int] | None] = ContextVar("automix_users_line", default=None)


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line that belongs neither to this package nor to its surroundings.

    A thread has no such line, so the warning then names the line kept by `keeping_users_line`, or
    else the line that warns.
    """
    frame = sys._getframe(1)  # noqa: SLF001  (as `warnings` itself does)
    found = _users_frame(frame)
    if found is None and (line := _LINE.get()) is not None:
        warnings.warn_explicit(message, category, *line)
        return
    level, each = 2, frame
    while found is not None and each is not found and each.f_back is not None:
        level, each = level + 1, each.f_back
    warnings.warn(message, category, stacklevel=level)


def warn_of_what_is_paid(message: str, category: type[Warning]) -> None:
    """Warn as `warn_user` does, but never raise.

    Turned into an error (`-W error`), the warning would replace an answer that has been paid for.
    """
    with contextlib.suppress(category):
        warn_user(message, category)


@contextlib.contextmanager
def keeping_users_line() -> Iterator[None]:
    """Make warnings from threads name the user's line that leads here, within the block."""
    found = _users_frame(sys._getframe(2))  # noqa: SLF001
    if found is None:
        yield
        return
    token = _LINE.set((found.f_code.co_filename, found.f_lineno))
    try:
        yield
    finally:
        _LINE.reset(token)


def _users_frame(frame: FrameType | None) -> FrameType | None:
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _BETWEEN:
            return frame
        frame = frame.f_back
    return None
