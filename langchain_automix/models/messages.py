"""Convert inputs and answers to messages and texts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue

from langchain_automix.errors import AutoMixError

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def to_messages(input: Any) -> list[BaseMessage]:
    """Convert a chat model's input to messages.

    Raises:
        AutoMixError: The input is a dict or contains no question.
    """
    if isinstance(input, Mapping):
        raise AutoMixError(
            "The input is a dict, which chat models do not take: give AutoMixRunnable the "
            "prompt that reads it (prompt=...), or put the prompt before it in the chain."
        )
    if isinstance(input, PromptValue):
        messages = input.to_messages()
    elif isinstance(input, str):
        messages = [HumanMessage(input)]
    else:
        messages = convert_to_messages(input)
    questions = [message.content for message in messages if isinstance(message, HumanMessage)]
    last = questions[-1] if questions else "".join(str(message.text) for message in messages)
    if isinstance(last, str) and not last.strip():
        raise AutoMixError("The question is empty: there is nothing to answer.")
    return messages


def query_id(query: Any) -> str:
    """Return an id for a query that is the same whenever the same question is asked."""
    if isinstance(query, list):
        query = [(message.type, message.content) for message in query]
    return hashlib.sha256(repr(query).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def question_text(question: Any) -> str:
    """Return a question, or a message with one, as text."""
    if isinstance(question, BaseMessage):
        return str(question.text)
    return str(question or "")


def add_chunks(total: Any, part: Any) -> Any:
    """Add up the chunks of a streamed input, or keep the last one if they cannot be added."""
    try:
        return total + part
    except TypeError:
        return part


def answer_text(answer: str | BaseMessage) -> str:
    """Return an answer as the text that a check reads, tool calls included."""
    if isinstance(answer, str):
        return answer.strip()
    tool_calls = answer.tool_calls if isinstance(answer, AIMessage) else []
    calls = [f"[calls {call['name']} with {_as_written(call['args'])}]" for call in tool_calls]
    return "\n".join([str(answer.text).strip(), *calls]).strip()


def _as_written(args: Any) -> str:
    # Escape a lone surrogate, since a request cannot contain it.
    text = json.dumps(args, ensure_ascii=False)
    return _LONE_SURROGATE.sub(lambda lone: f"\\u{ord(lone[0]):04x}", text)


def context_text(context: str | Sequence[Document | str] | None) -> str | None:
    """Return a context as one text, with a paragraph per document."""
    if context is None or isinstance(context, str):
        return context
    texts = (part.page_content if isinstance(part, Document) else str(part) for part in context)
    return "\n\n".join(texts)
