"""Read the tokens of a reply and their log-probabilities, in the format of any server."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from langchain_automix.models.failures import status_of
from langchain_automix.models.wrappers import unwrap


class TokenLogprob(NamedTuple):
    """One token as the server sent it, unvalidated."""

    token: Any
    logprob: Any
    raw: Any
    """Its bytes, if the server sends them."""

    top: Any = None
    """The alternatives at its position, as sent."""

    @property
    def others(self) -> list[tuple[Any, Any]]:
        """The alternatives at its position, with their log-probabilities."""
        return _pairs(self.top)


def token_logprobs(logprobs: Any) -> Iterator[TokenLogprob]:
    """Yield the tokens of `response_metadata["logprobs"]`, in the format of any server.

    Chat completions have a list of entries, or a `content` with one; older completions have
    parallel lists. Alternatives are entries, or a mapping by text. Anything else is skipped.
    """
    if isinstance(logprobs, Mapping) and "token_logprobs" in logprobs:
        texts, own = _list(logprobs.get("tokens")), _list(logprobs["token_logprobs"])
        tops = _list(logprobs.get("top_logprobs")) or [None] * len(own)
        for text, logprob, top in zip(texts, own, tops, strict=False):
            yield TokenLogprob(text, logprob, None, top)
        return
    for entry in _list(logprobs.get("content") if isinstance(logprobs, Mapping) else logprobs):
        if isinstance(entry, (dict, Mapping)):  # checking for a dict is fast
            get = entry.get
            yield TokenLogprob(get("token"), get("logprob"), get("bytes"), get("top_logprobs"))


def is_known(logprob: Any) -> bool:
    """Whether a log-probability is a number."""
    return isinstance(logprob, (int, float)) and not math.isnan(logprob)


def _pairs(top: Any) -> list[tuple[Any, Any]]:
    if isinstance(top, Mapping):
        return list(top.items())
    entries = (entry for entry in _list(top) if isinstance(entry, Mapping))
    return [(entry.get("token"), entry.get("logprob")) for entry in entries]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# OpenAI refuses them for some models with 403; other servers reject the field as unknown.
_REFUSALS = frozenset({400, 403, 422, 501})


def may_refuse_logprobs(error: BaseException) -> bool:
    """Whether a request may have been refused for its field `logprobs`; then it cost nothing."""
    return status_of(error) in _REFUSALS and not isinstance(error, ContextOverflowError)


def refuses_logprobs(error: BaseException) -> bool:
    """Whether a request was refused because of its field `logprobs` and nothing else."""
    return may_refuse_logprobs(error) and "logprob" in str(error).lower()


def asks_for_logprobs(model: Runnable[Any, Any]) -> bool:
    """Whether the user's own model requests log-probabilities, by a field or a bound argument."""
    chat_model, bound = unwrap(model)
    return bool(getattr(chat_model, "logprobs", None) or bound.get("logprobs"))


def without_logprobs(message: AIMessage) -> AIMessage:
    """Return a message without log-probabilities, which are many times as long as its text."""
    metadata = message.response_metadata
    if metadata.get("logprobs") is None:
        return message
    kept = {name: None if name == "logprobs" else value for name, value in metadata.items()}
    return message.model_copy(update={"response_metadata": kept})
