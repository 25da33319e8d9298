"""`OwnThreads`: threads for what may wait long, apart from those that every query needs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class OwnThreads:
    """Runs what may wait long, such as a call of a learning store.

    asyncio itself has few threads, and every query needs one to look up the address of a provider.
    The end of the process waits for those, too, but not for these.

    Args:
        number: How many may run; what is to run beside them waits for one to end.
    """

    def __init__(self, number: int) -> None:
        self._free = asyncio.Semaphore(number)

    async def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a function in a thread; return what it returns.

        A caller that is cancelled waits no longer, but the thread is taken until it ends.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        result: Future[T] = Future()
        result.set_running_or_notify_cancel()  # the thread has it: it is cancelled no more
        context = copy_context()

        def work() -> None:
            try:
                result.set_result(context.run(function, *args, **kwargs))
            except BaseException as error:  # noqa: BLE001  (the caller is told)
                result.set_exception(error)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._free.release)

        threading.Thread(target=work, name="automix-serve", daemon=True).start()
        return await asyncio.wrap_future(result)
