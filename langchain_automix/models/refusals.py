"""Remember what servers do not support, so that no request asks them for it again."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator
from contextvars import ContextVar
from typing import Any

from langchain_core.runnables import Runnable

from langchain_automix.models.identity import server_key


class Refusals:
    """The servers known not to support one thing; shared by all mixes of the process.

    A model without a name is not remembered, since other models may have no name either.
    """

    def __init__(self) -> None:
        """Start without any known server."""
        self._servers: set[Hashable] = set()
        self._asks_anew: ContextVar[bool] = ContextVar("automix_asks_anew", default=False)

    def remember(self, model: Runnable[Any, Any]) -> None:
        """Remember that a model's server does not support it."""
        if (key := server_key(model)) is not None:
            self._servers.add(key)

    def knows(self, model: Runnable[Any, Any]) -> bool:
        """Whether a model's server is known not to support it."""
        if not self._servers or self._asks_anew.get():
            return False
        return server_key(model) in self._servers

    def forget(self) -> None:
        """Forget all servers."""
        self._servers.clear()

    @contextlib.contextmanager
    def asking_anew(self) -> Iterator[None]:
        """Ignore all known servers until the end of the block.

        This is for callers that identify calls by their order, such as a journal: a process that
        remembers must make the same calls as one that does not. A refused request costs nothing.
        """
        token = self._asks_anew.set(True)
        try:
            yield
        finally:
            self._asks_anew.reset(token)


LOGPROBS = Refusals()
"""Servers that refuse the field `logprobs`, or send none."""

SEVERAL_REPLIES = Refusals()
"""Servers that refuse `n` although their client has the field, such as that of Gemini 3."""
