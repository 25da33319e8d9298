"""What can go wrong with an answer, told without a model: no answer, half an answer, a failure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage

from langchain_automix.errors import AutoMixError, QueryFailedError
from langchain_automix.types import EMPTY_ANSWER

_FILTERED_FINISH_REASONS = frozenset(
    {"content_filter", "SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST"}
)
_FILTERED_STOP_REASONS = frozenset({"content_filtered", "guardrail_intervened"})
_TEXT_OR_REASONING_BLOCKS = frozenset(
    {"text", "output_text", "reasoning", "thinking", "redacted_thinking"}
)
# A gateway that has waited in vain says nothing of what the provider behind it did and billed.
_TIMEOUT_STATUSES = frozenset({408, 499, 504, 524})
_NEVER_SENT_ERRORS = frozenset(
    {
        "CircuitOpenError",
        "ConnectError",
        "ConnectTimeout",
        "ConnectionRefusedError",
        "PoolTimeout",
        "SpendLimitReachedError",  # of a model that is a mix itself
    }
)


def missing_answer_reason(message: AIMessage) -> str | None:
    """Say why a message is no answer: it is empty, or a refusal, or was filtered; else None."""
    said = message.response_metadata
    blocks = [block for block in message.content if isinstance(block, dict)]
    if (
        message.additional_kwargs.get("refusal")
        or said.get("stop_reason") == "refusal"
        or any(block.get("type") == "refusal" for block in blocks)
    ):
        return "the model refused to answer"
    if (
        said.get("finish_reason") in _FILTERED_FINISH_REASONS
        or said.get("stop_reason") in _FILTERED_STOP_REASONS
    ):
        return "a content filter stopped the answer"
    if message.tool_calls or message.invalid_tool_calls or str(message.text).strip():
        return None
    made = any(
        block.get("type") not in _TEXT_OR_REASONING_BLOCKS for block in blocks
    )  # an image, say
    return None if made or message.additional_kwargs.get("audio") else EMPTY_ANSWER


def is_cut_short(message: Any) -> bool:
    """Whether a message came by OpenAI's wire, and its stream ended before it was whole.

    `langchain-openai` takes a stream that just ends for a whole one; but each answer ends with
    the reason that it does (`finish_reason`; by the Responses API, `status`).
    """
    said = getattr(message, "response_metadata", None) or {}
    ends = {"finish_reason", "status", "automix"} & said.keys()
    return isinstance(message, AIMessage) and said.get("model_provider") == "openai" and not ends


def is_fault(error: BaseException) -> bool:
    """Whether an error is a failure to be dealt with.

    What is wrong with what was given to the mix is to be mended by who gave it. LangGraph's
    interrupts travel as exceptions, and are no failures.
    """
    if isinstance(error, AutoMixError):
        return isinstance(error, QueryFailedError)
    return all(kind.__name__ != "GraphBubbleUp" for kind in type(error).__mro__)


def may_be_billed(error: BaseException) -> bool:
    """Whether the provider may have billed a request that failed.

    One that it refused, with a status, or that never reached it, it has not. One that was given
    up or cut may have been answered unseen.
    """
    for each in _causes(error):
        status = getattr(each, "status_code", None)
        if isinstance(status, int) and status >= 400:  # noqa: PLR2004
            return status in _TIMEOUT_STATUSES
        if type(each).__name__ in _NEVER_SENT_ERRORS:
            return False
    return True


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
