"""What went wrong with a call: no answer, half an answer, whose fault, what may be billed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage

from langchain_automix.errors import (
    AutoMixError,
    ModelsFailedError,
    QueryFailedError,
    SpendLimitReachedError,
)
from langchain_automix.types import EMPTY_ANSWER

_FILTERED_FINISH_REASONS = frozenset(
    {"content_filter", "SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST"}
)
_FILTERED_STOP_REASONS = frozenset({"content_filtered", "guardrail_intervened"})
_TEXT_OR_REASONING_BLOCKS = frozenset(
    {"text", "output_text", "reasoning", "thinking", "redacted_thinking"}
)
# A gateway that waited in vain does not know what the provider behind it did and billed.
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
_CLIENT_ERRORS = range(400, 500)
# Those of a model or its provider: no access, no such model, slow, or too many requests. The other
# client errors are the request's own.
_MODEL_STATUSES = frozenset({401, 402, 403, 404, 407, 408, 409, 421, 423, 424, 425, 429})


def missing_answer_reason(message: AIMessage) -> str | None:
    """Say why a message is no answer: empty, a refusal, or filtered; None if it is one."""
    metadata = message.response_metadata
    blocks = [block for block in message.content if isinstance(block, dict)]
    if (
        message.additional_kwargs.get("refusal")
        or metadata.get("stop_reason") == "refusal"
        or any(block.get("type") == "refusal" for block in blocks)
    ):
        return "the model refused to answer"
    if (
        metadata.get("finish_reason") in _FILTERED_FINISH_REASONS
        or metadata.get("stop_reason") in _FILTERED_STOP_REASONS
    ):
        return "a content filter stopped the answer"
    if message.tool_calls or message.invalid_tool_calls or str(message.text).strip():
        return None
    has_media = any(block.get("type") not in _TEXT_OR_REASONING_BLOCKS for block in blocks)
    return None if has_media or message.additional_kwargs.get("audio") else EMPTY_ANSWER


def is_cut_short(message: Any) -> bool:
    """Whether a message of OpenAI's protocol comes from a stream that broke off.

    `langchain-openai` takes such a stream for a whole one, but every whole answer has a reason for
    its end (`finish_reason`; in the Responses API, `status`).
    """
    metadata = getattr(message, "response_metadata", None) or {}
    if not isinstance(message, AIMessage) or metadata.get("model_provider") != "openai":
        return False
    return not {"finish_reason", "status", "automix"} & metadata.keys()


def is_fault(error: BaseException) -> bool:
    """Whether an error is a failure that the mix deals with.

    The user mends a wrong argument, and LangGraph's interrupts are exceptions but no failures.
    """
    if isinstance(error, AutoMixError):
        return isinstance(error, QueryFailedError)
    return all(kind.__name__ != "GraphBubbleUp" for kind in type(error).__mro__)


def is_model_failure(error: BaseException) -> bool:
    """Return whether an error says something about the health of the model that raised it."""
    status = getattr(error, "status_code", None)
    if status is None:
        status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and status in _CLIENT_ERRORS:
        return status in _MODEL_STATUSES
    if isinstance(error, ModelsFailedError):
        return any(map(is_model_failure, error.exceptions))
    if isinstance(error, QueryFailedError):
        return not isinstance(error, SpendLimitReachedError)
    if isinstance(error, json.JSONDecodeError) or _has_no_answer(error):
        return True
    # The rest has no status: no connection, or a deadline. A ValueError or TypeError is raised of
    # a wrong input, before anything is sent.
    return is_fault(error) and not isinstance(error, ValueError | TypeError)


def _has_no_answer(error: BaseException) -> bool:
    """Whether `langchain-openai` raised an error because a response holds no answer."""
    if isinstance(error, TypeError):
        return "null value for 'choices'" in str(error)
    body = error.args[0] if isinstance(error, ValueError) and error.args else None
    if not isinstance(body, Mapping):  # the response's field `error`
        return False
    code = body.get("code")
    if isinstance(code, int) and code in _CLIENT_ERRORS:
        return code in _MODEL_STATUSES
    text = f"{code} {body.get('type')}"
    return not any(word in text for word in ("invalid", "context_length"))


def may_be_billed(error: BaseException) -> bool:
    """Whether the provider may have billed a request that failed.

    It does not bill one that it refused with a status, or that never reached it. One that timed
    out or was cut may have been answered unseen.
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
