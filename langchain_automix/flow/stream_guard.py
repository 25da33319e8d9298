"""Decide which chunks of a stream may be shown, and track whether any was."""

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
    """Decides which chunks of a streamed answer are shown, and tracks whether any was.

    What has been shown cannot be taken back. A stream that was given up before that is stopped at
    its first token, and the token is not shown.
    """

    run_inline = True
    raise_error = True

    def __init__(self) -> None:
        self.shown = False
        self.when_shown: Callable[[], object] = lambda: None
        self._given_up = False
        self._lock = threading.Lock()

    def give_up(self) -> bool:
        """Show nothing from now on; return whether nothing has been shown so far."""
        with self._lock:
            self._given_up = not self.shown
            return self._given_up

    def chunks_to_show(self, chunks: Sequence[Any]) -> Sequence[Any]:
        """Return the chunks that may be shown, now that the last one has arrived.

        Chunks without visible content are held back until one with content arrives. Until then,
        another model may still answer instead.
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
        for generations in response.generations[:1]:  # readers may show a whole answer
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
    """Whether a chunk has visible content; the first and the last often have none."""
    if not isinstance(chunk, BaseMessage):
        return bool(chunk)
    calls = getattr(chunk, "tool_call_chunks", None) or getattr(chunk, "tool_calls", None)
    content = chunk.content.strip() if isinstance(chunk.content, str) else chunk.content
    return bool(content or calls)
