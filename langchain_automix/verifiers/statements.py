"""Split an answer into statements, and measure the share of their words in a passage."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_LIST_MARK = re.compile(
    r"(?:^[ \t]*(?:[-*\u2022\u2013]|\d{1,3}[.)])|(?<=[.!?:] )\d{1,3}[.)])[ \t]+", re.MULTILINE
)
_SENTENCE_END = re.compile(
    r"(?<=[.!?\u0964\u061f])[\"'\u201d\u2019)\]]*\s+|(?<=[\u3002\uff01\uff1f])|\n+"
)
_NUMBER = r"\d+(?:[.,]\d+)*"
_GROUPED = re.compile(r"\d{1,3}(?:[.,]\d{3})+")
# Thai, Lao, Burmese, Khmer, Kana and Han, which put no spaces between words.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
# An answer that is only one of these states nothing.
_YES_AND_NO = {
    *("yes", "no", "ja", "nein", "oui", "non", "si", "sí", "sim", "não", "nee", "nej"),
    *("tak", "nie", "da", "ne", "ano", "да", "нет"),
}
_STEM = 5
_SHORT = 3
_EXACT_WEIGHT = 3


class Word(NamedTuple):
    """One word of a statement."""

    text: str
    """In lower case; numbers without thousands separators."""

    weight: int
    """3 if it must match exactly (a number, a name), else 1."""


class Passage:
    """The words of a text that may support a statement."""

    def __init__(self, text: str) -> None:
        words = [word for word, _ in _words(text)]
        self._words = frozenset(words)
        self._stems = frozenset(word[:_STEM] for word in words if len(word) >= _STEM)

    def has(self, word: Word) -> bool:
        """Whether the text has the word; for an ordinary word, its first five letters suffice."""
        if word.text in self._words:
            return True
        inflected = word.weight < _EXACT_WEIGHT and len(word.text) >= _STEM
        return inflected and word.text[:_STEM] in self._stems

    def share_of(self, words: Sequence[Word]) -> float:
        """Return the weighted share, in [0, 1], of a statement's words found in the text."""
        found = sum(word.weight for word in words if self.has(word))
        return found / sum(word.weight for word in words)


def statements(text: str, max_statements: int) -> list[str]:
    """Return the sentences of a text that state something; if too many, join neighbours."""
    parts = (part.strip() for part in _SENTENCE_END.split(_LIST_MARK.sub("", text)))
    sentences = [part for part in parts if content_words(part)]
    number = min(max_statements, len(sentences))
    edges = [len(sentences) * i // number for i in range(number + 1)] if number else [0]
    return [" ".join(sentences[a:b]) for a, b in itertools.pairwise(edges)]


def content_words(sentence: str) -> list[Word]:
    """Return the words of a sentence that count; none if it is just a yes or no.

    Numbers and names have weight 3. A name is capitalised but not at the start, or all in capitals.
    Short words without a capital do not count, except in scripts without capitals or without
    spaces, where pairs of letters count as words.
    """
    words: list[Word] = []
    for i, (word, written) in enumerate(_words(sentence)):
        is_name = written[0].isupper() and (i > 0 or (len(written) > 1 and written.isupper()))
        if written[0].isdigit() or is_name:
            words.append(Word(word, _EXACT_WEIGHT))
        elif len(word) > _SHORT or written[0].isupper() or not _has_case(written):
            words.append(Word(word, 1))
    return [] if all(word.text in _YES_AND_NO for word in words) else words


def _words(text: str) -> Iterator[tuple[str, str]]:
    """Yield the words of a text, as compared and as written."""
    for match in _pattern().finditer(unicodedata.normalize("NFKC", text)):
        written = match[0]
        if written[0].isdigit():
            yield _plain_number(written), written
        elif _IS_UNSPACED.match(written):
            yield from ((pair, pair) for pair in _pairs(written))
        else:
            yield written.casefold(), written


@functools.cache
def _pattern() -> re.Pattern[str]:
    # Vowel signs belong to a word, but `\w` does not match them.
    signs = (chr(i) for i in range(0x300, 0x10000) if unicodedata.category(chr(i)) in ("Mn", "Mc"))
    joined = "".join(sign for sign in signs if not _IS_UNSPACED.match(sign))
    letters = rf"[^\W\d_{_UNSPACED}]"
    return re.compile(rf"{_NUMBER}|[{_UNSPACED}]+|{letters}+(?:[{joined}]+{letters}*)*")


def is_pattern_made() -> bool:
    """Whether the word pattern is compiled, which takes about 30 ms, once per process."""
    return _pattern.cache_info().currsize > 0


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]


def _plain_number(written: str) -> str:
    digits = "".join(str(unicodedata.digit(char)) if char.isdigit() else char for char in written)
    return re.sub("[.,]", "", digits) if _GROUPED.fullmatch(digits) else digits.replace(",", ".")


def _has_case(word: str) -> bool:
    return word.lower() != word.upper()
