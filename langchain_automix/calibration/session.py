"""One run of a calibration: its set-up, approval and execution, and the log that it writes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from langchain_core.runnables.config import ContextThreadPoolExecutor

from langchain_automix.calibration.budget import CalibrationRun, Progress, Stopped, in_order
from langchain_automix.calibration.call_record import JournalRecord
from langchain_automix.calibration.config import CURRENCIES, CalibrationConfig, choose_unit
from langchain_automix.calibration.cost_estimate import EarlierCalls, Estimate, estimate
from langchain_automix.calibration.early_stopping import EarlyStopping
from langchain_automix.calibration.example_run import ExampleRunnable
from langchain_automix.calibration.examples.examples import Example, Examples, examples_from
from langchain_automix.calibration.free_check import (
    as_asked,
    as_begun,
    leave_out_free_check,
    silent_models,
    with_free_check,
)
from langchain_automix.calibration.graders.custom import to_grader
from langchain_automix.calibration.graders.references import readable_examples
from langchain_automix.calibration.interruption import ending_by_signals
from langchain_automix.calibration.journal import Journal
from langchain_automix.calibration.kept_calls import example_key
from langchain_automix.calibration.log_writer import LogStatistics, Row, write_log
from langchain_automix.calibration.ray_engine import RayExamples, concurrency_on_ray, sent
from langchain_automix.calibration.settings import CalibrationSettings
from langchain_automix.calibration.unread import UnreadAnswers, validate_read
from langchain_automix.calibration.validation import (
    build_mix,
    changed_since,
    describe_changes,
    journal_path,
)
from langchain_automix.errors import AutoMixError
from langchain_automix.utils.ray_cluster import connect

_USUAL_CONCURRENCY = 16
"""Examples at a time."""


@dataclass(frozen=True)
class CalibrationResult:
    """A calibration that has ended, complete or not."""

    out: Path
    """Path of the routing log."""

    progress: Progress
    written: LogStatistics
    last_error: str
    """Error of the last failed call; empty if none failed."""

    signal_number: int | None = None
    """The signal that stopped the run; None if no signal did."""


@dataclass(frozen=True)
class CalibrationSession:
    """One run: the examples still to run, and the journal that keeps their calls."""

    setup: CalibrationConfig
    examples: Examples
    todo: Sequence[Example]
    journal: Journal
    course: CalibrationRun
    runner: ExampleRunnable | RayExamples
    out: Path
    concurrency: int
    early_stopping: EarlyStopping | None
    unread: UnreadAnswers

    def work(self) -> None:
        """Run the examples, several at a time, in threads."""
        groups = self._groups()

        def worker() -> None:
            with self._ending_at_an_error():
                while (group := self.course.next_example(groups)) is not None:
                    for i, example in enumerate(group):
                        if i and not self._admits(example):
                            break
                        with self._counted(example) as row:
                            row.append(self.runner.invoke(example))
                        self._stop_if_enough()

        with ending_by_signals(self.course), ContextThreadPoolExecutor(self.concurrency) as pool:
            workers: list[Future[None]] = []
            try:
                workers.extend(pool.submit(worker) for _ in range(self.concurrency))
                wait(workers)
            except KeyboardInterrupt:
                # Running calls have been paid for: let them end, and keep them.
                self.course.stop("interrupted", "Interrupted.")
                # Not for the workers: one whose start was interrupted is known to nobody.
                self.course.wait_for_running()
        for each in workers:
            each.result()

    async def awork(self) -> None:
        """Run the examples, several at a time, in tasks."""
        groups = self._groups()
        # Waiting for the spend limit blocks a thread: use our own, since the loop's run the models.
        with ending_by_signals(self.course), ThreadPoolExecutor(1) as pool:
            loop = asyncio.get_running_loop()

            async def worker() -> None:
                with self._ending_at_an_error():
                    while group := await loop.run_in_executor(
                        pool, self.course.next_example, groups
                    ):
                        for i, example in enumerate(group):
                            if i and not await loop.run_in_executor(pool, self._admits, example):
                                break
                            with self._counted(example) as row:
                                row.append(await self.runner.ainvoke(example))
                            if self.early_stopping is not None:
                                await asyncio.to_thread(self._stop_if_enough)

            # Wait for all workers, even after an error: the calls of the others have been paid for.
            workers = asyncio.gather(
                *(worker() for _ in range(self.concurrency)), return_exceptions=True
            )
            try:
                results = await asyncio.shield(workers)
            except asyncio.CancelledError:
                self.course.stop("interrupted", "Interrupted.")
                await workers
                raise
        for error in filter(None, results):
            raise error

    @contextlib.contextmanager
    def _counted(self, example: Example) -> Iterator[list[Row]]:
        """Count an example, however it ends; the caller adds its row to the list."""
        rows: list[Row] = []
        again = (
            self._row(example) is not None
        )  # finished examples are not run again, so this one failed
        try:
            with contextlib.suppress(Stopped), self._ending_at_an_error(Stopped):
                yield rows
                self.unread.add_all(rows)
        finally:
            self.course.finished(rows[0] if rows else None, again=again)
            if self.early_stopping is not None and rows:
                self.early_stopping.add(rows[0])

    @contextlib.contextmanager
    def _ending_at_an_error(self, *except_for: type[BaseException]) -> Iterator[None]:
        """Let any error, including a listener's, end the run for all workers."""
        try:
            yield
        except except_for:
            raise
        except BaseException:
            self.course.stop("error")
            raise

    def _groups(self) -> Iterator[Sequence[Example]]:
        """Yield groups of examples to run; a group consists of examples that make the same calls.

        Each group is run by one worker. Several workers would make, and pay for, the same calls.
        """
        groups: dict[str, list[Example]] = {}
        for example in self._unfinished():
            groups.setdefault(example_key(example), []).append(example)
        yield from groups.values()

    def _admits(self, example: Example) -> bool:
        """Return whether an example may be run; the first of a group is admitted with the group."""
        return self.course.next_example(iter((example,))) is not None

    def _unfinished(self) -> Iterator[Example]:
        for example in self.todo:
            if (row := self.runner.finished(example)) is None:
                yield example
            elif self.early_stopping is not None:
                self.early_stopping.add(row)

    def _stop_if_enough(self) -> None:
        if self.early_stopping is not None and (reason := self.early_stopping.enough()):
            self.course.stop("enough", reason)

    def finish(self) -> CalibrationResult:
        """Write the log of all examples that have a row.

        Raises:
            AutoMixError: No example has a row, the disk is full, or the log cannot be written.
        """
        course = self.course
        if course.stopped == "disk full":
            raise AutoMixError(
                f"The disk is full. {self.journal.calls} finished calls are kept in "
                f"{self.journal.path}; make room, and run the same command again."
            )
        if not any(self._row(example) is not None for example in self.examples):
            last_error = f" The last error: {course.last_error}" if course.last_error else ""
            raise AutoMixError(
                f"No example was finished ({course.stopped or 'all failed'}), so there is no log."
                f"{last_error} What was paid for is kept in {self.journal.path}."
            )
        validate_read(self.setup, self._rows())
        written = self._write()
        with contextlib.suppress(AutoMixError):  # everything else has been written
            self.journal.end(course.stopped or "finished")
        return CalibrationResult(
            self.out, course.progress(), written, course.last_error, course.signal_number
        )

    def _write(self) -> LogStatistics:
        """Write the log; leave out the free check if no answer came with log-probabilities."""
        setup, silent = self.setup, frozenset[str]()
        if setup.free_check is not None:
            silent = silent_models(self._rows(), setup.free_check)
        checks = setup
        if silent.issuperset(setup.names[:-1]):
            checks = setup.without_free_check()

        def find_row(example: Example) -> Row | None:
            if (row := self._row(example)) is not None and silent:
                leave_out_free_check(row, setup, silent)
            return row

        written = write_log(
            self.out,
            self.examples,
            find_row,
            correct=setup.compares,
            checks=len(checks.checks) > 1,
        )
        sending = zip(setup.names, setup.sends_logprobs, strict=True)
        silenced = tuple(name for name, sends in sending if sends and name in silent)
        return replace(written, without_free_check=silenced)

    def _rows(self) -> Iterator[Row]:
        return filter(None, map(self._row, self.examples))

    def _row(self, example: Example) -> Row | None:
        return self.runner.row(example)


@contextlib.contextmanager
def open_session(settings: CalibrationSettings) -> Iterator[CalibrationSession]:
    """Set up a run, ask for approval, and keep the journal open until the run ends.

    Raises:
        AutoMixError: The settings conflict, the journal belongs to another run or cannot be
            written, or the run was not approved.
    """
    if settings.engine == "ray":
        connect()
    grader = to_grader(settings.quality)
    examples = readable_examples(examples_from(settings.examples, names=settings.names), grader)
    setup = _config(settings, examples, grader)
    earlier = EarlierCalls(setup)
    with (
        contextlib.ExitStack() as stack,
        Journal(journal_path(settings.log_path), earlier.hear) as journal,
    ):
        setup, notes = as_begun(setup, journal.settings)
        todo = in_order(examples, settings.shuffle_seed)
        earlier.add_lost(journal)
        try:
            shipped = sent(setup) if settings.engine == "ray" else None
            expected = _approved(settings, setup, todo, journal, earlier, notes)
        except BaseException:
            journal.discard()
            raise
        course = CalibrationRun(
            examples=len(examples),
            currency=CURRENCIES[setup.unit],
            spending=earlier.spending,
            max_spend=settings.max_spend,
            example_cost=_cost_of_one(expected),
            is_full=lambda: journal.full,
            listener=settings.on_progress or (lambda _: None),
            reused=expected.finished,
            done=expected.finished,
        )
        record = JournalRecord(journal, course)
        here = ExampleRunnable(setup=setup, journal=journal, record=record)
        concurrency, runner = _concurrency(settings, setup), None
        if shipped is not None:
            runner = stack.enter_context(RayExamples(shipped, here, course, concurrency))
        journal.begin(setup.call_settings)
        yield CalibrationSession(
            setup=setup,
            examples=examples,
            todo=todo,
            journal=journal,
            course=course,
            runner=runner or here,
            out=settings.log_path,
            concurrency=concurrency,
            early_stopping=(
                EarlyStopping(settings.goal, settings.seed) if settings.adaptive else None
            ),
            unread=UnreadAnswers(setup),
        )


def _concurrency(settings: CalibrationSettings, setup: CalibrationConfig) -> int:
    if setup.unit == "seconds":
        return settings.concurrency or 1
    if settings.engine == "ray":
        return concurrency_on_ray(settings.concurrency)
    return settings.concurrency or _USUAL_CONCURRENCY


def _approved(
    settings: CalibrationSettings,
    setup: CalibrationConfig,
    todo: Sequence[Example],
    journal: Journal,
    earlier: EarlierCalls,
    notes: Sequence[str],
) -> Estimate:
    """Estimate a run and ask for approval.

    Raises:
        AutoMixError: The run was not approved, or a setting has changed that must not change.
    """
    changed = changed_since(as_asked(journal.settings, setup), setup.call_settings)
    if changed and settings.on_change == "raise":
        raise AutoMixError(describe_changes(changed, settings.log_path))
    expected = estimate(setup, todo, journal, earlier, changed=changed)
    expected = replace(expected, notes=(*expected.notes, *notes))
    if settings.approve is not None and not settings.approve(expected):
        raise AutoMixError("Not approved: no call was made.")
    return expected


def _config(settings: CalibrationSettings, examples: Examples, grader: Any) -> CalibrationConfig:
    mix = build_mix(settings.models, settings.prompt, settings.verifier, settings.prices)
    setup = CalibrationConfig(
        mix,
        grader,
        choose_unit(mix, settings.unit, is_limited=settings.max_spend is not None),
        settings.unlabelled,
        compares=settings.unlabelled == "agreement" and 0 < examples.referenced < len(examples),
    )
    return with_free_check(setup) if settings.free_check else setup


def _cost_of_one(expected: Estimate) -> tuple[float, float]:
    """Return the likely cost of one example, low and high; 0 if unknown."""
    left = expected.examples - expected.finished
    if expected.cost is None or not left:
        return 0.0, 0.0
    low, high = expected.cost
    return low / left, high / left
