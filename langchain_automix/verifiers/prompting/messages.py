"""The messages of a check."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langchain_automix.verifiers.inputs import CheckContext
from langchain_automix.verifiers.prompting.quoting import Quoting, as_json, plain
from langchain_automix.verifiers.prompting.wording import ENGLISH, Reply, Wording

Layout = Literal["few_shot", "zero_shot", "conversation"]
"""The order of a check's parts. `few_shot`: instruction and examples first, as in the paper.
`zero_shot`: the same without examples. `conversation`: the messages of the answering call, the
answer, then the instruction, so that a prompt cache serves everything that the answering call has
paid for."""


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
    """Return the messages of a standalone check."""
    quote = functools.partial(plain, wording=wording) if quoting == "plain" else as_json
    block = wording.block(
        format_context(context, wording, quote),
        quote(context.question),
        quote(answer),
        quoted=quoting == "json",
    )
    # Send plain text without attachments, since some servers accept no list of blocks.
    content: Any = [{"type": "text", "text": block}, *attachments] if attachments else block
    return [*_opening(layout == "few_shot", reply, wording, quoting), HumanMessage(content)]


def format_context(
    context: CheckContext, wording: Wording, quote: Callable[[str], str] = str
) -> str:
    """Return the context in the form that the check shows, with each untrusted part quoted."""
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
