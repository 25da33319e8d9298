"""What an answer is checked against: the question, its context, what was said, the tools."""

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
from langchain_automix.verifiers.base import VerifierInput
from langchain_automix.verifiers.prompting.wording import Wording

# A line, other than the first, that looks like the begin of another message (see below).
_SEEMS_TO_BEGIN = re.compile(
    r"(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])(?=(?:AI|Human|System|Tool [^\s:]+( \(failed\))?):)"
)


class CheckContext(NamedTuple):
    """What an answer is checked against."""

    question: str
    context: str | None = None
    """What the answer must follow from."""

    conversation: str | None = None
    """What was said around the question; beside a context, what was said before it."""

    tools: str | None = None
    """The tools that the answering model had, one a line."""

    def shortened(self, shorten: Callable[[str], str]) -> CheckContext:
        """Return the same with context and conversation shortened."""
        return self._replace(
            context=self.context and shorten(self.context),
            conversation=self.conversation and shorten(self.conversation),
        )

    def shown_as(self, wording: Wording, quote: Callable[[str], str] = str) -> str:
        """Return what stands as the context in the check, each untrusted part of it quoted."""
        # The tools come first: they are the same for many questions (see `Wording.block`).
        tools = f"{wording.tools}\n{quote(self.tools)}\n\n" if self.tools else ""
        if self.conversation and self.context:
            said = f"{wording.before}\n{quote(self.conversation)}"
            return f"{tools}{quote(self.context)}\n\n{said}"
        if self.conversation:
            return f"{tools}{wording.conversation}\n{quote(self.conversation)}"
        return f"{tools}{quote(self.context) if self.context else wording.no_context}"


def answer_words(answer: str | BaseMessage) -> str | Verification:
    """Return an answer's words alone; a verification where there are none to check."""
    if isinstance(answer, AIMessage) and answer.tool_calls:
        return Verification(problem="the answer calls a tool: it has no text to be checked")
    text = str(answer.text if isinstance(answer, BaseMessage) else answer).strip()
    return text or Verification(problem=EMPTY_ANSWER)


def check_context(input: VerifierInput) -> CheckContext:
    """Return the question, and what its answer must follow from.

    Without a question as such, the last human message is the question; with one, all messages
    are what was said before it. The conversation is shown, but what it does not hold may still
    be right: a check that is grounded needs its context as such.

    Raises:
        AutoMixError: The question is given and empty.
    """
    if "question" not in input:
        asked = _from_conversation(input.get("messages") or ())
    elif not input["question"].strip():
        raise AutoMixError("The question is empty: there is nothing to check an answer to.")
    else:
        said = input.get("messages") or ()
        asked = CheckContext(
            input["question"],
            context=context_text(input.get("context")),
            conversation=_conversation_text(said) if said else None,
        )
    return asked._replace(tools=_tools_text(input.get("tools") or ()))


def _from_conversation(messages: Sequence[BaseMessage]) -> CheckContext:
    asked = [i for i, message in enumerate(messages) if isinstance(message, HumanMessage)]
    if not asked:
        return CheckContext("")
    last = asked[-1]
    rest = [*messages[:last], *messages[last + 1 :]]
    return CheckContext(
        str(messages[last].text), conversation=_conversation_text(rest) if rest else None
    )


def _conversation_text(messages: Sequence[BaseMessage]) -> str:
    """Return what was said, a paragraph each; tool calls look as they do in an answer."""
    called: dict[str | None, str] = {}
    lines: list[str] = []
    for message in messages:
        if isinstance(message, AIMessage) and message.tool_calls:
            called |= {call["id"]: call["name"] for call in message.tool_calls}
            lines.append(f"AI: {_of_one(answer_text(message))}")
        elif isinstance(message, ToolMessage):
            name = message.name or called.get(message.tool_call_id) or "result"
            failed = " (failed)" if message.status == "error" else ""
            lines.append(f"Tool {name}{failed}: {_of_one(str(message.text))}")
        else:
            lines.append(_of_one(get_buffer_string([message])))
    return "\n".join(lines)


def _of_one(text: str) -> str:
    """Return what one message says, in which no other one can seem to begin."""
    return _SEEMS_TO_BEGIN.sub("> ", text)


def attachments_to(input: VerifierInput) -> Sequence[dict[str, Any]]:
    """Return what is attached to the question, as given or as found in the conversation."""
    if "attachments" in input:
        return input["attachments"]
    return attachments_of(input.get("messages") or ())


def _tools_text(tools: Sequence[dict[str, Any]]) -> str | None:
    lines: list[str] = []
    for name, description, parameters in map(tool_parts, tools):
        about = f": {' '.join(description.split())}" if description else ""
        takes = json.dumps(parameters, separators=(",", ":"), ensure_ascii=False, default=str)
        lines.append(f"- {name}{about}{f' Arguments: {takes}' if parameters else ''}")
    return "\n".join(lines) or None


def tool_names(tools: Sequence[dict[str, Any]]) -> str:
    """Return the names of tools, one a line."""
    return "\n".join(f"- {name}" for name, _, _ in map(tool_parts, tools))
