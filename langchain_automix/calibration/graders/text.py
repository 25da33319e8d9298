"""Grade answers in [0, 1] against accepted answers, from their texts alone."""

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

    Numbers keep their points and signs: `2.5` is not 25. None without an accepted answer.
    """
    normalized = normalize_answer(answer)
    return _best(
        float(normalized == normalize_answer(text) and numerals(answer) == numerals(text))
        for text in references
    )


@registered_name("langchain_automix.calibration.grading.token_f1")
def token_f1(answer: str, references: Sequence[str]) -> float | None:
    """Return the best F1 score, in [0, 1], of shared words with an accepted answer (SQuAD).

    In Chinese, Japanese, Thai and the like, which have no spaces between words, of shared
    characters.

    None without an accepted answer.
    """
    return _best(_f1(answer, reference) for reference in references)


@registered_name("langchain_automix.calibration.grading.numeric")
def numeric(answer: str, references: Sequence[str]) -> float | None:
    r"""Return 1.0 if the last number in the answer equals the last one in an accepted answer.

    It reads `1,234.5`, `1.234,5`, `1 234,5`, `$5`, `-3`, `2e6`, `2 x 10^6`, `3/4`, `2 1/2`,
    `2.5 million`, and LaTeX's `9{,}500` and `\frac{3}{4}`. Equal is within a millionth. A per cent
    sign may be left out, or its number be written as a share: `50%` equals 50 and 0.5.

    An answer without a number gets 0.0. Unknown, None, is a number that cannot be read for sure
    (in words, a root, a multiple of pi), or that equals an accepted one only in another country's
    notation (`1.234` and `1,234`); and any answer where no accepted one holds a number.
    """
    accepted = [n for n in map(last_number, references) if n is not None and n.values]
    number = last_number(answer)
    return _best_known(False if number is None else number.equals(other) for other in accepted)


@registered_name("langchain_automix.calibration.grading.multiple_choice")
def multiple_choice(answer: str, references: Sequence[str]) -> float | None:
    """Return 1.0 if the answer chooses the letter of an accepted one, else 0.0.

    It reads `B`, `(B)`, `B. Turku`, `The answer is: B`, `Answer: **B**` and similar. An answer
    that chooses no letter, or several, gets 0.0. Unknown, None, is an answer in which an accepted
    letter stands alone though it may be a word (`A tower`); and any answer where no accepted one
    has a letter.
    """
    accepted = [letter for letter in map(chosen_letter, references) if letter is not None]
    chosen = chosen_letter(answer)
    only = only_letter(answer) if chosen is None else None
    return _best_known(None if only == letter else chosen == letter for letter in accepted)


@registered_name("langchain_automix.calibration.grading.contains")
def contains(answer: str, references: Sequence[str]) -> float | None:
    """Return 1.0 if the answer contains an accepted one as whole words, else 0.0.

    Both are normalised first. In a script without spaces between words an accepted
    answer may stand within a text, but one of a single character (in Thai and its neighbours, of
    fewer than four) may be a part of another word: that is unknown, None. So is a word in Hangul
    with an ending that is no common particle. None without an accepted answer of at least a word.
    """
    normalized = normalize_answer(answer)
    accepted = filter(None, map(normalize_answer, references))
    return _best_known(holds_words(normalized, reference) for reference in accepted)


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
    # The messages of a run are a conversation, even where all of them are the model's.
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
    """Return 1.0 if one is True, None if one is unknown or there is none, else 0.0."""
    found = set(are_equal)
    if True in found:
        return 1.0
    return None if None in found or not found else 0.0


def _f1(answer: str, reference: str) -> float:
    words, accepted = (split_words(normalize_answer(text)) for text in (answer, reference))
    shared = sum((Counter(words) & Counter(accepted)).values())
    if not shared:
        return float(words == accepted)
    # The harmonic mean of precision and recall in one division: exactly 1.0 where all is shared.
    return 2 * shared / (len(words) + len(accepted))
