"""The one error that bad input raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class AutoMixError(ValueError):
    """Something given to langchain-automix cannot be used.

    The message says what was wrong, where, and what to do about it. The command line
    prints it on one line and exits with code 2.
    """


class OutOfReachError(AutoMixError):
    """A goal that no policy reaches on a log.

    Attributes:
        nearest: The value of the same goal that is the nearest within reach.
    """

    def __init__(self, message: str, *, nearest: float) -> None:
        super().__init__(message)
        self.nearest = nearest


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a validation, on one line: the field and what is wrong."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or "(the whole)"
    return f"field {field}: {problem['msg'].removeprefix('Value error, ')}."
