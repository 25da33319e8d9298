"""One flow for sync and async, for one query and for many.

A flow is a generator: it yields the calls that it wants made, and receives their results.
It never calls a model itself, so the same lines serve `invoke`, `ainvoke`, `batch`, `abatch`,
`stream` and `astream`; only the drivers (`_drivers.py`) know how a call is carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from langchain_automix.flow.clock import Deadline
from langchain_automix.flow.stream_guard import StreamGuard

if TYPE_CHECKING:
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.runnables import Runnable

T = TypeVar("T")

Audience = Literal["everyone", "tracers", "readers"]
"""Who is told of a call. Readers are the handlers through which a user sees tokens
(`astream_events`, LangGraph's message stream); all others are tracers here. What may yet be
rejected is for tracers only; what is told a second time, once it is kept, is for readers only."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that a flow wants made, and how it is named in a trace."""

    runnable: Runnable[Any, Any]
    input: Any
    run_name: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[BaseCallbackHandler] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    audience: Audience = "everyone"
    showing: StreamGuard | None = None
    """Where its output is what the user gets, so that `stream` may pass its chunks on: knows
    whether any of it was shown."""

    clock: Deadline | None = None
    """The query's time, where it has an end: it runs while the call is under way, and a call that
    is not done by then is given up (`DeadlineError`), unless some of it was shown."""

    hands_back: bool = False
    """Whether its error is handed back in the place of its result: the results of the calls
    beside it are not lost, and none of these is cancelled. Where all calls do, that holds for the
    end of their time, too."""

    follows: bool = False
    """Whether it takes no time to speak of, and so is made, in a batch, as soon as it is known
    instead of with the next level: no model would be at work while all queries make it."""

    @property
    def streams(self) -> bool:
        """Whether its output is what the user gets."""
        return self.showing is not None


@dataclass(frozen=True, slots=True)
class Note:
    """What is told of a flow's own run, once it is known."""

    metadata: Mapping[str, Any]
    """Flat values, which trace viewers filter by."""

    tags: Sequence[str] = ()
    event: Mapping[str, Any] | None = None
    """What listeners to custom events named `automix` get."""

    count: Callable[[], None] | None = None
    """Counts the query; not done where it is a part of another one, which counts it all."""


Steps = Generator[Sequence[Call] | Note, list[Any], T]
"""Yields calls that may run side by side; is sent their results, in order; returns a T. A note
that it yields is told, and has no result."""


class BrokenOff(BaseException):
    """What a flow gets, where it waits, that is ended before it is done: it may note so, no more.

    A generator's own `close` goes down to the innermost one, and lets none of them yield a note.
    """

    def __init__(self, *, under_way: bool) -> None:
        super().__init__()
        self.under_way = under_way
        """Whether the calls that it waits for have begun."""


class NeedsNoSlot:
    """Mark of a Runnable that needs no place under the limit, for itself it calls no model.

    What it wants called is driven here, and each of those calls takes a place.
    """
