"""How good an answer is: grades in [0, 1] against accepted answers."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_automix.errors import AutoMixError

Grader = Callable[[str, Sequence[str]], float | None]
"""From an answer's text and the accepted answers to a quality in [0, 1]; None if unknown."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Return a text in lower case without punctuation, articles and extra spaces (SQuAD)."""
    text = text.casefold().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """Return 1.0 if the answer equals an accepted one after normalisation, else 0.0."""
    return float(normalise(answer) in {normalise(reference) for reference in references})


def token_f1(answer: str, references: Sequence[str]) -> float:
    """Return the best F1 score, in [0, 1], of shared words with an accepted answer (SQuAD)."""
    return max((_f1(answer, reference) for reference in references), default=0.0)


def accepted_answers(outputs: Mapping[str, Any] | None, reference: str | None = None) -> list[str]:
    """Return the accepted answers of an example.

    Args:
        outputs: Outputs of the example, by name.
        reference: Name of the output that holds the accepted answer, or a list of them.
            None: the only one there is.

    Raises:
        AutoMixError: There is no such output, or it is not clear which.
    """
    outputs = outputs or {}
    name = reference or (next(iter(outputs)) if len(outputs) == 1 else None)
    if name is None or name not in outputs:
        raise AutoMixError(
            f"Which output of an example is the accepted answer? It has {sorted(outputs)}: "
            "give its name as reference=."
        )
    found = outputs[name]
    return [str(each) for each in found] if isinstance(found, list) else [str(found)]


def _f1(answer: str, reference: str) -> float:
    found, wanted = normalise(answer).split(), normalise(reference).split()
    shared = sum((Counter(found) & Counter(wanted)).values())
    if not shared:
        return float(found == wanted)
    precision, recall = shared / len(found), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)
