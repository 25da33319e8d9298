"""Stop waiting for calls at a deadline: sync by leaving a thread, async by cancelling."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, wait
from contextvars import Context, ContextVar, copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from langchain_automix.errors import DeadlineError
from langchain_automix.flow.clock import Deadline
from langchain_automix.flow.stream_guard import StreamGuard

T = TypeVar("T")
END_OF_STREAM: Any = object()
"""Marks the end of a stream."""

_UP = "It was given up: the query's time (max_latency) was up."


class AbandonableWork:
    """Work that runs in a thread while a caller waits; once abandoned, it starts no more calls.

    A call in progress cannot be stopped, but its slot is released for another call.
    """

    def __init__(self, outer: AbandonableWork | None) -> None:
        """Begin work inside other work; abandoning the outer work abandons this, too."""
        self.and_outer: list[AbandonableWork] = [self, *(outer.and_outer if outer else ())]
        self.slots: dict[int, list[threading.Semaphore]] = {}
        self.is_over = False
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def slot(self, limit: threading.Semaphore | None) -> Iterator[None]:
        """Hold a slot for a call until the call ends or is abandoned.

        Raises:
            DeadlineError: The work has already been abandoned.
        """
        slot = [] if limit is None else [limit]
        with contextlib.ExitStack() as stack:
            for semaphore in slot:
                semaphore.acquire()
            stack.callback(_release, slot)
            for work in self.and_outer:
                with work.lock:
                    if work.is_over:
                        raise DeadlineError(_UP)
                    work.slots[id(slot)] = slot
                stack.callback(work.slots.pop, id(slot))
            yield

    def abandon(self) -> None:
        """Prevent any further call and release the slots held."""
        with self.lock:
            self.is_over = True
        for slot in list(self.slots.values()):
            _release(slot)


def _release(slot: list[threading.Semaphore]) -> None:
    with contextlib.suppress(IndexError):  # already released
        slot.pop().release()


ABANDONABLE: ContextVar[AbandonableWork | None] = ContextVar("automix_waiting", default=None)


def start_work(work: Callable[[], T], context: Context | None = None) -> Future[T]:
    """Do work in a daemon thread: unlike a pool's, it does not keep the process alive."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  (raised again for whoever waits)
            done.set_exception(error)

    context = copy_context() if context is None else context
    threading.Thread(target=context.run, args=(run,), name="automix", daemon=True).start()
    return done


def wait_within(deadline: Deadline, work: Callable[[], T], guard: StreamGuard | None = None) -> T:
    """Do work in a thread and wait until the deadline, or to the end if users already see output.

    Raises:
        DeadlineError: The time is up. The thread cannot be stopped; it ends by itself.
    """
    with _abandonable() as context, deadline.running():
        done = start_work(work, context)
        wait([done], timeout=max(0.0, deadline.left))
        if not done.done() and (guard is None or guard.give_up()):
            raise DeadlineError(_UP)
        return done.result()


@contextlib.asynccontextmanager
async def await_within(
    deadline: Deadline | None, guard: StreamGuard | None = None
) -> AsyncIterator[None]:
    """Cancel the block when the time is up, unless users already see its output.

    Raises:
        DeadlineError: The time is up.
    """
    if deadline is None:
        yield
        return
    with deadline.running():
        try:
            async with asyncio.timeout(max(0.0, deadline.left)) as scope:
                if guard is not None:
                    loop = asyncio.get_running_loop()  # the chunk may be shown by a thread
                    guard.when_shown = partial(loop.call_soon_threadsafe, _let_go_on, scope)
                yield
        except TimeoutError:
            if not scope.expired():  # raised by the call itself
                raise
            raise DeadlineError(_UP) from None


def chunks_within(
    deadline: Deadline | None, guard: StreamGuard, chunks: Iterator[T]
) -> Iterator[T]:
    """Pass on the chunks of a stream; give up a stream that shows nothing in time.

    Raises:
        DeadlineError: The time is up and nothing has been shown.
    """
    if deadline is None:
        yield from chunks
        return
    queue: SimpleQueue[Any] = SimpleQueue()
    left = threading.Event()
    with _abandonable() as context:
        done = start_work(partial(_pump, chunks, queue, left), context)
        try:
            while True:
                with deadline.running():
                    chunk = _next(queue, deadline, guard)
                if chunk is END_OF_STREAM:
                    return done.result()  # raises the stream's error
                yield chunk
        finally:
            left.set()


@contextlib.contextmanager
def _abandonable() -> Iterator[Context]:
    """Provide a context for work, and abandon the work at the end of the block."""
    work, context = AbandonableWork(ABANDONABLE.get()), copy_context()
    context.run(ABANDONABLE.set, work)
    try:
        yield context
    finally:
        work.abandon()


def _next(queue: SimpleQueue[Any], deadline: Deadline, guard: StreamGuard) -> Any:
    try:
        return queue.get(timeout=None if guard.shown else max(0.0, deadline.left))
    except Empty:
        if guard.give_up():
            raise DeadlineError(_UP) from None
    return queue.get()


def _pump(chunks: Iterator[Any], queue: SimpleQueue[Any], left: threading.Event) -> None:
    """Queue the chunks of a stream until the reader leaves."""
    try:
        for chunk in chunks:
            queue.put(chunk)
            if left.is_set():
                break
    finally:
        queue.put(END_OF_STREAM)
        if (close := getattr(chunks, "close", None)) is not None:  # only generators have one
            close()


def _let_go_on(scope: asyncio.Timeout) -> None:
    with contextlib.suppress(RuntimeError):  # the scope has ended
        scope.reschedule(None)
