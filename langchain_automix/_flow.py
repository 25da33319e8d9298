"""One flow for sync and async, for one query and for many.

A flow is a generator: it yields the calls that it wants made, and receives their results.
It never calls a model itself, so the same lines serve `invoke`, `ainvoke`, `batch`, `abatch`,
`stream` and `astream`; only the drivers (`_drivers.py`) know how a call is carried out.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from langchain_core.callbacks.manager import AsyncRunManager, ahandle_event, handle_event
from langchain_core.runnables.config import patch_config
from langchain_core.tracers._streaming import (
    _StreamingCallbackHandler,
    _V2StreamingCallbackHandler,
)

from langchain_automix._faults import Showing
from langchain_automix._pace import Clock

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForChainRun,
        BaseCallbackHandler,
        BaseRunManager,
        CallbackManagerForChainRun,
    )
    from langchain_core.runnables import Runnable, RunnableConfig

_LOGGER = logging.getLogger(__name__)
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
    showing: Showing | None = None
    """Where its output is what the user gets, so that `stream` may pass its chunks on: knows
    whether any of it was shown."""

    clock: Clock | None = None
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


Flow = Generator[Sequence[Call] | Note, list[Any], T]
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


class Flowing:
    """Mark of a Runnable that needs no place under the limit, for itself it calls no model.

    What it wants called is driven here, and each of those calls takes a place.
    """


class Underway(Generic[T]):
    """One flow under way: the calls that it waits for, then what it came to."""

    def __init__(
        self,
        flow: Flow[T],
        run_manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
    ) -> None:
        self.flow = flow
        self.run_manager = run_manager
        self.config = config
        self.calls: Sequence[Call] = ()
        self.done = False
        self.error: Exception | None = None
        self.streamed = False
        self._under_way = False
        self._result: Any = None
        self._untold: list[Note] = []
        self._readers = any(is_reader(handler) for handler in run_manager.handlers)
        self._go_on(lambda: next(flow))

    def resume(self, outcome: list[Any] | Exception) -> None:
        """Give the flow the results of its calls, or the error that one of them raised."""
        if isinstance(outcome, Exception):
            self._go_on(lambda: self.flow.throw(outcome))
        else:
            self._go_on(lambda: self.flow.send(outcome))

    async def aresume(self, outcome: list[Any] | Exception) -> None:
        """Do as `resume`, and then tell those who listen asynchronously."""
        self.resume(outcome)
        while self._untold:
            await atell(self._untold.pop(0), self.run_manager)

    def result(self) -> T:
        """Return what the flow came to; raises its error."""
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the flow where it is, and tell what it notes of that.

        Those who listen asynchronously are not told: who ends it, awaits nothing more.
        """
        if self.done:
            return
        with contextlib.suppress(BrokenOff, StopIteration):
            wanted = self.flow.throw(BrokenOff(under_way=self._under_way))
            while isinstance(wanted, Note):
                tell(wanted, self.run_manager)
                wanted = self.flow.send([])
        self.flow.close()

    def config_of(self, call: Call) -> RunnableConfig:
        """Return the configuration that makes a call a child of this flow's run."""
        self._under_way = True
        manager = self.run_manager.get_child()
        for handler in call.callbacks:  # first of all, since they may mend what others are told
            manager.handlers.insert(0, handler)
            manager.inheritable_handlers.insert(0, handler)
        if self._readers and call.showing is not None:  # it is told before the readers
            manager.handlers.insert(0, call.showing)
            manager.inheritable_handlers.insert(0, call.showing)
        if self._readers and call.audience != "everyone":
            wanted = call.audience == "readers"
            for kind in ("handlers", "inheritable_handlers"):
                told = [h for h in getattr(manager, kind) if is_reader(h) is wanted]
                setattr(manager, kind, told)
        child = patch_config(self.config, callbacks=manager, run_name=call.run_name)
        if call.tags:
            child["tags"] = [*(self.config.get("tags") or []), *call.tags]
        if call.metadata:
            child["metadata"] = {**(self.config.get("metadata") or {}), **call.metadata}
        return child

    @property
    def clock(self) -> Clock | None:
        """The time that the calls have together; None: all of it."""
        return next((call.clock for call in self.calls if call.clock is not None), None)

    @property
    def showing(self) -> Showing | None:
        """What knows whether users see the one call that it waits for; None: they do not."""
        return self.calls[0].showing if len(self.calls) == 1 and self._readers else None

    @property
    def is_between_levels(self) -> bool:
        """Whether it waits for calls that are not a level of their own."""
        return bool(self.calls) and all(call.follows for call in self.calls)

    def _go_on(self, step: Callable[[], Sequence[Call] | Note]) -> None:
        self._under_way = False
        try:
            wanted = step()
            while True:
                if isinstance(wanted, Note):
                    tell(wanted, self.run_manager)
                    self._untold.append(wanted)
                    if wanted.count is not None and not is_within_a_mix(self.run_manager.tags):
                        wanted.count()
                    wanted = self.flow.send([])
                elif not self._readers and all(call.audience == "readers" for call in wanted):
                    wanted = self.flow.send([None] * len(wanted))
                else:
                    break
            self.calls = wanted
        except StopIteration as stop:
            self.calls, self.done, self._result = (), True, stop.value
        except Exception as error:  # noqa: BLE001  (kept for whoever asks for the result)
            self.calls, self.done, self.error = (), True, error


def tell(
    note: Note, run_manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun
) -> None:
    """Tell tracers and listeners of a note; what fails in one never fails a query, or another.

    Those who listen asynchronously to an asynchronous run are left to `atell`.
    """
    for handler in _each_once(run_manager.handlers):
        try:
            _mark(handler, note, run_manager)
            if note.event is not None and not _is_awaited(handler, run_manager):
                handle_event([handler], *_EVENT, note.event, **_about(run_manager))
        except Exception:
            _LOGGER.debug(_UNTOLD, type(handler).__name__, exc_info=True)


async def atell(
    note: Note, run_manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun
) -> None:
    """Tell those of a note whom `tell` would keep waiting: what they await may be this loop's."""
    if note.event is None:
        return
    for handler in _each_once(run_manager.handlers):
        if _is_awaited(handler, run_manager):
            try:
                await ahandle_event([handler], *_EVENT, note.event, **_about(run_manager))
            except Exception:
                _LOGGER.debug(_UNTOLD, type(handler).__name__, exc_info=True)


def is_within_a_mix(tags: Iterable[str] | None) -> bool:
    """Whether a run is made for a mix: what that asks for is tagged so, and tags go down."""
    return any(tag.startswith("automix:") for tag in tags or ())


_UNTOLD = "%s takes no note of a decision"
_EVENT = ("on_custom_event", "ignore_custom_event", "automix")


def _about(run_manager: BaseRunManager) -> dict[str, Any]:
    return {
        "run_id": run_manager.run_id,
        "tags": run_manager.tags,
        "metadata": run_manager.metadata,
    }


def _each_once(handlers: Sequence[BaseCallbackHandler]) -> Iterable[BaseCallbackHandler]:
    """Leave out a handler's repeats: one that is set on the mix and given to a call, too."""
    return {id(handler): handler for handler in handlers}.values()


def _is_awaited(handler: BaseCallbackHandler, run_manager: BaseRunManager) -> bool:
    listens = inspect.iscoroutinefunction(handler.on_custom_event)
    return listens and isinstance(run_manager, AsyncRunManager)


def _mark(handler: BaseCallbackHandler, note: Note, run_manager: BaseRunManager) -> None:
    run = (getattr(handler, "run_map", None) or {}).get(str(run_manager.run_id))
    if run is not None:
        known = run.extra or {}
        metadata = {**(known.get("metadata") or {}), **note.metadata}
        run.extra = {**known, "metadata": metadata}
        run.tags = [*(run.tags or []), *note.tags]


def is_reader(handler: BaseCallbackHandler) -> bool:
    """Whether a user sees tokens through this handler."""
    return isinstance(handler, _StreamingCallbackHandler | _V2StreamingCallbackHandler)
