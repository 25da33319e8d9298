"""The protocol of a flow: a generator that yields calls and is sent their results.

A flow never makes a call itself, so the same code serves `invoke`, `ainvoke`, `batch`, `abatch`,
`stream` and `astream`; only the drivers know how a call is made. A flow uses two helpers: `answer =
yield from call(...)` and `results = yield from gather(...)`.
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
"""Who is notified of a call. Readers are the handlers that show tokens to a user (`astream_events`,
LangGraph's message stream); all other handlers are called tracers here. A draft that may be
rejected is for tracers only; an answer that is replayed once it is kept is for readers only."""


@dataclass(slots=True, eq=False)
class Call(Generic[T]):
    """One call that a flow asks for, and how it is named in a trace."""

    runnable: Runnable[Any, T]
    input: Any
    run_name: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[BaseCallbackHandler] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    audience: Audience = "everyone"
    guard: StreamGuard | None = None
    """Set if the call's output is the user's answer, so that `stream` may pass its chunks on. It
    tracks whether any chunk has been shown."""

    is_timed: bool = False
    """Whether the deadline of the run applies. A call that misses it results in a `DeadlineError`,
    unless part of its output has been shown."""

    is_instant: bool = False
    """Whether the call takes almost no time. A batch then makes it at once instead of with the next
    level, during which all models would be idle."""

    started: bool = field(default=False, init=False)
    """Whether a driver has started the call; shows a closed flow what may have been billed."""


Steps = Generator[tuple[Call, ...], Sequence[Any], T]
"""Yields calls that may run side by side, is sent one result for each (a value or an exception),
and returns a T. A flow that is ended early gets `GeneratorExit` and can make no more calls."""


@dataclass(frozen=True, slots=True)
class Report:
    """The data that is announced when a run ends."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Flat values by which trace viewers can filter."""

    tags: Sequence[str] = ()
    event: Mapping[str, Any] | None = None
    """The payload for listeners to custom events named `automix`."""

    count: Callable[[], None] | None = None
    """Counts the query in metrics. It is not called for a run inside another mix, which counts the
    query itself."""


@dataclass(frozen=True, slots=True)
class Flow(Generic[T]):
    """The steps of one run, how long they may take, and what the run reports."""

    steps: Steps[T]
    deadline: Deadline | None = None
    report: Callable[[], Report | None] = lambda: None
    """Called once the steps have ended, even early or with an error; None announces nothing."""

    ended: Callable[[UUID, RunnableConfig, Exception | None], None] | None = None
    """Called last, however the steps have ended, with the id and the configuration of the run and
    the error that ended it. It must not block or raise, and it may be called more than once."""


def call(wanted: Call[T]) -> Steps[T]:
    """Make one call and return its result.

    Raises:
        Exception: The error that the call raised.
    """
    [result] = values((yield (wanted,)))
    return result  # type: ignore[no-any-return]


@overload
def gather(first: Call[A], second: Call[B], /) -> Steps[tuple[A | Exception, B | Exception]]: ...
@overload
def gather(*wanted: Call[T]) -> Steps[Sequence[T | Exception]]: ...
def gather(*wanted: Call) -> Steps[Sequence[Any]]:
    """Make calls side by side and return the result or the exception of each."""
    return (yield wanted) if wanted else ()


def values(results: Iterable[T | Exception]) -> list[T]:
    """Return results if all of them are values.

    Raises:
        Exception: The first result that is an exception.
    """
    found = []
    for result in results:
        if isinstance(result, Exception):
            raise result
        found.append(result)
    return found


class NeedsNoSlot:
    """Marks a Runnable that takes no slot under the limit, since it calls no model itself.

    The drivers make the calls that its flow asks for, and each of those takes a slot.
    """


def made_of_steps(invoke: F) -> F:
    """Mark a method that does nothing beyond the steps of its Runnable.

    If no handler is notified of the run, the steps may be taken without calling the method; see
    `MadeOfSteps`.
    """
    # The function itself: a wrapper copies the attributes of what it wraps, but may do more.
    invoke.is_made_of_steps = invoke  # type: ignore[attr-defined]
    return invoke


class MadeOfSteps(NeedsNoSlot, ABC):
    """A Runnable whose steps a flow can take directly, without a run of their own."""

    @abstractmethod
    def steps(self, input: Any, **kwargs: Any) -> Steps[Any]:
        """Return the flow of one input, for a caller that makes its calls itself."""


def steps_instead(wanted: Call[T]) -> Steps[T] | None:
    """Return the steps that can replace a call, or None if the call must be made.

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
