"""Run the examples of a calibration on the workers of a Ray cluster."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from types import ModuleType
from typing import Any, Self

from langchain_automix.calibration.budget import CalibrationRun, Stopped
from langchain_automix.calibration.config import CalibrationConfig
from langchain_automix.calibration.example_run import ExampleRunnable
from langchain_automix.calibration.examples.examples import Example
from langchain_automix.calibration.kept_calls import example_key
from langchain_automix.calibration.ray_worker import STOP, ExampleWorker, Report
from langchain_automix.calibration.spending import Kind
from langchain_automix.errors import AutoMixError
from langchain_automix.models.pickling import make_models_picklable
from langchain_automix.utils.ray_cluster import cluster_cpus, connect

Row = dict[str, Any]

_USUAL_CONCURRENCY = 16
"""Examples at a time on each worker."""

_PAUSE_SECONDS = 0.1
_MOST_DEATHS = 3
"""Workers that one example may cost: then it is what kills them."""


class _WorkerDiedError(Exception):
    """The worker of an example is gone, and with it all that it knew."""


def concurrency_on_ray(asked: int | None) -> int:
    """Return how many examples are run at a time, on all workers together."""
    return asked or _USUAL_CONCURRENCY * cluster_cpus(connect())


@dataclass(frozen=True)
class SentSetup:
    """A calibration that all workers of a cluster can read."""

    ray: Any
    reference: Any


def sent(setup: CalibrationConfig) -> SentSetup:
    """Put a calibration where workers find it.

    Raises:
        AutoMixError: It cannot be sent there.
    """
    ray = connect()
    make_models_picklable()
    for module in _made_here():
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        return SentSetup(ray, ray.put(setup))
    except Exception as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise AutoMixError(
            f"The models, the check or the grader cannot be sent to the workers of Ray: {reason}."
        ) from error


def _made_here() -> list[ModuleType]:
    """Return the modules that no import finds, such as the file of Python that a grader is in."""
    found = [each for each in list(sys.modules.values()) if isinstance(each, ModuleType)]
    return [
        module
        for module in found
        if module.__spec__ is None and module.__name__ != "__main__" and "__file__" in vars(module)
    ]


class RayExamples:
    """Runs examples on workers, in place of an `ExampleRunnable` of this process.

    A worker is made on each CPU of the cluster, with the first example; all end with the context.

    Args:
        setup: The calibration, sent.
        runner: What runs an example in this process, with the journal and its record.
        course: The run.
        concurrency: Examples at a time, on all workers together.
    """

    def __init__(
        self, setup: SentSetup, runner: ExampleRunnable, course: CalibrationRun, concurrency: int
    ) -> None:
        self.ray, self.runner, self.course = setup.ray, runner, course
        self._setup, self._concurrency = setup, concurrency
        self._workers: list[_Worker] = []
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        for worker in self._workers:
            self.ray.kill(worker.actor)

    def _make_workers(self) -> None:
        with self._lock:
            if self._workers:
                return
            number = min(cluster_cpus(self.ray), self._concurrency)
            share = math.ceil(self._concurrency / number)
            kind = self.ray.remote(ExampleWorker).options(num_cpus=1, max_concurrency=share)
            make = partial(kind.remote, self._setup.reference, self.course.max_spend)
            self._workers = [_Worker(make) for _ in range(number)]
            for worker in self._workers * share:  # in turn, so that all get their share
                self._free.put(worker)

    def finished(self, example: Example) -> Row | None:
        """Return the row of an example that is finished; see `ExampleRunnable.finished`."""
        return self.runner.finished(example)

    def row(self, example: Example) -> Row | None:
        """Return the row of an example, complete or not; see `ExampleRunnable.row`."""
        return self.runner.row(example)

    async def ainvoke(self, example: Example) -> Row:
        """Run an example, as `invoke` does."""
        return await asyncio.to_thread(self.invoke, example)

    def invoke(self, example: Example) -> Row:
        """Run an example on a worker; on another one if that dies.

        Raises:
            Stopped: The run has stopped.
            AutoMixError: The example ends with an error, or has killed several workers.
        """
        self._make_workers()
        worker = self._free.get()
        reason = ""
        try:
            for _ in range(_MOST_DEATHS):
                actor = worker.actor
                try:
                    return _Conversation(self, actor, example).row()
                except _WorkerDiedError as error:
                    reason = str(error).strip().splitlines()[-1]
                    worker.replace(actor)
        finally:
            self._free.put(worker)
        raise AutoMixError(
            f"{_MOST_DEATHS} workers of Ray have died while they ran example {example.id!r}: take "
            "it out, or give the workers more memory. What was paid for is kept. Ray says: "
            f"{reason}"
        )


class _Worker:
    """A place for a worker, which is made anew when it has died."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._lock = make, threading.Lock()
        self.actor = make()

    def replace(self, dead: Any) -> None:
        """Make another one, unless somebody else has."""
        with self._lock:
            if self.actor is dead:
                self.actor = self._make()


class _Conversation:
    """What a worker asks of the run while it works on an example, and what it is answered."""

    def __init__(self, examples: RayExamples, actor: Any, example: Example) -> None:
        self._ray, self._runner, self._course = examples.ray, examples.runner, examples.course
        self._actor, self._example = actor, example
        self._under_way: tuple[Kind, float] | None = None

    def row(self) -> Row:
        """Run the example; return its row."""
        kept = self._runner.journal.calls_of(example_key(self._example))
        try:
            ticket, report = self._get(self._actor.start.remote(self._example, kept))
            while (row := self._ended(report)) is None:
                answer = self._answer(report)
                report = self._get(self._actor.resume.remote(ticket, answer))
        finally:
            if self._under_way is not None:  # and may have been billed
                self._runner.record.lose(*self._under_way)
        digest = self._runner.digest(self._example)
        self._runner.journal.add_row(self._example.id, digest, {"query": row})
        return row

    def _get(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except (errors.RayActorError, errors.WorkerCrashedError, errors.ObjectLostError) as error:
            raise _WorkerDiedError(str(error)) from error

    def _ended(self, report: Report) -> Row | None:
        """Return the row of an example that is finished; None while it is not."""
        if report.what == "row":
            (row,) = report.values
            return dict(row)
        if report.what == "stopped":
            raise Stopped
        if report.what == "raised":
            raise report.values[0]
        return None

    def _answer(self, report: Report) -> Any:
        record = self._runner.record
        if report.what == "begin":
            return self._begin(*report.values)
        self._under_way = None
        getattr(record, report.what)(*report.values)
        return None

    def _begin(self, kind: Kind, example: str, key: str) -> Any:
        try:
            while (reserved := self._runner.record.begin(kind, example, key)) is None:
                self._course.wait(_PAUSE_SECONDS)
        except Stopped:
            return STOP
        self._under_way = (kind, reserved)
        return reserved
