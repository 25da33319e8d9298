"""Where a log's qualities come from, and what that can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from langchain_automix.report.contents import Labels

Kind = Literal["references", "grade", "agreement", "corrected", "unknown"]

_KINDS: tuple[Kind, ...] = ("references", "grade", "agreement", "corrected")


def metadata_of(found: Any) -> Mapping[str, Any]:
    """Return what a query's metadata hold; empty if they are not names with values."""
    return found if isinstance(found, Mapping) else {}


def labels_of(metadata: Sequence[Any], largest: str) -> Labels:
    """Return where the qualities of some queries come from.

    Args:
        metadata: Of each query; its `labels` says `references`, `grade`, `agreement` or
            `corrected`, and its `labelled` is true where a corrected log had a true label.
        largest: Name of the last model.
    """
    found = [metadata_of(each) for each in metadata]
    kinds = Counter(_kind(each) for each in found)
    if len(kinds) != 1:
        parts = ", ".join(f"{kind} ({number})" for kind, number in kinds.most_common())
        text = (
            f"The qualities come from different places, by number of queries: {parts}. A mean over "
            "them is of no one thing: read the figures with care, or report on each part."
        )
        return Labels("mixed" if kinds else "unknown", text if kinds else _UNKNOWN)
    [kind] = kinds
    if kind == "references":
        return Labels("references", _REFERENCES)
    if kind == "grade":
        return Labels("grade", _GRADE)
    if kind == "agreement":
        return Labels("agreement", _AGREEMENT.format(largest=largest))
    if kind == "corrected":
        labelled = sum(each.get("labelled") is True for each in found)
        return Labels("corrected", _corrected(labelled, len(found), largest))
    return Labels("unknown", _UNKNOWN)


_REFERENCES = (
    "Each answer was graded against an accepted answer, so the qualities are as good as those and "
    "the grading: they can tell where every model is wrong, the largest too."
)
_GRADE = (
    "There were no accepted answers: each answer was graded by itself, so the qualities are as "
    "good as whoever graded; a judge that is a model may miss what the models miss."
)
_AGREEMENT = (
    "There were no accepted answers: the answer of {largest} was taken for right. This can tell "
    "how often a cheaper model says the same, and so what can be saved. It cannot tell how often "
    "{largest} is wrong: it looks perfect here, a cheaper model that knows better looks wrong, and "
    "no policy can be seen to gain quality over it."
)
_UNKNOWN = (
    "The log does not say where its qualities come from; the figures are as good as whatever "
    "graded the answers."
)


def _corrected(labelled: int, number: int, largest: str) -> str:
    plural = "query" if labelled == 1 else "queries"
    text = (
        f"The answer of {largest} was taken for right, and {labelled} labelled {plural} of "
        f"{number} corrected that in the mean. This can tell mean qualities about as surely as so "
        "many labels allow; the quality of a single answer may be off."
    )
    if not labelled:
        text += " None of the labelled queries is marked in this log, so it may rest on very few."
    return text


def _kind(metadata: Mapping[str, Any]) -> Kind:
    value = metadata.get("labels")
    return next((kind for kind in _KINDS if kind == value), "unknown")
