"""Read verdicts from a check's replies strictly: whatever is not a clear verdict is invalid."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from langchain_automix.types import Verdict
from langchain_automix.verifiers.prompting.wording import ENGLISH, Wording, folded


def parse_verdict(reply: str, wording: Wording = ENGLISH) -> Verdict:
    """Read the verdict of a check: True accept, False reject, None invalid.

    The last non-blank line must be exactly a verdict in the words of the wording. "Not correct",
    quoted text, look-alike letters and invisible characters do not count. A reply with
    contradicting verdict lines is invalid.
    """
    pattern = _verdict_line(wording)
    lines = [line for line in folded(reply).splitlines() if line.strip()]
    verdicts = [match for line in lines if (match := pattern.fullmatch(line))]
    if not verdicts or pattern.fullmatch(lines[-1]) is None:
        return None
    accepts = {match["accept"] is not None for match in verdicts}
    return accepts.pop() if len(accepts) == 1 else None


def verdict_schema(*, reasoning: bool) -> dict[str, Any]:
    """Return the JSON schema of a structured check's reply."""
    # Models write fields in this order, and the verdict must follow the reasoning.
    fields: dict[str, Any] = {"reasoning": {"type": "string"}} if reasoning else {}
    fields["correct"] = {"type": "boolean"}
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def parse_structured(reply: str, wording: Wording = ENGLISH, *, reasoning: bool = True) -> Verdict:
    """Read the verdict of a structured check: True accept, False reject, None invalid.

    The reply must be a JSON object with exactly the fields of `verdict_schema`, each once. If the
    reasoning contains a verdict that contradicts `correct`, the reply is invalid.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a field is given twice")
        return dict(pairs)

    try:
        value = json.loads(reply, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return None
    fields = set(verdict_schema(reasoning=reasoning)["properties"])
    if (
        not isinstance(value, dict)
        or set(value) != fields
        or not isinstance(value["correct"], bool)
    ):
        return None
    reasoning_text = value.get("reasoning", "")
    if not isinstance(reasoning_text, str):
        return None
    line = wording.verdict_line(correct=value["correct"])
    return parse_verdict(f"{reasoning_text}\n{line}", wording)


# White space, including the narrow and wide spaces of French and Chinese, and Markdown emphasis.
_COLON = "[:\uff1a]"
_AROUND = "[ \\t\u00a0\u202f\u3000*_]*"


@functools.lru_cache(maxsize=32)
def _verdict_line(wording: Wording) -> re.Pattern[str]:
    """Return the pattern of a whole verdict line, once folded."""

    def words(text: str) -> str:
        pattern = r"[ -]".join(map(re.escape, re.split(r"[ -]", folded(text))))
        return re.sub("['\u2019]", "['\u2019]", pattern)  # models write either

    # Two runs never stand side by side; a regular expression would try every way to split them.
    colon = rf"{_AROUND}(?:{_COLON}{_AROUND})?"
    filler = rf"(?:{words(wording.filler)}{colon})?" if wording.filler else ""
    verdict = rf"(?:(?P<accept>{words(wording.accept)})|(?P<reject>{words(wording.reject)}))"
    return re.compile(
        rf"#*{_AROUND}{words(wording.label)}{_AROUND}{_COLON}{_AROUND}{filler}{verdict}{_AROUND}"
        rf"(?:[.。]{_AROUND})?"
    )
