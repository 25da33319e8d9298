"""Wait for calls no longer than a deadline allows: sync in a thread, async by cancelling."""

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
"""Stands for the end of a stream."""

_UP = "It was given up: the query's time (max_latency) was up."


class AbandonableWork:
    """Work in a thread that somebody waits for; once it is abandoned, it begins no call.

    Nothing can stop the call that is in progress, but its slot is given to another one.
    """

    def __init__(self, outer: AbandonableWork | None) -> None:
        """Begin work within other work, with which it is abandoned, too."""
        self.and_outer: list[AbandonableWork] = [self, *(outer.and_outer if outer else ())]
        self.slots: dict[int, list[threading.Semaphore]] = {}
        self.is_over = False
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def slot(self, limit: threading.Semaphore | None) -> Iterator[None]:
        """Hold a slot for a call, until it ends or is abandoned.

        Raises:
            DeadlineError: The work was abandoned before.
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
        """Begin no call any more, and release the slots that are held."""
        with self.lock:
            self.is_over = True
        for slot in list(self.slots.values()):
            _release(slot)


def _release(slot: list[threading.Semaphore]) -> None:
    with contextlib.suppress(IndexError):  # it was released before
        slot.pop().release()


ABANDONABLE: ContextVar[AbandonableWork | None] = ContextVar("automix_waiting", default=None)


def start_work(work: Callable[[], T], context: Context | None = None) -> Future[T]:
    """Do work in a thread of its own, which, unlike a pool's, keeps no process alive."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  (raised again where it is waited for)
            done.set_exception(error)

    context = copy_context() if context is None else context
    threading.Thread(target=context.run, args=(run,), name="automix", daemon=True).start()
    return done


def wait_within(deadline: Deadline, work: Callable[[], T], guard: StreamGuard | None = None) -> T:
    """Do work in a thread, and wait until the time is up; to its end if users see it already.

    Raises:
        DeadlineError: The time was up. The thread, which nothing can stop, ends by itself.
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
    """Cancel what is awaited within when the time is up, unless users see it already.

    Raises:
        DeadlineError: The time was up.
    """
    if deadline is None:
        yield
        return
    with deadline.running():
        try:
            async with asyncio.timeout(max(0.0, deadline.left)) as scope:
                if guard is not None:
                    loop = asyncio.get_running_loop()  # a thread may be the one that shows it
                    guard.when_shown = partial(loop.call_soon_threadsafe, _let_go_on, scope)
                yield
        except TimeoutError:
            if not scope.expired():  # of the call's own
                raise
            raise DeadlineError(_UP) from None


def chunks_within(
    deadline: Deadline | None, guard: StreamGuard, chunks: Iterator[T]
) -> Iterator[T]:
    """Pass on the chunks of a stream; one that shows nothing in time is given up.

    Raises:
        DeadlineError: The time was up, and nothing was shown.
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
    """Provide a context for work that is abandoned at the end of the block."""
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
    """Queue a stream's chunks until nobody waits for them any more."""
    try:
        for chunk in chunks:
            queue.put(chunk)
            if left.is_set():
                break
    finally:
        queue.put(END_OF_STREAM)
        if (close := getattr(chunks, "close", None)) is not None:  # of a generator, here alone
            close()


def _let_go_on(scope: asyncio.Timeout) -> None:
    with contextlib.suppress(RuntimeError):  # it is over
        scope.reschedule(None)
