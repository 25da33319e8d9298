"""`ScoreBound`: the highest score that an answer can still reach while its tokens arrive."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from langchain_core.messages import AIMessage


class TextToken(NamedTuple):
    """One token of a reply: its text, and its own score."""

    text: bytes
    score: float | None
    """The token's own score; None makes the bound unknown."""

    is_special: bool = False
    """Whether the token marks a turn or an end, and is not part of the text."""


class ScoreBound:
    """Follows an answer as its chunks arrive, and knows the highest score it can still reach.

    Only tokens that are certain to be in the text of the whole answer count. They must spell the
    text received so far, letter by letter. If thoughts arrive as tokens but not as text, or a
    server edits its text, the bound stays unknown for good. White space counts only once more text
    follows, since the end of an answer is stripped.
    """

    def __init__(
        self, read: Callable[[AIMessage], list[TextToken]], *, first_only: bool = False
    ) -> None:
        """Start before the first chunk.

        Args:
            read: Returns the tokens of a chunk.
            first_only: Whether the first token alone makes the score; else the lowest token does.
        """
        self.tokens = 0
        """Number of tokens received, special ones included."""

        self._read, self._first_only = read, first_only
        self._most: float | None = None
        self._text = bytearray()  # from its first letter on
        self._spelled = 0  # bytes of the text that tokens have spelled
        self._sure = 0  # bytes of the text up to its last letter so far
        self._waiting: deque[TextToken] = deque()  # tokens ahead of the text
        self._loose: deque[tuple[int, float]] = deque()  # uncertain: start, score
        self._is_spelled = True

    def add(self, piece: AIMessage) -> float | None:
        """Add a chunk of the answer; return the highest score still possible, or None if unknown.

        The bound never rises, and once known it stays known unless the tokens stop spelling the
        text.
        """
        tokens = self._read(piece)
        self.tokens += len(tokens)
        self._waiting.extend(tokens)
        self._add_text(str(piece.text))
        while self._is_spelled and self._waiting and self._takes(self._waiting[0]):
            self._waiting.popleft()
        while self._loose and self._loose[0][0] < self._sure:
            self._count(self._loose.popleft()[1])
        return self._most if self._is_spelled else None

    def _add_text(self, text: str) -> None:
        if not self._text:
            text = text.lstrip()
        end = len(self._text) + len(text.rstrip().encode(errors="replace"))
        self._text += text.encode(errors="replace")
        if text.strip():
            self._sure = end

    def _takes(self, token: TextToken) -> bool:
        """Whether a token could be consumed; also note whether it fails to spell the text."""
        if token.is_special:
            return True
        text = token.text if self._spelled else token.text.lstrip()
        if not text:  # white space before the answer
            return True
        start, end = self._spelled, self._spelled + len(text)
        known = bytes(self._text[start:end])
        if known != text[: len(known)]:
            self._is_spelled = False
        if len(known) < len(text):
            return False
        if token.score is None:
            self._is_spelled = False
        else:
            self._loose.append((start, token.score))
        self._spelled = end
        return self._is_spelled

    def _count(self, score: float) -> None:
        if self._most is None:
            self._most = score
        elif not self._first_only:
            self._most = min(self._most, score)
