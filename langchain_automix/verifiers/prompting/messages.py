"""The messages of a check, and the strict reading of its verdicts."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langchain_automix.types import Verdict
from langchain_automix.verifiers.inputs import CheckContext
from langchain_automix.verifiers.prompting.quoting import Quoting, as_json, plain
from langchain_automix.verifiers.prompting.wording import ENGLISH, Reply, Wording, folded

Layout = Literal["few_shot", "zero_shot", "conversation"]
"""The order of a check's parts. `few_shot`: instruction and examples first, as in the paper.
`zero_shot`: the same without examples. `conversation`: the answering call's messages, the answer,
then the instruction, so that a prompt cache serves all that the answering call has paid for."""


def check_messages(
    context: CheckContext,
    answer: str,
    attachments: Sequence[dict[str, Any]] = (),
    *,
    layout: Layout = "few_shot",
    reply: Reply = "reasoning",
    wording: Wording = ENGLISH,
    quoting: Quoting = "plain",
) -> list[BaseMessage]:
    """Return the messages of a check that stands alone."""
    quote = functools.partial(plain, wording=wording) if quoting == "plain" else as_json
    block = wording.block(
        format_context(context, wording, quote),
        quote(context.question),
        quote(answer),
        quoted=quoting == "json",
    )
    # Without attachments, plain text: some servers accept no list of blocks.
    content: Any = [{"type": "text", "text": block}, *attachments] if attachments else block
    return [*_opening(layout == "few_shot", reply, wording, quoting), HumanMessage(content)]


def format_context(
    context: CheckContext, wording: Wording, quote: Callable[[str], str] = str
) -> str:
    """Return the context as the check shows it, with each untrusted part quoted."""
    # Tools come first: many questions share them (see `Wording.block`).
    tools = f"{wording.tools}\n{quote(context.tools)}\n\n" if context.tools else ""
    if not context.conversation:
        return f"{tools}{quote(context.context) if context.context else wording.no_context}"
    conversation = quote(context.conversation)
    if context.context:
        return f"{tools}{quote(context.context)}\n\n{wording.before}\n{conversation}"
    return f"{tools}{wording.conversation}\n{conversation}"


def follow_up_messages(
    request: Sequence[BaseMessage],
    context: CheckContext,
    answer: str,
    *,
    reply: Reply = "reasoning",
    wording: Wording = ENGLISH,
) -> list[BaseMessage]:
    """Return the messages of a check that continues the answering call."""
    tools = f"{wording.tools}\n{plain(context.tools, wording)}\n\n" if context.tools else ""
    instruction = f"{tools}{wording.follow_up} {wording.reply[reply]}"
    return [*request, AIMessage(plain(answer, wording)), HumanMessage(instruction)]


@functools.lru_cache(maxsize=32)
def _opening(
    few_shot: bool, reply: Reply, wording: Wording, quoting: Quoting
) -> tuple[BaseMessage, ...]:
    """Return the beginning of every check: the instruction and the examples."""
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

    The last line that is not blank must be exactly a verdict in the words of the wording: "not
    correct", quoted text, look-alike letters and invisible characters do not count. A reply with
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
    # Models write fields in this order: the verdict must follow the reasoning.
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

    The reply must be a JSON object of exactly the fields of `verdict_schema`, each once. Reasoning
    with another verdict than `correct` contradicts it, and is invalid.
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


# Spaces, also the narrow and wide ones of French and Chinese, and Markdown's emphasis.
_COLON = "[:\uff1a]"
_AROUND = "[ \\t\u00a0\u202f\u3000*_]*"


@functools.lru_cache(maxsize=32)
def _verdict_line(wording: Wording) -> re.Pattern[str]:
    """Return the pattern of a whole verdict line, once folded."""

    def words(text: str) -> str:
        pattern = r"[ -]".join(map(re.escape, re.split(r"[ -]", folded(text))))
        return re.sub("['\u2019]", "['\u2019]", pattern)  # models write either

    # Two runs never stand side by side, for a regular expression would try all ways to share.
    colon = rf"{_AROUND}(?:{_COLON}{_AROUND})?"
    filler = rf"(?:{words(wording.filler)}{colon})?" if wording.filler else ""
    verdict = rf"(?:(?P<accept>{words(wording.accept)})|(?P<reject>{words(wording.reject)}))"
    return re.compile(
        rf"#*{_AROUND}{words(wording.label)}{_AROUND}{_COLON}{_AROUND}{filler}{verdict}{_AROUND}"
        rf"(?:[.。]{_AROUND})?"
    )
