"""Shorten a context to what fits, keeping what the question and the answer speak of."""

from __future__ import annotations

import re
from collections.abc import Callable

_GAP = " [...] "


def truncate_context(context: str, *, relevant_to: str, fits: Callable[[str], bool]) -> str:
    """Return the context, shortened so that it fits; the empty string if nothing fits.

    Whole sentences are kept, in their order: those that share the most words with the
    question and the answer first, earlier ones before later ones. A gap is marked.

    Args:
        context: The text to shorten.
        relevant_to: The question and the answer.
        fits: Whether a text is short enough. Must hold for any part of a text that fits.
    """
    if fits(context):
        return context
    parts = re.split(r"((?<=[.!?])\s+|\n+)", context)
    sentences, spaces = parts[::2], parts[1::2]
    wanted = _words(relevant_to)
    shared = [len(wanted & _words(sentence)) for sentence in sentences]
    ranked = sorted(range(len(sentences)), key=lambda i: (-shared[i], i))

    def kept(count: int) -> str:
        return _join(sentences, spaces, sorted(ranked[:count]))

    # Bisect the number of sentences: counting tokens is the slow part.
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
