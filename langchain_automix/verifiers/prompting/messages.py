"""The messages of a check, and the strict reading of its verdicts."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langchain_automix.types import Verdict
from langchain_automix.verifiers.inputs import CheckContext
from langchain_automix.verifiers.prompting.quoting import Quoting, as_json, plain
from langchain_automix.verifiers.prompting.wording import ENGLISH, Reply, Wording, folded

Layout = Literal["few_shot", "zero_shot", "conversation"]
"""Where a check's parts stand. `few_shot`: instruction and examples first, as in the paper: these
are the same for all questions. `zero_shot`: the instruction alone first. `conversation`: the
answering call's own messages first, then the answer, then the instruction: a prompt cache then
serves all that the answering call has paid for, which with a long context is most of the check."""


def check_messages(
    asked: CheckContext,
    answer: str,
    attachments: Sequence[dict[str, Any]] = (),
    *,
    layout: Layout = "few_shot",
    reply: Reply = "reasoning",
    wording: Wording = ENGLISH,
    quoting: Quoting = "plain",
) -> list[BaseMessage]:
    """Return the chat messages that ask a model to check one answer, without its conversation."""
    quote = functools.partial(plain, wording=wording) if quoting == "plain" else as_json
    block = wording.block(
        asked.shown_as(wording, quote),
        quote(asked.question),
        quote(answer),
        quoted=quoting == "json",
    )
    # Plain text where nothing is attached: some servers take no list of blocks.
    content: Any = [{"type": "text", "text": block}, *attachments] if attachments else block
    return [*_opening(layout == "few_shot", reply, wording, quoting), HumanMessage(content)]


def follow_up_messages(
    request: Sequence[BaseMessage],
    asked: CheckContext,
    answer: str,
    *,
    reply: Reply = "reasoning",
    wording: Wording = ENGLISH,
) -> list[BaseMessage]:
    """Return the chat messages that check an answer where it stands: after its own request."""
    tools = f"{wording.tools}\n{plain(asked.tools, wording)}\n\n" if asked.tools else ""
    instruction = f"{tools}{wording.follow_up} {wording.reply[reply]}"
    return [*request, AIMessage(plain(answer, wording)), HumanMessage(instruction)]


@functools.lru_cache(maxsize=32)
def _opening(
    few_shot: bool, reply: Reply, wording: Wording, quoting: Quoting
) -> tuple[BaseMessage, ...]:
    """Return what every check starts with: the instruction and the examples."""
    quote = as_json if quoting == "json" else str
    messages: list[BaseMessage] = [
        SystemMessage(f"{wording.instruction} {wording.reply[reply]}"),
    ]
    for example in wording.examples if few_shot else ():
        block = wording.block(
            quote(example.context),
            quote(example.question),
            quote(example.answer),
            quoted=quoting == "json",
        )
        messages += [HumanMessage(block), AIMessage(wording.shown(example, reply))]
    return tuple(messages)


def parse_verdict(reply: str, wording: Wording = ENGLISH) -> Verdict:
    """Read the verdict of a check: True accept, False reject, None invalid.

    The last line that is not blank must be the verdict and nothing else, in the wording's own
    words: "not correct", "correct or incorrect", quoted text, letters of another alphabet and
    characters that are not seen do not count. A reply whose verdict lines contradict each
    other is invalid.
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
    # In this order a model writes them: the verdict follows from the reasoning.
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

    The reply must be one JSON object of the fields that were asked for, each once and of its type.
    A reasoning that holds another verdict than `correct` contradicts it, and is invalid.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a field is given twice")
        return dict(pairs)

    try:
        said = json.loads(reply, object_pairs_hook=once)
    except (ValueError, RecursionError):
        return None
    fields = set(verdict_schema(reasoning=reasoning)["properties"])
    if not isinstance(said, dict) or set(said) != fields or not isinstance(said["correct"], bool):
        return None
    why = said.get("reasoning", "")
    if not isinstance(why, str):
        return None
    return parse_verdict(f"{why}\n{wording.verdict_line(correct=said['correct'])}", wording)


# Spaces, also the narrow and wide ones of French and Chinese, and Markdown's marks of stress.
_COLON = "[:\uff1a]"
_AROUND = "[ \\t\u00a0\u202f\u3000*_]*"


@functools.lru_cache(maxsize=32)
def _verdict_line(wording: Wording) -> re.Pattern[str]:
    """Return what a whole verdict line looks like, once it is folded."""

    def words(text: str) -> str:
        found = r"[ -]".join(map(re.escape, re.split(r"[ -]", folded(text))))
        return re.sub("['\u2019]", "['\u2019]", found)  # models write either

    filler = rf"(?:{words(wording.filler)}{_AROUND}{_COLON}?{_AROUND})?" if wording.filler else ""
    verdict = rf"(?:(?P<accept>{words(wording.accept)})|(?P<reject>{words(wording.reject)}))"
    return re.compile(
        rf"#*{_AROUND}{words(wording.label)}{_AROUND}{_COLON}{_AROUND}{filler}{verdict}{_AROUND}"
        rf"[.。]?{_AROUND}"
    )
