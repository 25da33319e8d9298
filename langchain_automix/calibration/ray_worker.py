"""What a Ray worker does of a calibration: runs examples, and asks the run before every call."""

from __future__ import annotations

import itertools
import pickle
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

from langchain_automix.calibration.budget import Stopped
from langchain_automix.calibration.config import CalibrationConfig
from langchain_automix.calibration.entries import Entry
from langchain_automix.calibration.example_run import ExampleRunnable
from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.spending import Kind
from langchain_automix.errors import AutoMixError


class Report(NamedTuple):
    """What a worker says of an example: what it asks of the run, or how the example has ended."""

    what: Literal["begin", "keep", "lose", "row", "stopped", "raised"]
    """`begin`, `keep` and `lose` are those of `CallRecord`, with their arguments, and are answered.
    `row`: it is finished. `stopped`: the run had stopped. `raised`: an error ended it."""

    values: tuple[Any, ...] = ()


STOP = "stop"
"""The answer to `begin` where the call must not be made."""


class ExampleWorker:
    """Runs examples one step at a time: from one question to the run to the next.

    The run answers them (`resume`), for it has the journal and the budget. So a worker that dies
    takes nothing with it but the calls under way.

    Args:
        setup: The calibration.
        max_spend: As in `CallRecord`.
    """

    def __init__(self, setup: CalibrationConfig, max_spend: float | None) -> None:
        self._setup, self._max_spend = setup, max_spend
        self._tickets = itertools.count()
        self._running: dict[int, _RunningExample] = {}

    def start(self, example: Example, kept: dict[str, Entry]) -> tuple[int, Report]:
        """Begin an example; return its ticket, and what it says first."""
        ticket = next(self._tickets)
        running = _RunningExample(self._setup, example, kept, self._max_spend)
        self._running[ticket] = running
        return ticket, self._next(ticket, running)

    def resume(self, ticket: int, answer: Any) -> Report:
        """Answer what an example asked; return what it says next."""
        running = self._running[ticket]
        running.answers.put(answer)
        return self._next(ticket, running)

    def _next(self, ticket: int, running: _RunningExample) -> Report:
        report = running.reports.get()
        if report.what not in ("begin", "keep", "lose"):
            del self._running[ticket]
        return report


class _RunningExample:
    """An example under way, in a thread of its own; the `CallRecord` and journal of its flow."""

    def __init__(
        self,
        setup: CalibrationConfig,
        example: Example,
        kept: dict[str, Entry],
        max_spend: float | None,
    ) -> None:
        self.reports: SimpleQueue[Report] = SimpleQueue()
        self.answers: SimpleQueue[Any] = SimpleQueue()
        self.max_spend = max_spend
        self._kept = kept
        runner = ExampleRunnable(setup=setup, journal=self, record=self)
        threading.Thread(target=self._run, args=(runner, example), daemon=True).start()

    def _run(self, runner: ExampleRunnable, example: Example) -> None:
        try:
            self.reports.put(Report("row", (runner.invoke(example),)))
        except Stopped:
            self.reports.put(Report("stopped"))
        except BaseException as error:  # noqa: BLE001  (raised where the run is)
            self.reports.put(Report("raised", (_sendable(error),)))

    def _ask(self, what: Literal["begin", "keep", "lose"], *values: Any) -> Any:
        self.reports.put(Report(what, values))
        return self.answers.get()

    # As the record of its calls

    def begin(self, kind: Kind, example: str, key: str) -> float:
        reserved = self._ask("begin", kind, example, key)
        if reserved == STOP:
            raise Stopped
        return float(reserved)

    def keep(
        self,
        kind: Kind,
        reserved: float,
        example: str,
        key: str,
        entry: Entry,
        bill: tuple[float | None, int],
    ) -> None:
        self._ask("keep", kind, reserved, example, key, entry, bill)

    def lose(self, kind: Kind, reserved: float) -> None:
        self._ask("lose", kind, reserved)

    # As its journal

    def calls_of(self, example: str) -> dict[str, Entry]:
        del example
        return dict(self._kept)

    def place(self, entry: Entry) -> str:
        del entry
        return "The journal"

    def add_row(self, example: str, digest: str, row: Mapping[str, Any]) -> None:
        """Keep nothing: the run does, with the row that comes out."""


def _sendable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  (its own)
    except Exception:  # noqa: BLE001  (what a class raises here is its own choice)
        return AutoMixError(f"{type(error).__name__}: {error}")
    return error
