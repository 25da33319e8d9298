"""Grade answers in [0, 1] against accepted answers, from their texts alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from langchain_automix.calibration.examples.fields import FieldMapping, read_references
from langchain_automix.errors import AutoMixError
from langchain_automix.types import ModelCall
from langchain_automix.utils.identifiers import registered_name
from langchain_automix.utils.json_values import json_value, same_json
from langchain_automix.utils.text import normalize_answer

Grader = Callable[[str, Sequence[str]], float | None]
"""From an answer's text and the accepted answers to a quality in [0, 1]; None if unknown."""


class GraderInput(TypedDict):
    """An answer to grade, and what to grade it against."""

    answer: str
    """Text of the answer."""

    references: list[str]
    """Accepted answers; empty where none is known."""

    question: str
    """The question."""

    context: str | None
    """The text that the answer must follow from."""


class Grade(BaseModel):
    """What a grader found."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    quality: float | None = Field(ge=0, le=1)
    """How good the answer is; None if unknown."""

    why: str = ""
    """The grader's reason, shortened; empty where it gives none."""

    calls: tuple[ModelCall, ...] = ()
    """Requests that the grade cost."""


@registered_name("langchain_automix.calibration.grading.exact_match")
def exact_match(answer: str, references: Sequence[str]) -> float | None:
    """Return 1.0 if the answer equals an accepted one after `normalize_answer`, else 0.0.

    None without an accepted answer.
    """
    normalized = normalize_answer(answer)
    return _best(float(normalized == normalize_answer(reference)) for reference in references)


@registered_name("langchain_automix.calibration.grading.token_f1")
def token_f1(answer: str, references: Sequence[str]) -> float | None:
    """Return the best F1 score, in [0, 1], of shared words with an accepted answer (SQuAD).

    None without an accepted answer.
    """
    return _best(_f1(answer, reference) for reference in references)


@registered_name("langchain_automix.calibration.grading.numeric")
def numeric(answer: str, references: Sequence[str]) -> float | None:
    """Return 1.0 if the last number in the answer equals the last one in an accepted answer.

    It reads `1,234.5`, `$5`, `-3`, `2e6`, `2 x 10^6` and `3/4`. Numbers within a millionth are
    equal. A percentage may omit its sign or be written as a share: `50%` equals 50 and 0.5.
    An answer without a number gets 0.0; without a number in any accepted answer it is unknown.
    """
    accepted = [number for number in map(_last_number, references) if number is not None]
    number = _last_number(answer)
    return _best(float(number is not None and number.equals(other)) for other in accepted)


@registered_name("langchain_automix.calibration.grading.multiple_choice")
def multiple_choice(answer: str, references: Sequence[str]) -> float | None:
    """Return 1.0 if the answer chooses the letter of an accepted one, else 0.0.

    It reads `B`, `(B)`, `B. Turku`, `The answer is B`, `Answer: **B**` and similar. An answer
    that chooses no letter, or several, gets 0.0; without a letter in any accepted answer it is
    unknown.
    """
    accepted = [letter for letter in map(chosen_letter, references) if letter is not None]
    return _best(float(chosen_letter(answer) == letter) for letter in accepted)


@registered_name("langchain_automix.calibration.grading.contains")
def contains(answer: str, references: Sequence[str]) -> float | None:
    """Return 1.0 if the answer contains an accepted one as whole words, else 0.0.

    Both are normalised first. None without an accepted answer of at least one word.
    """
    normalized = f" {normalize_answer(answer)} "
    accepted = filter(None, map(normalize_answer, references))
    return _best(float(f" {reference} " in normalized) for reference in accepted)


@registered_name("langchain_automix.calibration.grading.json_equal")
def json_equal(answer: str, references: Sequence[str]) -> float | None:
    """Return 1.0 if the answer is the same JSON value as an accepted one, else 0.0.

    The order of keys and the notation of numbers do not matter; JSON in a fenced block is read
    too. An answer that is not JSON gets 0.0; if no accepted answer is JSON, the quality is
    unknown.
    """
    accepted = [value for value in map(json_value, references) if value is not None]
    value = json_value(answer)
    return _best(float(value is not None and same_json(value, other)) for other in accepted)


GRADERS: Mapping[str, Grader] = {
    "exact_match": exact_match,
    "f1": token_f1,
    "token_f1": token_f1,
    "numeric": numeric,
    "multiple_choice": multiple_choice,
    "contains": contains,
    "json_equal": json_equal,
}
"""The graders of texts, by the names that users give."""


def accepted_answers(outputs: Mapping[str, Any] | None, reference: str | None = None) -> list[str]:
    """Return the accepted answers of an example.

    Args:
        outputs: Outputs of the example, by name.
        reference: Name of the output that holds the accepted answer, or a list of them.
            None: the only one there is, or the only one with a name such as `answer`.

    Raises:
        AutoMixError: There is no such output, it is not clear which, or it is no answer.
    """
    outputs = outputs or {}
    name = reference or FieldMapping().reference_key(outputs)
    if name is None or name not in outputs:
        raise AutoMixError(
            f"Which output of an example is the accepted answer? It has {sorted(outputs)}: "
            "give its name as reference=."
        )
    try:
        return list(read_references(outputs[name]))
    except ValueError as error:
        raise AutoMixError(f"The output {name!r} of an example cannot be used: {error}.") from error


def _best(scores: Iterable[float]) -> float | None:
    return max(scores, default=None)


def _f1(answer: str, reference: str) -> float:
    words, accepted = normalize_answer(answer).split(), normalize_answer(reference).split()
    shared = sum((Counter(words) & Counter(accepted)).values())
    if not shared:
        return float(words == accepted)
    # The harmonic mean of precision and recall in one division: exactly 1.0 where all is shared.
    return 2 * shared / (len(words) + len(accepted))


_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"""(?<![^\W\d_])(?<!\d\.)               # not within a word such as Q4
    (?P<sign>(?<![\w.)\]])[-+\u2212]\s?)?     # a minus after a number stands for "to"
    [$\u20ac\xa3\xa5]?\s?
    (?P<sign_after>(?<=[$\u20ac\xa3\xa5])[-\u2212])?
    (?P<number>{_DIGITS})
    (?:[eE](?P<exponent>[-+\u2212]?\d+)(?!\w)
      |\s*(?:[x*\xd7]|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*[{{(]?(?P<power>[-+\u2212]?\d+)[)}}]?)?
    (?:\s?/\s?(?P<divisor>{_DIGITS})(?!\d*\s?/))?
    (?:\s?(?P<percent>\\?%))?
    """,
    re.VERBOSE,
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([-\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}")


class _Number(NamedTuple):
    value: float
    is_percent: bool

    def equals(self, other: _Number) -> bool:
        if _is_close(self.value, other.value):
            return True
        if self.is_percent == other.is_percent:
            return False
        share, plain = (self, other) if self.is_percent else (other, self)
        return _is_close(share.value / 100, plain.value)


def _is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6)


def _last_number(text: str) -> _Number | None:
    matches = list(_NUMBER.finditer(_FRACTION.sub(r"\1/\2", text)))
    if not matches:
        return None
    match = matches[-1]
    power = match["exponent"] or match["power"] or "0"
    value = float(f"{match['number'].replace(',', '')}e{power.replace(chr(0x2212), '-')}")
    if match["divisor"] is not None:
        divisor = float(match["divisor"].replace(",", ""))
        if match.string[match.start() - 1 : match.start()] == "/":  # a date, no fraction
            value = divisor
        else:
            value = value / divisor if divisor else math.inf
    if not math.isfinite(value):
        return None
    signs = (match["sign"] or "") + (match["sign_after"] or "")
    is_negative = "-" in signs or "\u2212" in signs
    return _Number(-value if is_negative else value, match["percent"] is not None)


_LETTER = r"\(?(?:(?P<upper>[A-Z])\b|(?P<lower>[a-z])(?=\s*(?:[).,;:\n]|$)))\)?"
_NOT = re.compile(r"\b(?:not|never|neither|nor|isn't|than)\s+(?:option\s+)?\(?[A-Z]\b\)?")
_STATED = re.compile(
    r"\b(?i:answer|option|choice|choose|pick|select)\b[ ]*"
    rf"(?:(?i:is|would be|must be|should be|option|choice)\b|[:=\-\u2013])?[ ]*"
    rf"(?:(?i:option|choice)[ ]+)?{_LETTER}"
    r"(?P<more>\s*(?:,|/|&|\b(?:or|and)\b)\s*(?i:option[ ]+)?\(?[A-Z]\b)?"
)
_LEADING = re.compile(r"^[ ]*(?:\(([A-Z])\)|([A-Z])[.):](?=\s|$))", re.MULTILINE)
_BRACKETED = re.compile(r"\(([A-Z])\)")
_SEVERAL = re.compile(
    r"\b[A-Z]\)?\s*(?:,|/|&|\b(?:or|and)\b)\s*\(?(?!I\s+[a-z])[A-Z]\b(?!')"  # I think
)
_ALONE = re.compile(r"(?<![\w'.-])([B-HJ-Z])(?![\w'-]|\.\w)")


def chosen_letter(text: str) -> str | None:
    """Return the letter from A to Z that a text chooses; None if none or several."""
    text = re.sub(r"[*_`$]|\\boxed|\\text|[{}\[\]]", "", text).strip()
    text = re.sub(r"[ \t]+", " ", text)
    if re.fullmatch(r"\W*[A-Za-z]\W*", text):
        return next(char for char in text.upper() if char.isalpha())
    text = _NOT.sub(" ", text)
    stated = list(_STATED.finditer(text))
    if any(each["more"] for each in stated) or (not stated and _SEVERAL.search(text)):
        return None
    # From the clearest sign to the faintest; the first one present decides.
    for letters in (
        {each["upper"] or each["lower"].upper() for each in stated},
        {each[1] or each[2] for each in _LEADING.finditer(text)},
        set(_BRACKETED.findall(text)),
        set(_ALONE.findall(text)),
    ):
        if letters:
            return letters.pop() if len(letters) == 1 else None
    return None
