"""Check whether a grader of texts can read the accepted answers, before anything is paid for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_automix.calibration.examples.containers import UNANSWERABLE
from langchain_automix.calibration.examples.examples import Example, Examples
from langchain_automix.calibration.graders.choices import chosen_letter
from langchain_automix.calibration.graders.custom import KeywordGrader
from langchain_automix.calibration.graders.text import (
    GRADERS,
    Grader,
    contains,
    json_equal,
    multiple_choice,
    numeric,
)
from langchain_automix.errors import AutoMixError
from langchain_automix.utils.formatting import pluralize
from langchain_automix.utils.plain_values import python_value
from langchain_automix.utils.user_warnings import warn_user

_CHOICES = ("choices", "options")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NEEDS: Mapping[Grader, str] = {
    multiple_choice: "a letter, or the text or index (from 0) of one of the example's `choices`",
    numeric: "a number in digits",
    json_equal: "JSON",
    contains: "a word",
}


def readable_examples(examples: Examples, grader: Any) -> Examples:
    """Return the examples with their accepted answers in a form that the grader can read.

    For `multiple_choice`, the text or the index of one of an example's `choices` becomes its
    letter. A warning tells what the grader cannot read, and which labels are probably wrong or have
    another name.

    Raises:
        AutoMixError: The grader can read none of the accepted answers, so every quality would be
            unknown.
    """
    function = grader.function if isinstance(grader, KeywordGrader) else grader
    if function is multiple_choice:
        examples = _with_letters(examples)
    if (said := examples.without_answers) is not None:
        warn_user(said)
    labelled = [example for example in examples if example.references]
    _warn_of_labels(labelled)
    if function not in GRADERS.values():
        return examples
    unreadable = [
        example
        for example in labelled
        if all(function(text, example.references) is None for text in example.references)
    ]
    if not unreadable:
        return examples
    first = unreadable[0]
    such_as = f"such as {first.references[0][:80]!r} of example {first.id}"
    needs = _NEEDS.get(function, "a text")
    if len(unreadable) == len(labelled):
        raise AutoMixError(
            f"The grader {function.__name__} can read none of the accepted answers, {such_as}: it "
            f"needs {needs}. Every quality would be unknown."
        )
    warn_user(
        f"The grader {function.__name__} cannot read the accepted answers of "
        f"{len(unreadable):,} of {pluralize(len(labelled), 'labelled example')}, {such_as}: it "
        f"needs {needs}. Their qualities will be unknown."
    )
    return examples


def _warn_of_labels(labelled: Sequence[Example]) -> None:
    none_has_an_answer = all(example.references == (UNANSWERABLE,) for example in labelled)
    if len(labelled) > 1 and none_has_an_answer:
        warn_user(
            f"No example has an answer: all are labelled {UNANSWERABLE!r}. If their answers are "
            "only hidden, leave the field out."
        )
    written = [e for e in labelled if isinstance(python_value(e.references[0]), list)]
    if written and "'" in written[0].references[0]:
        warn_user(
            f"The accepted answers of {pluralize(len(written), 'example')} are lists written as "
            f"text, such as {written[0].references[0][:80]!r} of example {written[0].id}: each is "
            "taken as one answer. Give lists if they hold several."
        )


def _with_letters(examples: Examples) -> Examples:
    """Return the examples with letters if all other labels are texts or indices of choices."""
    texts, indices = [
        {e.id: _letter(e, find) for e in examples if _names_a_choice(e)}
        for find in (_place_of_text, _place_of_index)
    ]
    if texts and None not in texts.values():
        # A number may be both: `2` can be the third choice, and the text of another one.
        letters = texts if texts == indices or None in indices.values() else {}
    elif indices and None not in indices.values():
        letters = indices
        warn_user(
            "The accepted answers are read as indices of the examples' choices, counted from 0: "
            "0 is A."
        )
    else:
        letters = {}
    if not letters:
        return examples
    return Examples(
        (
            e.model_copy(update={"references": (letters[e.id],)}) if e.id in letters else e
            for e in examples
        ),
        examples.source,
    )


def _names_a_choice(example: Example) -> bool:
    """Return whether an example has choices and a label that is not a letter."""
    is_single = len(example.references) == 1
    return is_single and bool(_choices(example)) and chosen_letter(example.references[0]) is None


def _letter(example: Example, find: Callable[[str, Sequence[str]], int | None]) -> str | None:
    place = find(example.references[0], _choices(example))
    return None if place is None or place >= len(_LETTERS) else _LETTERS[place]


def _place_of_text(reference: str, choices: Sequence[str]) -> int | None:
    return choices.index(reference) if choices.count(reference) == 1 else None


def _place_of_index(reference: str, choices: Sequence[str]) -> int | None:
    is_index = reference.isascii() and reference.isdecimal()
    return int(reference) if is_index and int(reference[:9]) < len(choices) else None


def _choices(example: Example) -> Sequence[str]:
    """Return the texts of an example's choices, in order; empty if it has none."""
    value = next((example.metadata[name] for name in _CHOICES if name in example.metadata), None)
    if isinstance(value, str):
        value = python_value(value) or _json_list(value)
    if isinstance(value, Mapping):  # ARC's {"text": [...], "label": [...]}
        value = value.get("text")
    if not isinstance(value, list | tuple):
        return ()
    return [each if isinstance(each, str) else json.dumps(each) for each in value]


def _json_list(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
