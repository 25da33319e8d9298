"""Untrusted text in a check: shown so that it cannot pass for a part of the check itself.

A draft, a document or a message may hold what looks like a part of the check: the marks of a chat
template, which many servers read as such even in the middle of a text, the lines that only a
check writes, or its verdict. None of it is taken away: the model sees it, in a form that is plainly
text.
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
"""How context, question and answer stand in a check. `plain`: as they are, but for the marks of
chat templates and the lines that only a check writes. `json`: as JSON strings, which no text can
close from inside, with a reminder behind them that they are data."""

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def plain(text: str, wording: Wording) -> str:
    """Return a text as it is, unless it holds marks of a chat template or lines of a check.

    A mark gets a space behind its first character, which breaks it; a line that only a check
    writes is quoted with `> `, so that a reply which repeats it holds no verdict.
    """
    text = break_template_marks(text)
    lines, words = text.splitlines(keepends=True), _words_of_a_check(wording)
    loose = _loose(text).split("\n")
    return "".join(
        f"> {line}" if words.are_in(as_read) else line
        for line, as_read in zip(lines, loose, strict=False)
    )


def as_json(text: str) -> str:
    r"""Return a text as a JSON string on one line, which `json.loads` turns back.

    What is not seen (zero-width characters, marks of direction, line ends) stands as `\uXXXX`,
    and so does the first character of a chat template's mark.
    """
    shown = json.dumps(text, ensure_ascii=False)
    shown = MARK.sub(lambda mark: _escaped(mark[0]), shown)
    return "".join(_escaped(c) if unicodedata.category(c) in _INVISIBLE else c for c in shown)


def can_be_taken_for_a_check(texts: Iterable[str], wording: Wording) -> bool:
    """Whether some text holds marks of a chat template or lines that only a check writes."""
    return any(plain(text, wording) != text for text in texts)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(rf"\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


class _Words(NamedTuple):
    """What makes a line one that only a check writes."""

    label: str
    verdicts: tuple[str, ...]
    begins: re.Pattern[str]

    def are_in(self, line: str) -> bool:
        # Anywhere in the line, and with anything between: a model tidies what it repeats. What is
        # behind any label is behind the first: one look is enough, however many there are.
        at = line.find(self.label)
        behind = line[at + len(self.label) :] if at >= 0 else ""
        is_verdict = at >= 0 and any(word in behind for word in self.verdicts)
        return is_verdict or self.begins.match(line) is not None


@functools.lru_cache(maxsize=32)
def _words_of_a_check(wording: Wording) -> _Words:
    label, accept, reject, answer, ask = (
        _loose(text).strip()
        for text in (wording.label, wording.accept, wording.reject, wording.answer, wording.ask)
    )
    ask = re.sub(r"^\W+", "", ask) or ask  # a Spanish one begins with a mark, which may be left out
    begins = rf"[^\w\n]*(?:{re.escape(answer)}\s?:|{re.escape(ask)})"
    return _Words(label, (accept, reject), re.compile(begins))


_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u2032\xb4", "'"))
_LOOSE = frozenset({"Cf", "Mn"})


def _loose(text: str) -> str:
    """Return a text with all made alike that a reader takes for the same.

    That is the case, accents, the shapes of letters and of apostrophes, and what parts words.
    """
    text = "\n".join(text.splitlines())
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES))
        text = "".join(c for c in text if unicodedata.category(c) not in _LOOSE)
    return re.sub(r"(?:[^\S\n]|[-_\u2010-\u2015])+", " ", text.casefold())
