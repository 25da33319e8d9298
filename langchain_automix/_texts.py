"""Texts side by side: what counts as the same, as JSON too; and vectors that stand for texts."""

from __future__ import annotations

import json
import math
import re
import string
import unicodedata
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PER_MILLE = "\u2030\u2031"  # without them it would be another number
_RAISED = ("<super>", "<sub>", "<fraction>")


def normalise(text: str) -> str:
    """Return a text in lower case without punctuation, articles and extra spaces (SQuAD).

    What would leave nothing is not done: the answer `A` is no article, `+` no punctuation.
    """
    text = " ".join(alike(text).casefold().split())
    bare = text.translate(_PUNCTUATION)
    if not bare.isascii():
        bare = "".join(c for c in bare if unicodedata.category(c)[0] != "P" or c in _PER_MILLE)
    bare = " ".join(bare.split())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split()) or bare or text


def alike(text: str) -> str:
    """Return a text in the usual shape of its characters (NFKC), and with `-` for a minus.

    What is raised, and a fraction, stays as it is: ten squared is not 102.
    """
    if text.isascii():
        return text
    shaped = (
        c if unicodedata.decomposition(c).startswith(_RAISED) else unicodedata.normalize("NFKC", c)
        for c in text.replace("\u2212", "-")
    )
    return unicodedata.normalize("NFC", "".join(shaped))


_FENCED = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.DOTALL)


def json_in(text: str, **parsers: Any) -> tuple[Any] | None:
    """Return the JSON value that a text holds, in a tuple of one; None if it holds none.

    JSON in a fenced block is read, too. NaN and Infinity are no JSON.

    Args:
        text: The text.
        **parsers: How `json.loads` reads numbers (`parse_int`, `parse_float`).
    """
    fenced = _FENCED.findall(text)
    for candidate in (text, *fenced[-1:]):
        try:
            return (json.loads(candidate, parse_constant=_refuse, **parsers),)
        except (ValueError, RecursionError, InvalidOperation):
            continue
    return None


def json_value(text: str) -> tuple[Any] | None:
    """Return the JSON value that a text holds, to be compared by `same_json`; None if none."""
    # Numbers in a tuple, which JSON has not: True would equal 1.
    return json_in(text, parse_int=_number, parse_float=_number)


def same_json(one: tuple[Any], other: tuple[Any]) -> bool:
    """Whether two values of `json_value` are the same; not so where they are too deep to tell."""
    try:
        return one == other
    except RecursionError:
        return False


def _number(text: str) -> tuple[Decimal]:
    return (Decimal(text),)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def best_cosine(vectors: Sequence[Sequence[float]]) -> float | None:
    """Return the best cosine similarity of the first vector to another; None if undefined."""
    first, *others = vectors
    found = [each for other in others if (each := cosine(first, other)) is not None]
    return max(found, default=None)


def cosine(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the cosine of two vectors, in [-1, 1]; None where one has no direction."""
    lengths = math.hypot(*one) * math.hypot(*other)
    if not lengths or not math.isfinite(lengths):
        return None
    product = math.fsum(x * y for x, y in zip(one, other, strict=True))
    return float(min(1.0, max(-1.0, product / lengths)))


# llama.cpp and vLLM apply a chat template to the messages and then read the marks of the whole
# text, those in a message, too; hosted models mostly take them for text.
MARK = re.compile(
    r"""<(?=[|｜])                                                    # <|im_start|>, <｜User｜>
    |<(?=/?(?:s|bos|eos|pad|unk|mask|sop|eop|eoh|eoa|think|tools?|tool_call|tool_response
         |(?:start|end|beginning)_of_[a-z]+|fim_[a-z]+|(?:seed|minimax):[a-z_]+
         |(?:__)?(?:media|image|img|audio|video)(?:__)?
         |(?:unused|reserved_|extra_id_)\d+)>)
    |<(?=(?:turn|channel|tool|tool_call|tool_response|image|audio|video)\|>)
    |<(?=</?SYS>>)
    |<(?=(?-i:role>(?:HUMAN|ASSISTANT|SYSTEM|OBSERVATION)</role>))              # Ling
    |\[(?=\|(?:endofturn|user|assistant|system|tool)\|\])                 # EXAONE
    |\](?=~b\]|~!b\[|![pd]~\[)|\[(?=e~\[)                                # MiniMax
    |\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT
         |gMASK|sMASK|UNUSED_TOKEN_\d+|THINK|IMG|PREFIX|SUFFIX|MIDDLE)\])
    """,  # noqa: RUF001  (DeepSeek's marks have full-width bars)
    re.VERBOSE | re.IGNORECASE,
)
"""The begin of a chat template's mark, such as the `<` of `<|im_start|>`."""


def without_marks(text: str) -> str:
    """Return a text in which a space behind its first character breaks each template's mark."""
    return MARK.sub(lambda mark: f"{mark[0]} ", text)


def quoted(text: str) -> str:
    """Return a text with a mark before each line, so that none passes for a line of the prompt.

    Nor does anything in it pass for a mark of a chat template.
    """
    return "\n".join(f"> {line}" for line in without_marks(text).strip().splitlines())
