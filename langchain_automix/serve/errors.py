"""Errors in the shape of OpenAI's protocol, and which of them an exception becomes.

A model's own words stand in an answer to a client only where the client's request is at fault:
what a check is told quotes a draft, and so may the error of a check.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from langchain_automix.errors import (
    AutoMixError,
    CircuitOpenError,
    ModelsFailedError,
    QueryFailedError,
    SpendLimitReachedError,
    StoreUnavailableError,
)
from langchain_automix.models.failures import causes_of, is_model_failure, status_of
from langchain_automix.utils.text import printable, redact_secrets

_LOGGER = logging.getLogger(__name__)

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
SPEND_LIMIT = "insufficient_quota"
"""OpenAI's code of a request that its account has no money for."""

_TIMEOUTS = frozenset({408, 499, 504, 524})
_UNAVAILABLE = frozenset({503, 529})
_CLIENT_ERRORS = range(400, 500)
_LONGEST = 2_000
_LONGEST_GIVEN = 200
_RETRY_AFTER = re.compile(r"[\x20-\x7e]{1,64}")
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w{1,64})'")
"""What a client of a provider raises of a parameter that it does not have."""

_CHECK = re.compile(r"\brun_check\b")
"""The step of a query, in the note on an error, that asks for a check."""


class ApiError(Exception):
    """An answer that is an error, as OpenAI's protocol has it.

    Attributes:
        status: HTTP status.
        message: What was wrong, and what to do.
        type: OpenAI's kind of error, such as `invalid_request_error`.
        code: OpenAI's code, such as `model_not_found`; None: there is none.
        param: The field of the request that was wrong; None: no single one.
        headers: Further headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID_REQUEST,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type = status, message, type
        self.code, self.param, self.headers = code, param, dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The body of the response."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}


def unsupported(param: str, message: str) -> ApiError:
    """Return the error of a parameter that is not served."""
    return ApiError(400, message, code="unsupported_parameter", param=param)


def of_status(status: int, message: str, headers: Mapping[str, str] | None = None) -> ApiError:
    """Return the error of an HTTP status that a web framework found."""
    kind = INVALID_REQUEST if status in _CLIENT_ERRORS else SERVER_ERROR
    code = HTTPStatus(status).name.lower() if status in set(HTTPStatus) else None
    return ApiError(status, message, type=kind, code=code, headers=headers)


def to_api_error(error: BaseException) -> ApiError:
    """Return what a client is told of an exception that ended its query."""
    if isinstance(error, ApiError):
        return error
    for kinds, made in _OF_KIND:
        if isinstance(error, kinds):
            return made()
    if isinstance(error, AutoMixError) and not isinstance(error, QueryFailedError):
        return _internal(error) if _of_a_check(error) else ApiError(400, _shown(str(error)))
    if isinstance(error, ModelsFailedError):
        return _of_several(error)
    if isinstance(error, TypeError) and (found := _UNEXPECTED.search(str(error))):
        return unsupported(found[1], f"A model of this mix takes no {found[1]}: leave it out.")
    return _of_model(error, status_of(error))


def _of_model(error: BaseException, status: int | None) -> ApiError:
    """Return the error of a query that a model failed."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return _rate_limited(error)
    if status in _TIMEOUTS or _timed_out(error):
        return _timeout()
    if status in _UNAVAILABLE:
        return _unavailable()
    if status in _CLIENT_ERRORS and not is_model_failure(error):
        return _callers_fault(error)
    if status is None and not (isinstance(error, QueryFailedError) or is_model_failure(error)):
        return _internal(error)
    what = type(error).__name__ if status is None else f"status {status}"
    return _server_error(502, f"A model failed ({what}).", "model_failed")


def _internal(error: BaseException) -> ApiError:
    log_unexpected(error)
    return _server_error(500, "The query failed for a reason within this server.", "internal_error")


def _limit_reached() -> ApiError:
    message = "The spend limit is reached: no query is begun until it allows one again."
    return ApiError(429, message, type=SPEND_LIMIT, code=SPEND_LIMIT)


def is_spend_limit(error: ApiError | None) -> bool:
    """Whether a query was refused since a spend limit is reached."""
    return error is not None and (error.status, error.code) == (429, SPEND_LIMIT)


def _timeout() -> ApiError:
    return _server_error(504, "The query was not answered in time.", "timeout")


def _unavailable() -> ApiError:
    return _server_error(503, "A model is not available: try again later.", "model_unavailable")


def _store_away() -> ApiError:
    return _server_error(503, "The learning store is away: try again later.", "store_away")


def _takes_no_tools() -> ApiError:
    return unsupported("tools", "A model of this mix does not take what the request asks for.")


def _too_deep() -> ApiError:
    return ApiError(400, "The request is nested too deeply.", code="invalid_value")


_OF_KIND: tuple[tuple[type[Exception], Callable[[], ApiError]], ...] = (
    (SpendLimitReachedError, _limit_reached),
    (TimeoutError, _timeout),  # the deadlines of a mix among them
    (CircuitOpenError, _unavailable),
    (StoreUnavailableError, _store_away),
    (RecursionError, _too_deep),
    (NotImplementedError, _takes_no_tools),
)


def _of_several(error: ModelsFailedError) -> ApiError:
    """Return what several failed models have in common; else that of a failed gateway."""
    told = [to_api_error(each) for each in error.exceptions]
    if len({(each.status, each.code) for each in told}) == 1:
        return told[-1]
    return _server_error(502, "No model of the mix gave an answer.", "model_failed")


def _rate_limited(error: BaseException) -> ApiError:
    if provider_error(error).get("code") == "insufficient_quota":
        text = "A model's own account has no quota left: that is this server's to mend."
        return _server_error(502, text, "model_failed")
    return ApiError(
        429,
        "A model's provider allows no more requests at present: try again later.",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        headers=_retry_after(error),
    )


def _callers_fault(error: BaseException) -> ApiError:
    """Return the error of a request that a provider refuses, in the provider's words."""
    if _of_a_check(error):  # they may quote the draft
        return _server_error(502, "The check of an answer was refused.", "model_failed")
    said = provider_error(error)
    code, param = said.get("code"), said.get("param")
    if any(type(each).__name__ == "ContextOverflowError" for each in causes_of(error)):
        code = "context_length_exceeded"
    return ApiError(
        400,
        _shown(str(said.get("message") or "A model refuses the request.")),
        code=code if isinstance(code, str) else None,
        param=param if isinstance(param, str) else None,
    )


def provider_error(error: BaseException) -> Mapping[str, Any]:
    """Return the body of a provider's error as OpenAI's clients keep it; empty without one."""
    for each in causes_of(error):
        body = getattr(each, "body", None)
        if isinstance(body, Mapping):
            inner = body.get("error")
            return inner if isinstance(inner, Mapping) else body
    return {}


def _of_a_check(error: BaseException) -> bool:
    notes = (note for each in causes_of(error) for note in getattr(each, "__notes__", ()))
    return any(_CHECK.search(str(note)) for note in notes)


def _retry_after(error: BaseException) -> dict[str, str]:
    for each in causes_of(error):
        headers: Any = getattr(getattr(each, "response", None), "headers", None)
        value = headers.get("retry-after") if hasattr(headers, "get") else None
        if isinstance(value, str) and _RETRY_AFTER.fullmatch(value):
            return {"Retry-After": value}
    return {}


def _timed_out(error: BaseException) -> bool:
    kinds = (kind.__name__ for each in causes_of(error) for kind in type(each).__mro__)
    return any("Timeout" in kind for kind in kinds)


def _server_error(status: int, message: str, code: str) -> ApiError:
    return ApiError(status, message, type=SERVER_ERROR, code=code)


def shortened(text: str) -> str:
    """Return the beginning of what a client sent, which may be as long as its body."""
    return text if len(text) <= _LONGEST_GIVEN else f"{text[:_LONGEST_GIVEN]}..."


def _shown(text: str) -> str:
    text = redact_secrets(printable(" ".join(text.split())))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def log_unexpected(error: BaseException) -> None:
    """Log where an unexpected error was raised; not its message, which may quote a draft."""
    stack = "".join(traceback.format_tb(error.__traceback__))
    _LOGGER.error("a query failed with %s:\n%s", type(error).__name__, stack)
