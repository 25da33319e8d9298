"""Classify failed calls: no answer, half an answer, whose fault, and what may be billed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage

from langchain_automix.errors import (
    AutoMixError,
    ModelsFailedError,
    QueryFailedError,
    SpendLimitReachedError,
)
from langchain_automix.models.provider_quirks import (
    ACCOUNT_ERRORS,
    NEVER_SENT_ERRORS,
    REPLY_READERS,
    STATUS_OF_GRPC,
    STATUS_OF_KIND,
    early_ending,
)
from langchain_automix.types import EMPTY_ANSWER

_TEXT_OR_REASONING_BLOCKS = frozenset(
    {"text", "output_text", "reasoning", "thinking", "redacted_thinking"}
)
# A gateway that timed out does not know what the provider behind it did and billed.
_TIMEOUT_STATUSES = frozenset({408, 499, 504, 524})
# `SpendLimitReachedError` comes from a model that is itself a mix.
_NEVER_SENT_ERRORS = NEVER_SENT_ERRORS | {"CircuitOpenError", "SpendLimitReachedError"}
_CLIENT_ERRORS = range(400, 500)
# Errors of a model or its provider: no access, no such model, too slow, too many requests. Other
# client errors are the fault of the request.
_MODEL_STATUSES = frozenset({401, 402, 403, 404, 407, 408, 409, 421, 423, 424, 425, 429})
_ERRORS = range(400, 600)
# Errors that Python raises for wrong code or a wrong argument.
_MISTAKES = (
    AssertionError,
    AttributeError,
    ImportError,
    NameError,
    NotImplementedError,
    TypeError,
)
# From asyncio, httpx, aiohttp, grpc and concurrent.futures: what is closed stays closed for all
# models.
_CLOSED = re.compile(
    r"(event loop|client|session|channel|connector) (is|has been) closed"
    r"|different (event )?loop|no running event loop|cannot schedule new futures",
    re.IGNORECASE,
)
# The base classes of errors from HTTP libraries and providers' clients.
_PROVIDER_ERRORS = frozenset(
    {"APIError", "BotoCoreError", "ClientError", "HTTPError", "ModelError", "RpcError"}
)
_ENDED = {
    "refused": "the model refused to answer",
    "filtered": "a content filter stopped the answer",
}


def missing_answer_reason(message: AIMessage) -> str | None:
    """Say why a message is not an answer: empty, refused, filtered or failed; None if it is one."""
    ending, word = early_ending(message.response_metadata) or (None, "")
    if _says_it_refuses(message):
        ending = "refused"
    if ending in _ENDED:
        return _ENDED[ending]
    if ending == "failed":
        return f"the provider broke the answer off ({word})"
    calls = message.tool_calls or message.invalid_tool_calls
    if calls or message.additional_kwargs.get("function_call") or str(message.text).strip():
        return None
    has_media = any(
        block.get("type") not in _TEXT_OR_REASONING_BLOCKS for block in _blocks(message)
    )
    if has_media or message.additional_kwargs.get("audio"):
        return None
    return "the model ran out of tokens before it answered" if ending else EMPTY_ANSWER


def is_cut_short(message: Any) -> bool:
    """Whether a message of OpenAI's protocol comes from a stream that broke off.

    `langchain-openai` treats such a stream as complete. But every complete answer has a reason for
    its end (`finish_reason`; in the Responses API, `status`). For servers that give no reason,
    usage also marks the end, since it comes last. A refusal counts as complete, however much of it
    arrived.
    """
    metadata = getattr(message, "response_metadata", None) or {}
    if not isinstance(message, AIMessage) or metadata.get("model_provider") != "openai":
        return False
    has_reason = bool({"finish_reason", "status", "automix"} & metadata.keys())
    has_reason = has_reason or _says_it_refuses(message)
    return not has_reason and message.usage_metadata is None


def _says_it_refuses(message: AIMessage) -> bool:
    """Whether a message contains a refusal, in either of OpenAI's protocols."""
    if message.additional_kwargs.get("refusal"):
        return True
    blocks = _blocks(message)  # most answers are a text, and have none
    return bool(blocks) and any(block.get("type") == "refusal" for block in blocks)


def _blocks(message: AIMessage) -> list[dict[Any, Any]]:
    """Return the content blocks of a message, unless its content is just text."""
    if isinstance(message.content, str):
        return []
    return [block for block in message.content if isinstance(block, dict)]


def is_fault(error: BaseException) -> bool:
    """Whether an error is a failure that the mix handles.

    A wrong argument or a closed event loop is for the user to fix. LangGraph's interrupts are
    exceptions, but not failures.
    """
    if isinstance(error, AutoMixError):
        return isinstance(error, QueryFailedError)
    if any(
        isinstance(each, RuntimeError) and _CLOSED.search(str(each)) for each in causes_of(error)
    ):
        return False
    return all(kind.__name__ != "GraphBubbleUp" for kind in type(error).__mro__)


def is_answer_failure(error: BaseException) -> bool:
    """Whether an error of an answering call is its model's failure, so that another is asked.

    A wrong argument or wrong code is not: another model would fail as well, or succeed silently at
    a higher price. Such an error is raised, so that someone can fix it.
    """
    return is_fault(error) and not _is_mistake(error)


def is_model_failure(error: BaseException) -> bool:
    """Return whether an error says something about the health of the model that raised it."""
    if isinstance(error, ModelsFailedError):
        return any(map(is_model_failure, error.exceptions))
    if isinstance(error, QueryFailedError):
        return not isinstance(error, SpendLimitReachedError)
    status = status_of(error)
    if status in _CLIENT_ERRORS:
        return status in _MODEL_STATUSES or any(word in str(error) for word in ACCOUNT_ERRORS)
    if status is not None or isinstance(error, json.JSONDecodeError):
        return True
    if (found := _answerless_response(error)) is not None:
        return found
    # The rest has no status: no connection, or a deadline. A ValueError or TypeError is raised for
    # wrong input, before anything is sent.
    return is_answer_failure(error) and not isinstance(error, ValueError | TypeError)


def _is_mistake(error: BaseException) -> bool:
    """Whether Python itself rejects code or arguments, without a provider involved."""
    # A class that a library derives from these has a meaning of its own.
    if not isinstance(error, _MISTAKES) or type(error).__module__ != "builtins":
        return False
    return _answerless_response(error) is None and not any(
        map(_is_provider_error, causes_of(error))
    )


def _is_provider_error(error: BaseException) -> bool:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    is_connection = isinstance(error, OSError) and not isinstance(error, ImportError)
    return is_connection or _own_status(error) is not None or bool(kinds & _PROVIDER_ERRORS)


def _answerless_response(error: BaseException) -> bool | None:
    """Whether a client raised an error because a response has no answer, by its model's fault.

    None if it is another kind of error. False if the response blames the request.
    """
    if isinstance(error, TypeError) and "null value for 'choices'" in str(error):
        return True
    body = error.args[0] if isinstance(error, ValueError) and error.args else None
    code, kind = _code_and_type(body)  # of the response's field `error`
    if code is None and kind is None and not isinstance(body, Mapping):
        if not _is_reading_reply(error):
            return None
        code = str(error)
    if isinstance(code, int) and code in _CLIENT_ERRORS:
        return code in _MODEL_STATUSES
    text = f"{code} {kind}"
    return not any(word in text for word in ("invalid", "context_length", "image", "policy"))


def _code_and_type(body: Any) -> tuple[Any, Any]:
    if isinstance(body, Mapping):
        return body.get("code"), body.get("type")
    if type(body).__module__.startswith("openai."):  # a pydantic model of the Responses API
        return getattr(body, "code", None), getattr(body, "type", None)
    return None, None


def _is_reading_reply(error: BaseException) -> bool:
    """Whether an error was raised while one of LangChain's clients read a reply."""
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        is_client = str(frame.f_globals.get("__name__")).startswith("langchain_")
        if is_client and frame.f_code.co_name in REPLY_READERS:
            return True
        traceback = traceback.tb_next
    return False


def may_be_billed(error: BaseException) -> bool:
    """Whether the provider may have billed a request that failed.

    It does not bill a request that it refused with a status, or that never reached it. A request
    that timed out or was cut off may have been answered.
    """
    if isinstance(error, ModelsFailedError):
        return any(map(may_be_billed, error.exceptions))
    for each in causes_of(error):
        if (status := _own_status(each)) is not None:
            return status in _TIMEOUT_STATUSES
        if type(each).__name__ in _NEVER_SENT_ERRORS:
            return False
    return True


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error or of its causes; None if there is none."""
    found = (_own_status(each) for each in causes_of(error))
    return next((status for status in found if status is not None), None)


def _own_status(error: BaseException) -> int | None:
    """Return an error's own status, wherever a provider's client stores it."""
    response = getattr(error, "response", None)
    code = getattr(error, "code", None)
    if callable(code):  # gRPC
        try:
            code = STATUS_OF_GRPC.get(getattr(code(), "name", ""))
        except Exception:  # noqa: BLE001  (another library's `code`)
            code = None
    if isinstance(response, Mapping):  # botocore
        metadata = response.get("ResponseMetadata")
        status = metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None
    else:
        status = getattr(response, "status_code", None)
    kinds = (STATUS_OF_KIND.get(kind.__name__) for kind in type(error).__mro__)
    for found in (getattr(error, "status_code", None), status, code, *kinds):
        if isinstance(found, int) and found in _ERRORS:
            return int(found)
    return None


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
