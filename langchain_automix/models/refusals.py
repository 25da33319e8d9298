"""What servers were found not to do, so that no request asks them for it again."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator
from contextvars import ContextVar
from typing import Any

from langchain_core.runnables import Runnable

from langchain_automix.models.identity import server_key


class Refusals:
    """The servers that were found not to do one thing; shared by all mixes of the process.

    A model without a name is not remembered, for others may have none either.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._servers: set[Hashable] = set()
        self._asks_anew: ContextVar[bool] = ContextVar("automix_asks_anew", default=False)

    def remember(self, model: Runnable[Any, Any]) -> None:
        """Remember that a model's server does not do it."""
        if (key := server_key(model)) is not None:
            self._servers.add(key)

    def knows(self, model: Runnable[Any, Any]) -> bool:
        """Whether a model's server is known not to do it."""
        if not self._servers or self._asks_anew.get():
            return False
        return server_key(model) in self._servers

    def forget(self) -> None:
        """Forget all servers."""
        self._servers.clear()

    @contextlib.contextmanager
    def asking_anew(self) -> Iterator[None]:
        """Forget all servers while the context lasts.

        For whoever recognises calls by their order, such as a journal: a process that remembers
        must make the same calls as one that does not. A refused request costs nothing.
        """
        token = self._asks_anew.set(True)
        try:
            yield
        finally:
            self._asks_anew.reset(token)


LOGPROBS = Refusals()
"""Servers that refuse the field `logprobs`, or send none."""

SEVERAL_REPLIES = Refusals()
"""Servers that refuse `n`, such as Gemini 3's, whose client has the field."""
