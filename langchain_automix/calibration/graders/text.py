"""Grade answers in [0, 1] by comparing their texts with accepted answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from langchain_automix.calibration.examples.fields import FieldMapping, read_references
from langchain_automix.calibration.graders.choices import chosen_letter, only_letter
from langchain_automix.calibration.graders.numbers import last_number
from langchain_automix.calibration.graders.words import holds_words, split_words
from langchain_automix.errors import AutoMixError
from langchain_automix.types import ModelCall
from langchain_automix.utils.identifiers import registered_name
from langchain_automix.utils.json_values import json_value, same_json
from langchain_automix.utils.text import normalize_answer, numerals

Grader = Callable[[str, Sequence[str]], float | None]
"""Grades the text of an answer against the accepted answers: in [0, 1], or None if unknown."""


class GraderInput(TypedDict):
    """An answer to grade, and what to compare it with."""

    answer: str
    """Text of the answer."""

    references: list[str]
    """Accepted answers; empty if none is known."""

    question: str
    """The question."""

    context: str | None
    """The text that the answer must follow from."""


class Grade(BaseModel):
    """The result of a grader."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    quality: float | None = Field(ge=0, le=1)
    """Quality of the answer; None if unknown."""

    why: str = ""
    """The grader's reason, shortened; empty if it gives none."""

    calls: tuple[ModelCall, ...] = ()
    """The requests that were made for the grade."""


@registered_name("langchain_automix.calibration.grading.exact_match")
def exact_match(answer: str, references: Sequence[str]) -> float | None:
    """Return 1.0 if the answer equals an accepted one after `normalize_answer`, else 0.0.

    Decimal points and signs of numbers are kept: `2.5` is not 25. None without an accepted answer.
    """
    normalized = normalize_answer(answer)
    return _best(
        float(normalized == normalize_answer(text) and numerals(answer) == numerals(text))
        for text in references
    )


@registered_name("langchain_automix.calibration.grading.token_f1")
def token_f1(answer: str, references: Sequence[str]) -> float | None:
    """Return the best F1 score, in [0, 1], of shared words with an accepted answer (SQuAD).

    In scripts without spaces between words, such as Chinese, Japanese or Thai, characters are
    compared instead of words. None without an accepted answer.
    """
    return _best(_f1(answer, reference) for reference in references)


@registered_name("langchain_automix.calibration.grading.numeric")
def numeric(answer: str, references: Sequence[str]) -> float | None:
    r"""Return 1.0 if the last number in the answer equals the last one in an accepted answer.

    It reads `1,234.5`, `1.234,5`, `1 234,5`, `$5`, `-3`, `2e6`, `2 x 10^6`, `3/4`, `2 1/2`, `2.5
    million`, and LaTeX's `9{,}500` and `\frac{3}{4}`. Numbers are equal if they differ by at most
    one millionth. A percent sign may be left out, or the number may be written as a share: `50%`
    equals 50 and 0.5.

    An answer without a number gets 0.0. The quality is unknown (None) if the number cannot be read
    with certainty (in words, a root, a multiple of pi), if it equals an accepted number only in
    another country's notation (`1.234` and `1,234`), or if no accepted answer contains a number.
    """
    accepted = [n for n in map(last_number, references) if n is not None and n.values]
    number = last_number(answer)
    return _best_known(False if number is None else number.equals(other) for other in accepted)


@registered_name("langchain_automix.calibration.grading.multiple_choice")
def multiple_choice(answer: str, references: Sequence[str]) -> float | None:
    """Return 1.0 if the answer chooses the letter of an accepted one, else 0.0.

    It reads `B`, `(B)`, `B. Turku`, `The answer is: B`, `Answer: **B**` and similar. An answer that
    chooses no letter, or several, gets 0.0. The quality is unknown (None) if an accepted letter
    stands alone in the answer but may be a word (`A tower`), or if no accepted answer has a letter.
    """
    accepted = [letter for letter in map(chosen_letter, references) if letter is not None]
    chosen = chosen_letter(answer)
    only = only_letter(answer) if chosen is None else None
    return _best_known(None if only == letter else chosen == letter for letter in accepted)


@registered_name("langchain_automix.calibration.grading.contains")
def contains(answer: str, references: Sequence[str]) -> float | None:
    """Return 1.0 if the answer contains an accepted one as whole words, else 0.0.

    Both are normalized first. In a script without spaces between words, an accepted answer may
    occur anywhere in a text. But if it has a single character (in Thai and similar scripts, fewer
    than four), it may be a part of another word, and the result is unknown (None). It is also
    unknown for a word in Hangul whose ending is not a common particle, and without an accepted
    answer that contains a word.
    """
    normalized = normalize_answer(answer)
    accepted = filter(None, map(normalize_answer, references))
    return _best_known(holds_words(normalized, reference) for reference in accepted)


@registered_name("langchain_automix.calibration.grading.json_equal")
def json_equal(answer: str, references: Sequence[str]) -> float | None:
    """Return 1.0 if the answer is the same JSON value as an accepted one, else 0.0.

    The order of keys and the notation of numbers do not matter. JSON in a fenced block is read too.
    An answer that is not JSON gets 0.0. If no accepted answer is JSON, the quality is unknown
    (None).
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
        reference: Name of the output with the accepted answer, or with a list of them. None: the
            only output, or the only one with a name such as `answer`.

    Raises:
        AutoMixError: There is no such output, it is unclear which output it is, or its value is not
            an answer.
    """
    outputs = outputs or {}
    name = reference or FieldMapping().reference_key(outputs)
    if name is None or name not in outputs:
        raise AutoMixError(
            f"Which output of an example is the accepted answer? It has {sorted(outputs)}: "
            "give its name as reference=."
        )
    # The messages of a run are a conversation, even if the model wrote all of them.
    answer = outputs[name]
    if name == "messages" and isinstance(answer, list):
        answer = {name: answer}
    try:
        return list(read_references(answer))
    except ValueError as error:
        raise AutoMixError(f"The output {name!r} of an example cannot be used: {error}.") from error


def _best(scores: Iterable[float]) -> float | None:
    return max(scores, default=None)


def _best_known(are_equal: Iterable[bool | None]) -> float | None:
    """Return 1.0 if any value is True, None if any is unknown or there is none, else 0.0."""
    found = set(are_equal)
    if True in found:
        return 1.0
    return None if None in found or not found else 0.0


def _f1(answer: str, reference: str) -> float:
    words, accepted = (split_words(normalize_answer(text)) for text in (answer, reference))
    shared = sum((Counter(words) & Counter(accepted)).values())
    if not shared:
        return float(words == accepted)
    # The harmonic mean of precision and recall in one division: exactly 1.0 if all is shared.
    return 2 * shared / (len(words) + len(accepted))
