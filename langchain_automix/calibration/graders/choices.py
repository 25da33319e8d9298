"""Find the letter that an answer to a multiple-choice question chooses."""

from __future__ import annotations

import re

from langchain_automix.utils.text import UNSPACED, normalize_characters

_LETTER = r"\(?(?:(?P<upper>[A-Z])\b|(?P<lower>[a-z])(?=\s*(?:[).,;:\n]|$)))\)?"
_NOT = re.compile(r"\b(?:not|never|neither|nor|isn't|than)\s+(?:option\s+)?\(?[A-Z]\b\)?")
_STATED = re.compile(
    r"\b(?i:answer|option|choice|choose|pick|select)\b[ ]*"
    r"(?:(?i:is|would be|must be|should be|option|choice)\b[ ]*)?(?:[:=]\s*|[\-\u2013][ ]*)?"
    rf"(?:(?i:option|choice)[ ]+)?{_LETTER}"
    r"(?P<more>\s*(?:,|/|&|\b(?:or|and)\b)\s*(?i:option[ ]+)?\(?[A-Z]\b)?"
)
_LEADING = re.compile(r"^[ ]*(?:\(([A-Z])\)|([A-Z])[.):](?=\s|$))", re.MULTILINE)
_OWN_LINE = re.compile(r"^[^\w\n]*([A-Z])[^\w\n]*$", re.MULTILINE)
_BRACKETED = re.compile(r"\(([A-Z])\)")
_SEVERAL = re.compile(
    r"\b[A-Z]\)?\s*(?:,|/|&|\b(?:or|and)\b)\s*\(?(?!I\s+[a-z])[A-Z]\b(?!')"  # I think
)
# `A` and `I` are words, except after a colon at the end of a line, and in Chinese text.
_ALONE = re.compile(
    r"(?<![\w'.-])(?:([B-HJ-Z])(?![\w'-]|\.\w)"
    rf"|(?:(?<=[:=>][ ])|(?<=[:=>]))([AI])(?=[.!)]*[ ]*$)|(?<=[{UNSPACED}][ ])([AI])(?![\w'-]))",
    re.MULTILINE,
)
_CAPITAL = re.compile(r"(?<![\w'.-])([A-Z])(?![\w'-]|\.\w)")
_BETWEEN_SCRIPTS = re.compile(rf"(?<=[{UNSPACED}])(?=[A-Z])|(?<=[A-Z])(?=[{UNSPACED}])")


def chosen_letter(text: str) -> str | None:
    """Return the letter from A to Z that a text chooses; None if there is none, or several."""
    text = _plain(text)
    if re.fullmatch(r"\W*[A-Za-z]\W*", text):
        return next(char for char in text.upper() if char.isalpha())
    text = _NOT.sub(" ", text)
    stated = list(_STATED.finditer(text))
    if any(each["more"] for each in stated) or (not stated and _SEVERAL.search(text)):
        return None
    # Ordered from the clearest sign to the weakest; the first that occurs decides.
    for letters in (
        {each["upper"] or each["lower"].upper() for each in stated},
        set(_OWN_LINE.findall(text)),
        {each[1] or each[2] for each in _LEADING.finditer(text)},
        set(_BRACKETED.findall(text)),
        {each[1] or each[2] or each[3] for each in _ALONE.finditer(text)},
    ):
        if letters:
            return letters.pop() if len(letters) == 1 else None
    return None


def only_letter(text: str) -> str | None:
    """Return the only capital letter that stands alone in a text, whatever it means there.

    None if there is none, or several. The pronoun `I` counts only if it is the whole text.
    """
    letters = set(_CAPITAL.findall(_NOT.sub(" ", _plain(text))))
    if len(letters) > 1:
        letters.discard("I")
    return letters.pop() if len(letters) == 1 else None


def _plain(text: str) -> str:
    """Return a text without Markdown and LaTeX marks, with letters set apart from other scripts."""
    text = normalize_characters(text).replace("\r\n", "\n")
    text = re.sub(r"[*_`$]|\\boxed|\\text|[{}\[\]]", "", text).strip()
    return re.sub(r"[ \t]+", " ", _BETWEEN_SCRIPTS.sub(" ", text))
