"""Decide which chunks of a stream may be shown, and know whether any was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from typing_extensions import override

from langchain_automix.errors import DeadlineError


class StreamGuard(BaseCallbackHandler):
    """Decides what of a streamed answer is shown, and knows whether any was: that cannot be undone.

    A stream that was given up before is stopped at its first token, and that is not shown.
    """

    run_inline = True
    raise_error = True

    def __init__(self) -> None:
        self.shown = False
        self.when_shown: Callable[[], object] = lambda: None
        self._given_up = False
        self._lock = threading.Lock()

    def give_up(self) -> bool:
        """Show nothing from now on; return whether nothing was shown before."""
        with self._lock:
            self._given_up = not self.shown
            return self._given_up

    def chunks_to_show(self, chunks: Sequence[Any]) -> Sequence[Any]:
        """Return what may be shown now that the last chunk has come.

        What shows nothing is kept back until something is shown: until then, another model may
        yet answer in this one's place.
        """
        if self.shown:
            return chunks[-1:]
        if not shows_something(chunks[-1]):
            return ()
        self.shown = True
        return chunks

    @override
    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        message = getattr(chunk, "message", None)
        if str(token or "").strip() or shows_something(message):
            self._note_shown()

    @override
    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        for generations in response.generations[:1]:  # who shows tokens may show a whole answer
            if any(shows_something(getattr(each, "message", None)) for each in generations):
                self._note_shown()

    def _note_shown(self) -> None:
        with self._lock:
            if self._given_up:
                raise DeadlineError("It was given up before anything of it was shown.")
            is_new, self.shown = not self.shown, True
        if is_new:
            self.when_shown()


def shows_something(chunk: Any) -> bool:
    """Whether a piece of an answer shows anything; the first and the last often do not."""
    if not isinstance(chunk, BaseMessage):
        return bool(chunk)
    calls = getattr(chunk, "tool_call_chunks", None) or getattr(chunk, "tool_calls", None)
    content = chunk.content.strip() if isinstance(chunk.content, str) else chunk.content
    return bool(content or calls)
