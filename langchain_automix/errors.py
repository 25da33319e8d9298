"""The errors that are raised for bad input, and for a query that gets no answer."""

from __future__ import annotations

import contextlib
import difflib
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import override

if TYPE_CHECKING:
    from pydantic import ValidationError


_LONGEST = 1_000


class AutoMixError(Exception):
    """An input cannot be used, or a query got no answer.

    The message says what was wrong, where, and what to do about it. The command line prints it on
    one line and exits with code 2.

    For an input that cannot be used, the error is also a `ValueError` (`InvalidInputError`), like
    pydantic's error for a bad argument. For a query that got no answer (`QueryFailedError`) it is
    not, because retries, such as LangGraph's `RetryPolicy`, do not repeat a call after a
    `ValueError`.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Create the error; a plain `AutoMixError` becomes an `InvalidInputError`."""
        del kwargs
        kind: Any = InvalidInputError if cls is AutoMixError else cls
        made: Self = super().__new__(kind, *args)
        return made


class InvalidInputError(AutoMixError, ValueError):
    """An input cannot be used. `AutoMixError(...)` creates an error of this class."""


class OutOfReachError(InvalidInputError):
    """No policy reaches a goal on a log.

    Attributes:
        nearest: The nearest value of the same goal that can be reached.
    """

    def __init__(self, message: str, *, nearest: float) -> None:
        super().__init__(message)
        self.nearest = nearest


class TooFewExamplesError(OutOfReachError):
    """A log is too small to show that a goal is reached, although nothing speaks against it.

    Attributes:
        nearest: The nearest value of the same goal that the log can show.
        more: Approximate number of further examples needed, if they are like those in the log.
    """

    def __init__(self, message: str, *, nearest: float, more: int) -> None:
        super().__init__(message, nearest=nearest)
        self.more = more


class UnknownQueryError(InvalidInputError, LookupError):
    """A learning store does not contain the query."""


class StoreUnavailableError(AutoMixError, ConnectionError):
    """A learning store cannot be reached, read or written at present. A retry may succeed."""


class QueryFailedError(AutoMixError):
    """A query got no answer, although the input of the mix was valid."""


class CutShortError(QueryFailedError):
    """A model's stream ended in the middle of an answer, without the provider's end mark."""


class DeadlineError(QueryFailedError, TimeoutError):
    """The time limit of a query (`max_latency`) passed before there was an answer."""


class StreamClosedError(QueryFailedError):
    """A draft was stopped while it was streamed (`give_up_early`); its run ends like this."""


class SpendLimitReachedError(QueryFailedError, RuntimeError):
    """A query was not started, because a `SpendLimit` has been reached. It cost nothing.

    Also a `RuntimeError`, which LangGraph's `RetryPolicy` does not retry by default.
    """


class CircuitOpenError(QueryFailedError):
    """A model was not asked, because it failed repeatedly (`CircuitBreaker`). It cost nothing."""


class ModelsFailedError(QueryFailedError):
    """Several models were asked, and each failed. `exceptions` holds their errors, in order.

    The error is an instance of every class that all these errors share, whether it is Python's,
    LangChain's or a client's (`ConnectionError`, `ModelRateLimitError`, `openai.APIStatusError`,
    ...), so that an `except` clause or a retry for that class catches it. Other attributes of the
    class, such as `status_code`, are those of the last error. It is an `ExceptionGroup` too, unless
    Python cannot combine that with the shared class (`OSError` with `ConnectionError` and
    `TimeoutError`; `ImportError`); the last error is then its `__cause__`. If a query fails because
    of a single model, it raises that model's own error instead.
    """

    def __new__(cls, message: str, exceptions: Sequence[Exception]) -> Self:
        """Create the error as an instance of all classes that the causes share."""
        own: Any = cls
        kind = _of_kinds(own, _shared_kinds(own, tuple(exceptions)))
        is_group = issubclass(kind, ExceptionGroup)
        made: Any = ExceptionGroup if is_group else super()
        error: Self = made.__new__(kind, message, *([exceptions] if is_group else []))
        return error

    def __init__(self, message: str, exceptions: Sequence[Exception]) -> None:
        self._message, self._exceptions = message, tuple(exceptions)
        if exceptions and not isinstance(self, ExceptionGroup):
            self.__cause__ = exceptions[-1]

    @property
    def message(self) -> str:
        """What happened, on one line, with the name and the error of each model."""
        return self._message

    @property
    def exceptions(self) -> tuple[Exception, ...]:
        """The errors of all models, in the order in which they were asked."""
        return self._exceptions

    @classmethod
    def of(cls, failures: Mapping[str, Exception]) -> Self:
        """Build the error from the models' errors, by name of the model."""
        told = "; ".join(f"{name}: {_line(error)}" for name, error in failures.items())
        return cls(f"No model of the mix gave an answer. {told}", list(failures.values()))

    def derive(self, excs: Sequence[Any], /) -> Any:
        """Return the error for some of the causes, as needed to split an `ExceptionGroup`."""
        made = ModelsFailedError(self.message, excs)
        if not isinstance(made, ExceptionGroup):  # their shared class cannot be a group
            kind = _of_kinds(ModelsFailedError, ())
            made = ExceptionGroup.__new__(kind, self.message, excs)
            made.__init__(self.message, excs)
        return made

    @override
    def __reduce__(self) -> Any:
        return ModelsFailedError, (self.message, list(self.exceptions))

    def __str__(self) -> str:
        return self.message


def _shared_kinds(cls: type, errors: Sequence[Exception]) -> tuple[Any, ...]:
    """Return the classes that all errors share, except those of `cls`, the most specific first."""
    kinds: Iterable[type] = type(errors[0]).__mro__ if errors else ()
    return tuple(
        kind
        for kind in kinds
        if issubclass(kind, Exception)
        and not issubclass(kind, ModelsFailedError | ExceptionGroup)
        and not issubclass(cls, kind)
        and _is_made_of_text(kind)
        and all(isinstance(error, kind) for error in errors)
    )


def _is_made_of_text(kind: type) -> bool:
    """Return whether an error can be created from a message alone; pydantic's cannot."""
    maker = next(each for each in kind.__mro__ if "__new__" in vars(each))
    return maker.__module__ == "builtins" or maker is AutoMixError


@functools.cache
def _of_kinds(cls: Any, kinds: tuple[Any, ...]) -> Any:
    """Return a subclass of `ModelsFailedError` and of further classes; always the same class."""
    namespace: dict[str, Any] = {"__doc__": cls.__doc__, "__module__": cls.__module__}
    if kinds:
        namespace["__getattr__"] = _get_from_last
    made, bases = cls, [cls]
    for kind in (*kinds, ExceptionGroup):
        if not issubclass(made, kind):
            # Some classes cannot be subclassed, or cannot be combined with those before them.
            with contextlib.suppress(TypeError):
                made = type(cls.__name__, (*bases, kind), dict(namespace))
                bases.append(kind)
    return made


def _get_from_last(error: Any, name: str) -> Any:
    causes = vars(error).get("_exceptions")
    if not causes or name.startswith("__"):
        raise AttributeError(name)
    return getattr(causes[-1], name)


def _line(error: Exception) -> str:
    """Return an error on one line; a long text is cut in the middle."""
    text = " ".join(str(error).split())
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_IN_WORDS = {"missing": "it is missing", "extra_forbidden": "there is no such field"}
"""Plain wordings of problems that pydantic describes for programmers."""


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a validation on one line: the field and what is wrong."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or "(the whole)"
    said = _IN_WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    return f"field {field}: {said.removesuffix('.')}."


def near_matches(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return ` Did you mean 'X'?` with the most similar known names; empty if none is similar.

    Args:
        name: The unknown name.
        known: The known names.
        cutoff: Minimum similarity, in [0, 1], of a suggested name.
    """
    names = {each.casefold(): each for each in known}
    found = difflib.get_close_matches(name.casefold(), names, n=2, cutoff=cutoff)
    return f" Did you mean {' or '.join(repr(names[each]) for each in found)}?" if found else ""
