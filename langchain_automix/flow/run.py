"""One flow in progress: the calls it waits for, then its result."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from langchain_automix.flow.callbacks import (
    aannounce,
    announce,
    child_config,
    hears_requests_only,
    in_context,
    is_reader,
)
from langchain_automix.flow.steps import Call, Flow, Report, Steps, T, call, gather, steps_instead
from langchain_automix.utils.identifiers import is_of_package

if TYPE_CHECKING:
    from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
    from langchain_core.runnables import RunnableConfig

    from langchain_automix.flow.clock import Deadline
    from langchain_automix.flow.stream_guard import StreamGuard

_LOGGER = logging.getLogger(__name__)
_HELPERS = {call.__code__, gather.__code__}


class _BegunPart(NamedTuple):
    """A call whose first steps have been taken without a driver."""

    of: Call
    steps: Steps[Any]
    calls: tuple[Call, ...]
    """The calls that its steps wait for."""


class FlowRun(Generic[T]):
    """One flow in progress: the calls that it waits for, then its result."""

    def __init__(
        self,
        flow: Flow[T],
        run_manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        calls: tuple[Call, ...] = (),
    ) -> None:
        """Take a flow to its first calls, unless `calls` says that it is already there."""
        self.config = config
        self.calls = calls
        self.done = False
        self.error: Exception | None = None
        self.streamed = False
        self._flow = flow
        self._run_manager = run_manager
        self._result: Any = None
        self._report: Report | None = None
        self._has_readers = any(is_reader(handler) for handler in run_manager.handlers)
        # LangChain may attach a handler of the same class to each run, even if it is not inherited.
        handlers = [*run_manager.handlers, *run_manager.inheritable_handlers]
        self._is_heard = not all(map(hears_requests_only, handlers))
        self._begun: _BegunPart | None = None
        if not calls:
            self.resume(None)

    def resume(self, results: Sequence[Any] | None) -> None:
        """Send the results of its calls to the flow, and advance it to its next calls."""
        try:
            self._drop_begun()
            self.calls = self._flow.steps.send(results)  # type: ignore[arg-type]
            while (found := self._at_once()) is not None:
                self.calls = self._flow.steps.send(found)
        except StopIteration as stop:
            self._end(result=stop.value)
        except Exception as error:  # noqa: BLE001  (kept for the caller who asks for the result)
            self._end(error=error)
        for each in self.calls:
            each.started = False  # the same call may be asked for twice
        if self.calls and _LOGGER.isEnabledFor(logging.DEBUG):
            _LOGGER.debug("%s calls %s", self.where(), ", ".join(map(_name, self.calls)))

    def _at_once(self) -> list[Any] | None:
        """Return the results of calls that need no driver, or None if a driver must make them."""
        if not self._has_readers and all(each.audience == "readers" for each in self.calls):
            return [None] * len(self.calls)
        wanted = self.calls[0]
        if self._is_heard or not wanted.is_instant or len(self.calls) > 1:
            return None
        try:
            if (steps := steps_instead(wanted)) is None:
                return None
            with self._context_of(wanted):
                self._begun = _BegunPart(wanted, steps, next(steps))
        except StopIteration as stop:
            return [stop.value]
        except Exception as error:  # noqa: BLE001  (the flow decides what an error means)
            return [self.explain(error, wanted)]
        return None

    def _drop_begun(self) -> None:
        """Close steps that were begun without a driver and then never continued."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.steps.close()

    def _context_of(self, wanted: Call) -> contextlib.AbstractContextManager[None]:
        """Return the context in which a call's steps are begun without a driver.

        An instant call to one of our own Runnables makes no calls that would read the context.
        """
        if is_of_package(type(wanted.runnable)):
            return contextlib.nullcontext()
        config = self.start(wanted)
        config.pop("run_name", None)  # names the call, not the calls made within it
        return in_context(config)

    def result(self) -> T:
        """Return the result of the flow, or raise its error."""
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the flow at its current step, unless it has already ended."""
        if not self.done:
            try:
                self._drop_begun()
            finally:
                self._flow.steps.close()
                self._end()

    async def aannounce(self) -> None:
        """Announce the report to the handlers that are awaited.

        A flow that was closed skips this, since its caller is no longer awaiting anything.
        """
        if self._report is not None:
            await aannounce(self._report, self._run_manager)

    def where(self) -> str:
        """Name the functions in which the flow is suspended, outermost first.

        The stack of a call does not show them; it contains only the drivers.
        """
        return " -> ".join(_suspended(self._flow.steps))

    def explain(self, error: Exception, made: Call) -> Exception:
        """Return a call's error with a note that says where in the flow the call was made."""
        with contextlib.suppress(Exception):  # some errors accept no notes
            note = f"In the call {_name(made)!r} of {self.where()}"
            if note not in getattr(error, "__notes__", ()):  # models may reraise one error
                error.add_note(note)
        return error

    def start(self, wanted: Call) -> RunnableConfig:
        """Mark a call as started, and return the configuration that makes it a child run."""
        wanted.started = True
        return child_config(wanted, self._run_manager, self.config, has_readers=self._has_readers)

    def part(self, wanted: Call, config: RunnableConfig) -> FlowRun[Any] | None:
        """Return a call as a flow within this run, or None if it must be made as a call.

        Args:
            wanted: The call.
            config: As returned by `start`.

        Returns:
            None if a handler would be notified of the call's own run, or if the call does more than
            its steps.
        """
        if self._is_heard:
            return None
        steps: Steps[Any] | None = None
        calls: tuple[Call, ...] = ()
        if self._begun is not None and self._begun.of is wanted:
            (_, steps, calls), self._begun = self._begun, None
        if steps is None and (steps := steps_instead(wanted)) is None:
            return None
        config.pop("run_name", None)  # names the call, not the calls made within it
        manager: Any = config["callbacks"]  # the handlers notified of the inner calls
        inherited = {
            "handlers": manager.handlers,
            "inheritable_handlers": manager.inheritable_handlers,
            "inheritable_tags": manager.inheritable_tags,
            "inheritable_metadata": manager.inheritable_metadata,
        }
        run_id = self._run_manager.run_id
        within = type(self._run_manager)(run_id=run_id, parent_run_id=run_id, **inherited)
        return FlowRun(Flow(steps), within, config, calls)

    @property
    def is_part(self) -> bool:
        """Whether this run is part of another one: of a chain, a graph or a mix."""
        return self._run_manager.parent_run_id is not None

    @property
    def deadline(self) -> Deadline | None:
        """The time left for the calls; None if there is no limit."""
        return self._flow.deadline if any(each.is_timed for each in self.calls) else None

    @property
    def guard(self) -> StreamGuard | None:
        """The guard of the one call it waits for; None if users see no output of that call."""
        return self.calls[0].guard if len(self.calls) == 1 and self._has_readers else None

    @property
    def is_between_levels(self) -> bool:
        """Whether all calls it waits for are instant, and so do not count as a level."""
        return bool(self.calls) and all(each.is_instant for each in self.calls)

    def _end(self, result: Any = None, error: Exception | None = None) -> None:
        self.calls, self.done, self._result, self.error = (), True, result, error
        self._report = self._flow.report()
        if self._report is not None:
            announce(self._report, self._run_manager)
        if self._flow.ended is not None:
            self._flow.ended(self._run_manager.run_id, self.config, error)


def _name(wanted: Call) -> str:
    return wanted.run_name or wanted.runnable.get_name()


def _suspended(steps: Any) -> Iterator[str]:
    while isinstance(steps, GeneratorType):
        if steps.gi_code not in _HELPERS:
            yield steps.__qualname__
        steps = steps.gi_yieldfrom
