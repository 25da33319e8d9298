"""The protocol of a flow: a generator that yields calls and is sent what they came to.

A flow never makes a call itself, so the same lines serve `invoke`, `ainvoke`, `batch`, `abatch`,
`stream` and `astream`; only the drivers know how a call is made. A flow uses two helpers:
`answer = yield from call(...)` and `results = yield from gather(...)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from typing_extensions import TypeVar

if TYPE_CHECKING:
    from uuid import UUID

    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.runnables import Runnable, RunnableConfig

    from langchain_automix.flow.clock import Deadline
    from langchain_automix.flow.stream_guard import StreamGuard

T = TypeVar("T", default=Any)
A = TypeVar("A")
B = TypeVar("B")
F = TypeVar("F", bound=Callable[..., Any])

Audience = Literal["everyone", "tracers", "readers"]
"""Who hears of a call. Readers are the handlers through which a user sees tokens
(`astream_events`, LangGraph's message stream); all others are tracers here. What may yet be
rejected is for tracers only; what is replayed once it is kept is for readers only."""


@dataclass(slots=True, eq=False)
class Call(Generic[T]):
    """One call that a flow wants made, and how it is named in a trace."""

    runnable: Runnable[Any, T]
    input: Any
    run_name: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[BaseCallbackHandler] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    audience: Audience = "everyone"
    guard: StreamGuard | None = None
    """Set where its output is what the user gets, so that `stream` may pass its chunks on: knows
    whether any of it was shown."""

    is_timed: bool = False
    """Whether the run's deadline applies: a call that is not done by then came to a
    `DeadlineError`, unless some of it was shown."""

    is_instant: bool = False
    """Whether it takes next to no time, so that a batch makes it at once instead of with the next
    level: no model would be at work while all queries make it."""

    started: bool = field(default=False, init=False)
    """Whether a driver has begun it; a flow that is closed sees by it what may have been billed."""


Steps = Generator[tuple[Call, ...], Sequence[Any], T]
"""Yields calls that may run side by side; is sent one result for each, a value or an exception;
returns a T. A flow that is ended early sees `GeneratorExit`, and can make no call any more."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is announced of a run at its end."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Flat values, by which trace viewers filter."""

    tags: Sequence[str] = ()
    event: Mapping[str, Any] | None = None
    """What listeners to custom events named `automix` get."""

    count: Callable[[], None] | None = None
    """Counts the query in metrics; not called where it is a part of another one, which counts
    it all."""


@dataclass(frozen=True, slots=True)
class Flow(Generic[T]):
    """The steps of one run, how long they may take, and what the run reports."""

    steps: Steps[T]
    deadline: Deadline | None = None
    report: Callable[[], Report | None] = lambda: None
    """Called once the steps have ended, also by an error or early; None: nothing is announced."""

    ended: Callable[[UUID, RunnableConfig, Exception | None], None] | None = None
    """Called last, however the steps have ended, with the id and the configuration of the run, and
    the error that ended it; it neither waits nor raises, and may be called more than once."""


def call(wanted: Call[T]) -> Steps[T]:
    """Make one call and return its result.

    Raises:
        Exception: What the call raised.
    """
    [result] = values((yield (wanted,)))
    return result  # type: ignore[no-any-return]


@overload
def gather(first: Call[A], second: Call[B], /) -> Steps[tuple[A | Exception, B | Exception]]: ...
@overload
def gather(*wanted: Call[T]) -> Steps[Sequence[T | Exception]]: ...
def gather(*wanted: Call) -> Steps[Sequence[Any]]:
    """Make calls side by side and return what each came to: its result, or its exception."""
    return (yield wanted) if wanted else ()


def values(results: Iterable[T | Exception]) -> list[T]:
    """Return results that are all values.

    Raises:
        Exception: The first result that is one.
    """
    found = []
    for result in results:
        if isinstance(result, Exception):
            raise result
        found.append(result)
    return found


class NeedsNoSlot:
    """Mark of a Runnable that takes no slot under the limit, for itself it calls no model.

    The calls that its flow wants are made by the drivers here, and each of those takes a slot.
    """


def made_of_steps(invoke: F) -> F:
    """Mark a method that does no more than the steps of its Runnable, by which it is called.

    A run that nobody hears of may then take the steps itself: `MadeOfSteps` says how.
    """
    # Itself, for a wrapper takes over the attributes of what it wraps, and may do more.
    invoke.is_made_of_steps = invoke  # type: ignore[attr-defined]
    return invoke


class MadeOfSteps(NeedsNoSlot, ABC):
    """A Runnable that can be taken step by step, instead of being called as a run of its own."""

    @abstractmethod
    def steps(self, input: Any, **kwargs: Any) -> Steps[Any]:
        """Return the flow of one input, for a caller that makes its calls itself."""


def steps_instead(wanted: Call[T]) -> Steps[T] | None:
    """Return the steps that a call comes to; None where only the call itself will do.

    Subclasses may do more in `invoke`, and bindings and retries wrap it.
    """
    runnable: Any = wanted.runnable
    kind = type(runnable)
    if isinstance(runnable, MadeOfSteps) and all(
        getattr(method, "is_made_of_steps", None) is method
        for method in (kind.invoke, kind.ainvoke, getattr(kind, "_begin", kind.invoke))
    ):
        return runnable.steps(wanted.input, **wanted.kwargs)
    return None
