"""The error that bad input raises, and those of a query that gets no answer."""

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
    """Something given to langchain-automix cannot be used, or a query got no answer.

    The message says what was wrong, where, and what to do about it. The command line
    prints it on one line and exits with code 2.

    What cannot be used is a `ValueError`, too (an `InvalidInputError`), as pydantic's is for a
    bad argument. A query that got no answer (`QueryFailedError`) is none: retries, such as
    LangGraph's `RetryPolicy`, take a `ValueError` for a mistake that no repetition mends.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Return the error; one that is of no kind of its own is of bad input."""
        del kwargs
        kind: Any = InvalidInputError if cls is AutoMixError else cls
        made: Self = super().__new__(kind, *args)
        return made


class InvalidInputError(AutoMixError, ValueError):
    """Something given to langchain-automix cannot be used: what `AutoMixError(...)` makes."""


class OutOfReachError(InvalidInputError):
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


class UnknownQueryError(InvalidInputError, LookupError):
    """A query that a learning store does not hold."""


class StoreUnavailableError(AutoMixError, ConnectionError):
    """A learning store cannot be reached, read or written at present; later it may."""


class QueryFailedError(AutoMixError):
    """A query got no answer, and nothing that was given to the mix is at fault."""


class CutShortError(QueryFailedError):
    """A model's stream ended before its answer did: the provider never said that it was done."""


class DeadlineError(QueryFailedError, TimeoutError):
    """The time of a query (`max_latency`) was up before there was an answer."""


class StreamClosedError(QueryFailedError):
    """A draft was given up while it was written (`give_up_early`): its run in a trace ends so."""


class SpendLimitReachedError(QueryFailedError, RuntimeError):
    """A query was not begun, for the money of a `SpendLimit` is spent; nothing was paid for it.

    A `RuntimeError`, which LangGraph's `RetryPolicy` does not retry by default.
    """


class CircuitOpenError(QueryFailedError):
    """A model was not asked, for it has kept failing (`CircuitBreaker`); it cost nothing."""


class ModelsFailedError(QueryFailedError):
    """Several models were asked, and each failed; its `exceptions` are all their errors, in order.

    It is of every kind that all of them are of, Python's own, LangChain's and the clients'
    (`ConnectionError`, `ModelRateLimitError`, `openai.APIStatusError`, ...): `except` and retries
    that know the kind see it. What such a kind has beside its message, such as `status_code`, is
    the last error's. It is an `ExceptionGroup`, too, unless they share a kind that Python cannot
    make one of (`OSError` with `ConnectionError` and `TimeoutError`; `ImportError`); the last
    error is then its `__cause__`. A query that only one model failed raises that model's own error.
    """

    def __new__(cls, message: str, exceptions: Sequence[Exception]) -> Self:
        """Return the error; of all kinds that the causes have in common."""
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
        """Return the error of models, by name, that failed with these."""
        told = "; ".join(f"{name}: {_line(error)}" for name, error in failures.items())
        return cls(f"No model of the mix gave an answer. {told}", list(failures.values()))

    def derive(self, excs: Sequence[Any], /) -> Any:
        """Return the error of some of the causes, as a split of an `ExceptionGroup` asks for it."""
        made = ModelsFailedError(self.message, excs)
        if not isinstance(made, ExceptionGroup):  # what they share is no kind of group
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
    """Return the classes that all errors are of, the narrowest first, without those of `cls`."""
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
    """Whether an error of a kind can be made of a message alone; not pydantic's, for one."""
    maker = next(each for each in kind.__mro__ if "__new__" in vars(each))
    return maker.__module__ == "builtins" or maker is AutoMixError


@functools.cache
def _of_kinds(cls: Any, kinds: tuple[Any, ...]) -> Any:
    """Return the class of a `ModelsFailedError` that is of further kinds; always the same one."""
    namespace: dict[str, Any] = {"__doc__": cls.__doc__, "__module__": cls.__module__}
    if kinds:
        namespace["__getattr__"] = _get_from_last
    made, bases = cls, [cls]
    for kind in (*kinds, ExceptionGroup):
        if not issubclass(made, kind):
            # Some kinds allow no subclass, or none that is also of those before it.
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
    """Return an error on one line; of a long text, the beginning and the end."""
    text = " ".join(str(error).split())
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


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
