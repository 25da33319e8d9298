"""Quotes untrusted text in a check, so that it cannot pass for a part of the check.

A draft, a document or a message may contain special tokens of a chat template, which many servers
obey even inside a text, lines that only a check writes, or its verdict. Nothing is removed: the
model sees it all, plainly as text.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Literal, NamedTuple

from langchain_automix.utils.text import MARK, break_template_marks
from langchain_automix.verifiers.prompting.wording import Wording

Quoting = Literal["plain", "json"]
"""How context, question and answer are quoted. `plain`: as they are, except for special tokens of
chat templates and lines that only a check writes. `json`: as JSON strings, which no text can close
from inside, followed by a reminder that they are data."""

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def plain(text: str, wording: Wording) -> str:
    """Return a text with special tokens of chat templates broken and lines of a check quoted.

    Special tokens get a space after their first character, and lines that only a check writes a
    leading `> `, so that a reply which repeats them has no verdict.
    """
    text = break_template_marks(text)
    lines, words = text.splitlines(keepends=True), _check_words(wording)
    loose = _loose(text).split("\n")
    return "".join(
        f"> {line}" if words.match(as_read) else line
        for line, as_read in zip(lines, loose, strict=False)
    )


def as_json(text: str) -> str:
    r"""Return a text as a JSON string on one line, for `json.loads`.

    Invisible characters (zero-width ones, direction marks, line ends) and the first character of a
    special token are written as `\uXXXX`.
    """
    encoded = MARK.sub(lambda mark: _escape(mark[0]), json.dumps(text, ensure_ascii=False))
    return "".join(_escape(c) if unicodedata.category(c) in _INVISIBLE else c for c in encoded)


def can_be_taken_for_a_check(texts: Iterable[str], wording: Wording) -> bool:
    """Whether any text has special tokens of a chat template or lines that only a check writes."""
    return any(plain(text, wording) != text for text in texts)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(rf"\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


class _CheckWords(NamedTuple):
    """The words by which a line is one that only a check writes."""

    label: str
    verdicts: tuple[str, ...]
    begins: re.Pattern[str]

    def match(self, line: str) -> bool:
        # Anywhere after the first label, for a model may tidy what it repeats.
        at = line.find(self.label)
        rest = line[at + len(self.label) :] if at >= 0 else ""
        is_verdict = at >= 0 and any(word in rest for word in self.verdicts)
        return is_verdict or self.begins.match(line) is not None


@functools.lru_cache(maxsize=32)
def _check_words(wording: Wording) -> _CheckWords:
    label, accept, reject, answer, ask = (
        _loose(text).strip()
        for text in (wording.label, wording.accept, wording.reject, wording.answer, wording.ask)
    )
    ask = (
        re.sub(r"^\W+", "", ask) or ask
    )  # a Spanish question begins with a mark that may be missing
    begins = rf"[^\w\n]*(?:{re.escape(answer)}\s?:|{re.escape(ask)})"
    return _CheckWords(label, (accept, reject), re.compile(begins))


_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u2032\xb4", "'"))
_IGNORED = frozenset({"Cf", "Mn"})


def _loose(text: str) -> str:
    """Return a text without what readers overlook: case, accents, letter shapes, word breaks."""
    text = "\n".join(text.splitlines())
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES))
        text = "".join(c for c in text if unicodedata.category(c) not in _IGNORED)
    return re.sub(r"(?:[^\S\n]|[-_\u2010-\u2015])+", " ", text.casefold())
