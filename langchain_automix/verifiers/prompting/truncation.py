"""Shorten a context to fit, keeping what is relevant to the question and the answer."""

from __future__ import annotations

import re
from collections.abc import Callable

_GAP = " [...] "


def truncate_context(context: str, *, relevant_to: str, fits: Callable[[str], bool]) -> str:
    """Return the context shortened to fit, or an empty text if nothing fits.

    Whole sentences are kept in their order. Those that share the most words with `relevant_to` are
    kept first, then earlier ones. Gaps are marked.

    Args:
        context: The text to shorten.
        relevant_to: The question and the answer.
        fits: Whether a text is short enough. If it accepts a text, it must accept every part of it.
    """
    if fits(context):
        return context
    parts = re.split(r"((?<=[.!?])\s+|\n+)", context)
    sentences, spaces = parts[::2], parts[1::2]
    relevant = _words(relevant_to)
    shared = [len(relevant & _words(sentence)) for sentence in sentences]
    ranked = sorted(range(len(sentences)), key=lambda i: (-shared[i], i))

    def kept(count: int) -> str:
        return _join(sentences, spaces, sorted(ranked[:count]))

    # Bisect, since counting tokens is slow.
    low, high = 0, len(sentences) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(kept(middle)) else (low, middle - 1)
    return kept(low) or _head(sentences[ranked[0]], fits)


def _join(sentences: list[str], spaces: list[str], chosen: list[int]) -> str:
    text = ""
    for before, this in zip([-1, *chosen], chosen, strict=False):
        if this > 0:
            text += spaces[before] if this == before + 1 else _GAP
        text += sentences[this]
    if chosen and chosen[-1] < len(sentences) - 1:
        text += _GAP
    return text.strip()


def _head(sentence: str, fits: Callable[[str], bool]) -> str:
    low, high = 0, len(sentence)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(sentence[:middle]) else (low, middle - 1)
    return sentence[:low]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
