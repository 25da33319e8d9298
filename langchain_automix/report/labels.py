"""Describe where a log's qualities come from, and what they can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from langchain_automix.report.contents import Labels
from langchain_automix.utils.formatting import pluralize

_Kind = Literal["references", "grade", "agreement", "corrected", "unknown"]
_KINDS: tuple[_Kind, ...] = ("references", "grade", "agreement", "corrected")

_TEXTS: dict[_Kind, str] = {
    "references": (
        "Each answer was graded against an accepted answer, so the qualities are as good as those "
        "and the grading: they can tell where every model is wrong, the largest too."
    ),
    "grade": (
        "There were no accepted answers: each answer was graded by itself, so the qualities are as "
        "good as whoever graded; a judge that is a model may miss what the models miss."
    ),
    "agreement": (
        "There were no accepted answers: the answer of {largest} was taken for right. This can "
        "tell how often a cheaper model says the same, and so what can be saved. It cannot tell "
        "how often {largest} is wrong: it looks perfect here, a cheaper model that knows better "
        "looks wrong, and no policy can be seen to gain quality over it."
    ),
    "corrected": (
        "The answer of {largest} was taken for right, and {labelled} of {number} corrected that in "
        "the mean. This can tell mean qualities about as surely as so many labels allow; the "
        "quality of a single answer may be off."
    ),
    "unknown": (
        "The log does not say where its qualities come from; the figures are as good as whatever "
        "graded the answers."
    ),
}


def as_metadata(value: Any) -> Mapping[str, Any]:
    """Return a query's metadata, or an empty mapping if it is not a mapping."""
    return value if isinstance(value, Mapping) else {}


def describe_labels(metadata: Sequence[Any], largest: str) -> Labels:
    """Describe where the qualities of some queries come from.

    Args:
        metadata: Metadata of each query. `labels` is `references`, `grade`, `agreement` or
            `corrected`; `labelled` is true if a corrected log has a true label for the query.
        largest: Name of the last model.
    """
    kinds, labelled = Counter[_Kind](), 0
    for query in map(as_metadata, metadata):  # one at a time, since a log may hold a million
        kinds[_kind(query)] += 1
        labelled += query.get("labelled") is True
    if len(kinds) > 1:
        parts = ", ".join(f"{kind} ({number})" for kind, number in kinds.most_common())
        text = (
            f"The qualities come from different places, by number of queries: {parts}. A mean over "
            "them is of no one thing: read the figures with care, or report on each part."
        )
        return Labels("mixed", text)
    kind: _Kind = next(iter(kinds), "unknown")
    noun = pluralize(labelled, "labelled query", "labelled queries")
    text = _TEXTS[kind].format(largest=largest, labelled=noun, number=len(metadata))
    if kind == "corrected" and not labelled:
        text += " None of the labelled queries is marked in this log, so it may rest on very few."
    return Labels(kind, text)


def _kind(metadata: Mapping[str, Any]) -> _Kind:
    value = metadata.get("labels")
    return next((kind for kind in _KINDS if kind == value), "unknown")
