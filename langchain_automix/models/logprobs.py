"""The tokens of a reply and their log-probabilities, in the form of any server."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class TokenLogprob(NamedTuple):
    """One token as the server sent it, unvalidated."""

    token: Any
    logprob: Any
    raw: Any
    """Its bytes, if the server sends them."""

    others: list[tuple[Any, Any]]
    """The alternatives in its place, and their log-probabilities."""


def token_logprobs(logprobs: Any) -> Iterator[TokenLogprob]:
    """Yield the tokens of `response_metadata["logprobs"]`, in the form of any server.

    Chats have a list of entries, or `content` with one; completions have parallel lists. The
    alternatives are entries, or a mapping by text. Anything else is skipped.
    """
    if isinstance(logprobs, Mapping) and "token_logprobs" in logprobs:
        texts, own = _list(logprobs.get("tokens")), _list(logprobs["token_logprobs"])
        tops = _list(logprobs.get("top_logprobs")) or [None] * len(own)
        for text, logprob, top in zip(texts, own, tops, strict=False):
            yield TokenLogprob(text, logprob, None, _pairs(top))
        return
    for entry in _list(logprobs.get("content") if isinstance(logprobs, Mapping) else logprobs):
        if isinstance(entry, Mapping):
            others = _pairs(entry.get("top_logprobs"))
            yield TokenLogprob(entry.get("token"), entry.get("logprob"), entry.get("bytes"), others)


def is_known(logprob: Any) -> bool:
    """Whether a log-probability is a number."""
    return isinstance(logprob, int | float) and not math.isnan(logprob)


def _pairs(top: Any) -> list[tuple[Any, Any]]:
    if isinstance(top, Mapping):
        return list(top.items())
    entries = (entry for entry in _list(top) if isinstance(entry, Mapping))
    return [(entry.get("token"), entry.get("logprob")) for entry in entries]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
