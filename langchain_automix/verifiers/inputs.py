"""What an answer is checked against: question, context, conversation, tools."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    get_buffer_string,
)

from langchain_automix.errors import AutoMixError
from langchain_automix.models.attachments import attachments_of
from langchain_automix.models.messages import answer_text, context_text
from langchain_automix.models.tools import tool_parts
from langchain_automix.types import EMPTY_ANSWER, Verification
from langchain_automix.utils.text import as_read
from langchain_automix.verifiers.base import VerifierInput

# A line, other than the first, that may be read as the start of another message. NFKD has already
# turned a full-width colon into an ASCII one.
_MESSAGE_START = re.compile(
    r"[^\w\n>]*(?:ai|assistant|human|user|system|(?:tool|function)(?: [^\s:]+)?(?: \(failed\))?)"
    r"[\s*_]{0,4}:"
)


class CheckContext(NamedTuple):
    """What an answer is checked against."""

    question: str
    context: str | None = None
    """What the answer must follow from."""

    conversation: str | None = None
    """The messages around the question, or before it if there is a context."""

    tools: str | None = None
    """The answering model's tools, one per line."""

    def shortened(self, shorten: Callable[[str], str]) -> CheckContext:
        """Shorten the context and the conversation."""
        return self._replace(
            context=self.context and shorten(self.context),
            conversation=self.conversation and shorten(self.conversation),
        )


def answer_words(answer: str | BaseMessage) -> str | Verification:
    """Return the text of an answer, or a verification if there is no text to check."""
    if isinstance(answer, AIMessage) and answer.tool_calls:
        return Verification(problem="the answer calls a tool: it has no text to be checked")
    text = str(answer.text if isinstance(answer, BaseMessage) else answer).strip()
    return text or Verification(problem=EMPTY_ANSWER)


def check_context(input: VerifierInput) -> CheckContext:
    """Return the question, and what its answer must follow from.

    Without a `question`, the last human message is the question; with one, all messages precede it.
    Only a `context` has to support the answer; the conversation does not.

    Raises:
        AutoMixError: The question is given but empty.
    """
    messages = input.get("messages") or ()
    if "question" not in input:
        checked = _from_conversation(messages)
    elif not input["question"].strip():
        raise AutoMixError("The question is empty: there is nothing to check an answer to.")
    else:
        checked = CheckContext(
            input["question"],
            context=context_text(input.get("context")),
            conversation=_conversation_text(messages) if messages else None,
        )
    return checked._replace(tools=_tools_text(input.get("tools") or ()))


def _from_conversation(messages: Sequence[BaseMessage]) -> CheckContext:
    questions = [i for i, message in enumerate(messages) if isinstance(message, HumanMessage)]
    if not questions:
        return CheckContext("")
    last = questions[-1]
    rest = [*messages[:last], *messages[last + 1 :]]
    return CheckContext(
        str(messages[last].text), conversation=_conversation_text(rest) if rest else None
    )


def _conversation_text(messages: Sequence[BaseMessage]) -> str:
    """Return messages as text, with tool calls written as in an answer."""
    names: dict[str | None, str] = {}
    lines: list[str] = []
    for message in messages:
        if isinstance(message, AIMessage) and message.tool_calls:
            names |= {call["id"]: call["name"] for call in message.tool_calls}
            lines.append(f"AI: {_as_one_message(answer_text(message))}")
        elif isinstance(message, ToolMessage):
            name = message.name or names.get(message.tool_call_id) or "result"
            failed = " (failed)" if message.status == "error" else ""
            lines.append(f"Tool {name}{failed}: {_as_one_message(str(message.text))}")
        else:
            lines.append(_as_one_message(get_buffer_string([message])))
    return "\n".join(lines)


def _as_one_message(text: str) -> str:
    """Return the text of one message, altered so that no line looks like another message."""
    first, *others = text.splitlines(keepends=True) or [""]
    read = as_read(text).split("\n")[1:]
    quoted = (
        f"> {line}" if _MESSAGE_START.match(as_it_is_read) else line
        for line, as_it_is_read in zip(others, read, strict=False)
    )
    return first + "".join(quoted)


def attachments_to(input: VerifierInput) -> Sequence[dict[str, Any]]:
    """Return the attachments of the question, as given or else from the conversation."""
    if "attachments" in input:
        return input["attachments"]
    return attachments_of(input.get("messages") or ())


def _tools_text(tools: Sequence[dict[str, Any]]) -> str | None:
    lines: list[str] = []
    for name, description, parameters in map(tool_parts, tools):
        about = f": {' '.join(description.split())}" if description else ""
        schema = json.dumps(parameters, separators=(",", ":"), ensure_ascii=False, default=str)
        lines.append(f"- {name}{about}{f' Arguments: {schema}' if parameters else ''}")
    return "\n".join(lines) or None


def tool_names(tools: Sequence[dict[str, Any]]) -> str:
    """Return the names of tools, one per line."""
    return "\n".join(f"- {name}" for name, _, _ in map(tool_parts, tools))
