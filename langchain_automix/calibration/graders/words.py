"""Compare words, including words in scripts that put no spaces between them."""

from __future__ import annotations

import re
import unicodedata

from langchain_automix.utils.text import UNSPACED

_UNSPACED = re.compile(f"[{UNSPACED}]")
# Word ends in Thai, Lao, Burmese and Khmer are uncertain without a dictionary: short words may be
# parts of others.
_SYLLABIC = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_HANGUL = re.compile("[\uac00-\ud7af]")
_SHORTEST, _SHORTEST_SYLLABIC = 2, 4
# fmt: off
_PARTICLES = frozenset({
    "은", "는", "이", "가", "을", "를", "의", "에", "에서", "에게", "로", "으로", "와", "과", "도",
    "만", "까지", "부터", "이다", "다", "입니다", "이에요", "예요", "이고", "인", "라고", "이라고",
})
# fmt: on


def split_words(text: str) -> list[str]:
    """Return the words of a text; in a script without spaces, its characters."""
    return _UNSPACED.sub(lambda match: f" {match[0]} ", text).split()


def holds_words(text: str, words: str) -> bool | None:
    """Return whether a text contains some words as whole words; None if this is uncertain."""
    is_unknown = False
    start = text.find(words)
    while start >= 0:
        is_whole = _is_whole(text, start, start + len(words))
        if is_whole:
            return True
        is_unknown = is_unknown or is_whole is None
        start = text.find(words, start + 1)
    return None if is_unknown else False


def _is_whole(text: str, start: int, end: int) -> bool | None:
    """Return whether a part of a text begins and ends at word boundaries; None if uncertain."""
    bounds = (_is_bound(text, start), _is_bound(text, end))
    if False in bounds:
        return False
    if None not in bounds:
        return True
    part = text[start:end]
    if _HANGUL.match(part[-1]):
        ending = re.compile(r"\w*").match(text, end)
        is_known = ending is not None and ending[0] in _PARTICLES
        return True if bounds[0] and is_known else None
    shortest = _SHORTEST_SYLLABIC if _SYLLABIC.search(part) else _SHORTEST
    return True if len(part) >= shortest else None


def _is_bound(text: str, place: int) -> bool | None:
    """Return whether a word begins or ends at a place; None if this is uncertain."""
    left, right = text[place - 1 : place] if place else "", text[place : place + 1]
    if not left or not right or left.isspace() or right.isspace():
        return True
    if unicodedata.category(right).startswith("M"):
        return False  # within a syllable
    if all(unicodedata.numeric(c, None) is not None for c in (left, right)):
        return False  # within a number
    if _UNSPACED.match(left) or _UNSPACED.match(right):
        return None if _UNSPACED.match(left) and _UNSPACED.match(right) else True
    if _HANGUL.match(right):  # a particle is written without a space
        return None if _HANGUL.match(left) else True
    return False
