"""Wait for calls no longer than a query's time allows: sync by a thread, async by cancelling."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, wait
from contextvars import ContextVar, copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from langchain_automix.errors import DeadlineError
from langchain_automix.flow.clock import Deadline
from langchain_automix.flow.steps import Call
from langchain_automix.flow.stream_guard import StreamGuard

T = TypeVar("T")
END_OF_STREAM: Any = object()
"""Stands for the end of a stream."""

_UP = "It was given up: the query's time (max_latency) was up."


class AbandonableWork:
    """What is done in a thread for somebody who waits for it; once nobody does, it begins no call.

    Nothing can stop the call that is under way, but its place in a batch is given to another.
    """

    def __init__(self, outer: AbandonableWork | None) -> None:
        self._outer = outer
        self._inner: list[AbandonableWork] = []
        if outer is not None:
            outer._inner.append(self)  # noqa: SLF001  (of its own kind)
        self._places: list[threading.Semaphore] = []
        self._is_over = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def place(self, gate: threading.Semaphore | None) -> Iterator[None]:
        """Hold a place for a call, for as long as it is waited for.

        Raises:
            DeadlineError: It is not waited for any more.
        """
        with contextlib.ExitStack() as held:
            if gate is not None:
                gate.acquire()
                held.callback(self._leave, gate)
            with self._lock:
                if gate is not None:
                    self._places.append(gate)
                is_over = self._is_over
            if is_over:
                raise DeadlineError(_UP)
            if self._outer is not None:
                held.enter_context(self._outer.place(None))
            yield

    def _leave(self, gate: threading.Semaphore) -> None:
        with self._lock:
            if gate not in self._places:
                return
            self._places.remove(gate)
        gate.release()

    def give_up(self) -> None:
        """Wait no longer."""
        with self._lock:
            self._is_over = True
            left, self._places = self._places, []
        for gate in left:
            gate.release()
        for inner in self._inner:
            inner.give_up()


ABANDONABLE: ContextVar[AbandonableWork | None] = ContextVar("automix_waiting", default=None)


def start_work(work: Callable[[], T]) -> Future[T]:
    """Do work in a thread of its own, which, unlike a pool's, keeps no process alive."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  (raised again where it is waited for)
            done.set_exception(error)

    context = copy_context()
    threading.Thread(target=context.run, args=(run,), name="automix", daemon=True).start()
    return done


def wait_within(clock: Deadline, work: Callable[[], T], showing: StreamGuard | None = None) -> T:
    """Do work in a thread of its own, and wait for it until the time is up.

    Args:
        clock: The time.
        work: What is done.
        showing: Knows whether users see it already: then it is waited for to its end.

    Raises:
        DeadlineError: The time was up. The thread, which nothing can stop, ends by itself; it
            keeps no process alive.
    """
    waiting = AbandonableWork(ABANDONABLE.get())
    token = ABANDONABLE.set(waiting)
    try:
        with clock.running():
            done = start_work(work)
            wait([done], timeout=max(0.0, clock.left))
            if not done.done() and (showing is None or showing.give_up()):
                raise DeadlineError(_UP)
            return done.result()
    finally:
        ABANDONABLE.reset(token)
        waiting.give_up()


@contextlib.asynccontextmanager
async def await_within(
    clock: Deadline | None, showing: StreamGuard | None = None
) -> AsyncIterator[None]:
    """Cancel what is awaited within when the time is up, unless users see it already.

    Raises:
        DeadlineError: The time was up.
    """
    if clock is None:
        yield
        return
    with clock.running():
        try:
            async with asyncio.timeout(max(0.0, clock.left)) as scope:
                if showing is not None:
                    loop = asyncio.get_running_loop()
                    # It may be told in a thread.
                    showing.when_told = partial(loop.call_soon_threadsafe, _let_go_on, scope)
                yield
        except TimeoutError:
            if not scope.expired():  # of the call's own
                raise
            raise DeadlineError(_UP) from None


def _let_go_on(scope: asyncio.Timeout) -> None:
    with contextlib.suppress(RuntimeError):  # it is over
        scope.reschedule(None)


def chunks_before(call: Call, chunks: Iterator[Any]) -> Iterator[Any]:
    """Pass on the chunks of a stream; one that shows nothing in time is given up.

    Raises:
        DeadlineError: The time was up, and nothing was shown.
    """
    clock, showing = call.clock, call.showing
    if clock is None or showing is None:
        yield from chunks
        return
    shelf: SimpleQueue[Any] = SimpleQueue()
    left = threading.Event()
    waiting = AbandonableWork(ABANDONABLE.get())
    context = copy_context()
    context.run(ABANDONABLE.set, waiting)
    threading.Thread(
        target=context.run, args=(_pump, chunks, shelf, left), name="automix", daemon=True
    ).start()
    try:
        while True:
            with clock.running():
                chunk = _next(shelf, showing, None if showing.told else max(0.0, clock.left))
            if chunk is END_OF_STREAM:
                return
            if isinstance(chunk, _Failed):
                raise chunk.error
            yield chunk
    finally:
        left.set()
        waiting.give_up()


class _Failed(NamedTuple):
    error: BaseException


def _next(shelf: SimpleQueue[Any], showing: StreamGuard, seconds: float | None) -> Any:
    try:
        return shelf.get(timeout=seconds)
    except Empty:
        if showing.give_up():
            raise DeadlineError(_UP) from None
    return shelf.get()


def _pump(chunks: Iterator[Any], shelf: SimpleQueue[Any], left: threading.Event) -> None:
    """Put a stream's chunks where they are waited for, until nobody does any more."""
    try:
        for chunk in chunks:
            shelf.put(chunk)
            if left.is_set():
                break
    except BaseException as error:  # noqa: BLE001  (raised again where it is waited for)
        shelf.put(_Failed(error))
    else:
        shelf.put(END_OF_STREAM)
    finally:
        if (close := getattr(chunks, "close", None)) is not None:  # of a generator, here alone
            close()
