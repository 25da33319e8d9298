"""Handle a signal that ends a run like Ctrl-C: keep the running calls, which have been paid for."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from langchain_automix.calibration.budget import CalibrationRun
from langchain_automix.errors import AutoMixError

_NAMES = ("SIGTERM", "SIGHUP")  # Windows has only the first


class StoppedBySignalError(AutoMixError):
    """A signal stopped a run before any example was finished, so there is no log."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


@contextlib.contextmanager
def ending_by_signals(course: CalibrationRun) -> Iterator[None]:
    """Let a signal that would kill the process stop the run instead, and record it.

    A second signal kills the process at once. A signal that the user handles or ignores is left
    alone, as are signals outside the main thread, the only one that can handle them. Afterwards,
    `end_by_signal` ends the process as the signal would have.
    """
    handled: list[signal.Signals] = []

    def stop(number: int, frame: object) -> None:
        del frame
        for each in handled:
            signal.signal(each, signal.SIG_DFL)
        course.signal_number = number
        course.stop("interrupted", f"Stopped by {signal.Signals(number).name}.")

    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
        handled = [each for each in numbers if signal.getsignal(each) is signal.SIG_DFL]
    for each in handled:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each in handled:
            signal.signal(each, signal.SIG_DFL)


def end_by_signal(course: CalibrationRun) -> None:
    """End the process by the signal that stopped a run; call it when the results are written."""
    if course.signal_number is not None:
        signal.raise_signal(course.signal_number)
