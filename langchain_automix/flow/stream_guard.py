"""Know whether anything of a stream was shown yet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from typing_extensions import override

from langchain_automix.errors import DeadlineError


class StreamGuard(BaseCallbackHandler):
    """Knows whether any of an answer that comes token by token was shown: that cannot be undone.

    What was given up before is stopped at its first token, and that is not shown.
    """

    run_inline = True
    raise_error = True

    def __init__(self) -> None:
        self.told = False
        self.when_told: Callable[[], object] = lambda: None
        self._given_up = False
        self._lock = threading.Lock()

    def give_up(self) -> bool:
        """Show nothing from now on; return whether that was in time."""
        with self._lock:
            self._given_up = not self.told
            return self._given_up

    def _tell(self) -> None:
        with self._lock:
            if self._given_up:
                raise DeadlineError("It was given up before anything of it was shown.")
            is_new, self.told = not self.told, True
        if is_new:
            self.when_told()

    @override
    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        said = getattr(chunk, "message", None)
        if str(token or "").strip() or says_something(said):
            self._tell()

    @override
    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        for made in response.generations[:1]:  # who shows tokens may show a whole answer
            if any(says_something(getattr(each, "message", None)) for each in made):
                self._tell()


def says_something(chunk: Any) -> bool:
    """Whether a piece of an answer shows anything; the first and the last often do not."""
    if not isinstance(chunk, BaseMessage):
        return bool(chunk)
    calls = getattr(chunk, "tool_call_chunks", None) or getattr(chunk, "tool_calls", None)
    content = chunk.content.strip() if isinstance(chunk.content, str) else chunk.content
    return bool(content or calls)
