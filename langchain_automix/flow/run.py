"""One flow in progress: the calls it waits for, then what it came to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic

from langchain_core.runnables.config import patch_config

from langchain_automix.flow.callbacks import (
    aannounce,
    announce,
    is_inside_mix,
    is_reader,
    without_readers,
)
from langchain_automix.flow.clock import Deadline
from langchain_automix.flow.steps import BrokenOff, Call, Note, Steps, T
from langchain_automix.flow.stream_guard import StreamGuard

if TYPE_CHECKING:
    from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
    from langchain_core.runnables import RunnableConfig


class FlowRun(Generic[T]):
    """One flow under way: the calls that it waits for, then what it came to."""

    def __init__(
        self,
        flow: Steps[T],
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
            await aannounce(self._untold.pop(0), self.run_manager)

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
                announce(wanted, self.run_manager)
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
        if call.audience != "everyone":
            for kind in ("handlers", "inheritable_handlers"):
                handlers = getattr(manager, kind)
                if call.audience == "readers":
                    handlers = [h for h in handlers if is_reader(h)]
                else:
                    handlers = without_readers(handlers)
                setattr(manager, kind, handlers)
        child = patch_config(self.config, callbacks=manager, run_name=call.run_name)
        if call.tags:
            child["tags"] = [*(self.config.get("tags") or []), *call.tags]
        if call.metadata:
            child["metadata"] = {**(self.config.get("metadata") or {}), **call.metadata}
        return child

    @property
    def clock(self) -> Deadline | None:
        """The time that the calls have together; None: all of it."""
        return next((call.clock for call in self.calls if call.clock is not None), None)

    @property
    def showing(self) -> StreamGuard | None:
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
                    announce(wanted, self.run_manager)
                    self._untold.append(wanted)
                    if wanted.count is not None and not is_inside_mix(self.run_manager.tags):
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
