"""The one error that bad input raises, and those of a query that gets no answer."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import override

if TYPE_CHECKING:
    from pydantic import ValidationError


_LONGEST = 200


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


class TooFewExamplesError(OutOfReachError):
    """A goal that a log is too small to show, though what it holds does not speak against it.

    Attributes:
        nearest: The value of the same goal that can be shown now.
        more: About how many more examples it would take, if they turn out like these.
    """

    def __init__(self, message: str, *, nearest: float, more: int) -> None:
        super().__init__(message, nearest=nearest)
        self.more = more


class QueryFailedError(AutoMixError):
    """A query got no answer, and nothing that was given to the mix is at fault."""


class CutShortError(QueryFailedError):
    """A model's stream ended before its answer did: the provider never said that it was done."""


class DeadlineError(QueryFailedError, TimeoutError):
    """The time of a query (`max_latency`) was up before there was an answer."""


class SpendLimitReachedError(QueryFailedError):
    """A query was not begun, for the money of a `SpendLimit` is spent; nothing was paid for it."""


class CircuitOpenError(QueryFailedError):
    """A model was not asked, for it has kept failing (`CircuitBreaker`); it cost nothing."""


class ModelsFailedError(ExceptionGroup[Exception], QueryFailedError):
    """Several models were asked, and each failed; its `exceptions` are all their errors, in order.

    Where all of them are of one of LangChain's kinds (`langchain_core.exceptions`, such as
    `ContextOverflowError` or `ModelRateLimitError`), it is of that kind, too: `except` and retries
    that know the kind see it. A query that only one model failed raises that model's own error.
    """

    def __new__(cls, message: str, exceptions: Sequence[Exception]) -> Self:
        """Return the error; of all that the causes have in common, where that is a kind."""
        kind: type[Self] = _of_kind(cls, tuple(exceptions))
        return super().__new__(kind, message, exceptions)

    def __init__(self, message: str, exceptions: Sequence[Exception]) -> None:
        super().__init__(message, exceptions)

    @classmethod
    def of(cls, failures: Mapping[str, Exception]) -> Self:
        """Return the error of models, by name, that failed with these."""
        told = "; ".join(f"{name}: {_line(error)}" for name, error in failures.items())
        return cls(f"No model of the mix gave an answer. {told}", list(failures.values()))

    @override
    def derive(self, excs: Sequence[Any], /) -> Any:
        return ModelsFailedError(self.message, excs)

    @override
    def __reduce__(self) -> Any:
        return ModelsFailedError, (self.message, list(self.exceptions))

    def __str__(self) -> str:
        return self.message


def _of_kind(cls: Any, errors: tuple[Exception, ...]) -> Any:
    from langchain_core.exceptions import ModelError  # noqa: PLC0415  (here alone)

    kinds: tuple[Any, ...] = type(errors[0]).__mro__ if errors else ()
    for kind in kinds:
        is_one = kind.__module__ == ModelError.__module__ and issubclass(kind, ModelError)
        if is_one and not issubclass(cls, kind) and all(isinstance(e, kind) for e in errors):
            return _both(cls, kind)
    return cls


@functools.cache
def _both(cls: Any, kind: Any) -> Any:
    return type(cls.__name__, (cls, kind), {"__doc__": cls.__doc__, "__module__": cls.__module__})


def _line(error: Exception) -> str:
    """Return an error as one short line: what follows may quote a prompt."""
    text = str(error).strip().splitlines()
    said = text[0] if text else ""
    said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


_IN_WORDS = {"missing": "it is missing", "extra_forbidden": "there is no such field"}
"""Problems that pydantic words for programmers."""


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a validation, on one line: the field and what is wrong."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or "(the whole)"
    said = _IN_WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    return f"field {field}: {said.removesuffix('.')}."


def near_matches(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return ` Did you mean 'X'?` for the known names most like this one; empty without any.

    Args:
        name: What was given.
        known: What there is.
        cutoff: Least likeness, in [0, 1], of a name that is worth naming.
    """
    names = {each.casefold(): each for each in known}
    found = difflib.get_close_matches(name.casefold(), names, n=2, cutoff=cutoff)
    return f" Did you mean {' or '.join(repr(names[each]) for each in found)}?" if found else ""
