"""`calibrate`: run the models over examples, and write a routing log; resumes after a kill."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from langchain_core.runnables import Runnable
from langchain_core.runnables.config import ContextThreadPoolExecutor

from langchain_automix.calibration.budget import (
    MOMENT,
    WAIT,
    CalibrationRun,
    Progress,
    Stopped,
    in_order,
)
from langchain_automix.calibration.config import CURRENCIES, CalibrationConfig, Unit, choose_unit
from langchain_automix.calibration.cost_estimate import EarlierCalls, Estimate, estimate
from langchain_automix.calibration.early_stopping import EarlyStopping
from langchain_automix.calibration.example_run import ExampleRunnable
from langchain_automix.calibration.examples.examples import Example, Examples, examples_from
from langchain_automix.calibration.graders.custom import to_grader
from langchain_automix.calibration.journal import Journal
from langchain_automix.calibration.log_writer import LogStatistics, Row, write_log
from langchain_automix.calibration.validation import (
    build_mix,
    changed_since,
    describe_changes,
    journal_path,
    validate_output,
    validate_settings,
)
from langchain_automix.errors import AutoMixError
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.models.prices import PriceSource
from langchain_automix.policy.data.log import RoutingLog

Approve = Callable[[Estimate], bool]
Listener = Callable[[Progress], None]


def calibrate(
    examples: Any,
    models: AutoMixRunnable | Sequence[Runnable[Any, Any] | str],
    *,
    quality: Any = "exact_match",
    out: str | Path = "calibration.jsonl",
    prompt: Runnable[Any, Any] | None = None,
    verifier: Runnable[Any, Any] | None = None,
    prices: PriceSource | None = None,
    unit: Unit | None = None,
    unlabelled: Literal["agreement", "grade"] = "agreement",
    names: Mapping[str, str] | None = None,
    concurrency: int | None = None,
    max_spend: float | None = None,
    adaptive: bool = False,
    goal: Mapping[str, float] | None = None,
    on_change: Literal["raise", "rerun"] = "raise",
    approve: Approve | None = None,
    on_progress: Listener | None = None,
    seed: int = 0,
) -> RoutingLog:
    """Run all models over examples, check and grade what they answer, and return a routing log.

    Every finished call is kept in a journal beside the log (`<out>.journal`) before anything is
    made from it: after a kill the same call goes on where it was, and pays for nothing twice.

    Args:
        examples: A `.jsonl`, `.jsonl.gz` or `.csv` file, `langsmith:<dataset>`, a data frame, or a
            list of questions, mappings or `Example`s: with `question`, and where there are any
            `context`, `references`, `messages` (said before) and `prompt` (all that the models
            get). Calls are kept by what is asked, so that examples may be moved, and others added.
        models: Two or more chat models, cheap to expensive; or an `AutoMixRunnable`, which brings
            its prompt, check and prices along.
        quality: Grades an answer: `exact_match`, `f1`, `numeric`, `multiple_choice`, `contains`,
            `json_equal`; a function of the answer and its references; an `LLMJudge`, an
            `EmbeddingSimilarity`, or an evaluator of LangSmith's. See
            `langchain_automix.calibration.graders.text`.
        out: Where the log goes: `.jsonl`, `.jsonl.gz` or `.parquet`; no other file is overwritten.
        prompt: Makes the models' input from `question`, `context` and `history`. None: the
            question itself, or, of an example with a context, a plain instruction to answer from
            it.
        verifier: Checks the answers. None: a `SelfVerifier`. Each check of a `CombinedVerifier` is
            made, priced and kept by itself: `compare_verifiers` tells from the log which is worth
            its price, and another check may be added later for the price of that check.
        prices: As `AutoMixRunnable` takes them.
        unit: What costs are counted in: `dollars` or `seconds`. None: dollars, or, with a warning,
            seconds where no model has a known price.
        unlabelled: How examples without references are graded: `agreement` compares with the
            largest model's answer; `grade` has `quality` judge the answer by itself. Where some
            examples have references, these correct what agreement says of the others.
        names: Which of the examples' own fields is the `question`, `context` and so on.
        concurrency: Calls at a time. None: 16, or 1 where seconds are counted, which would
            measure the crowd.
        max_spend: What all calls of this log together may cost, in its unit; it stops there, and
            says how far it got.
        adaptive: Whether to stop as soon as more examples would not change the policy (see
            `langchain_automix.policy.fitting.stopping`); takes them in random order.
        goal: What the policy is to be fitted for, for `adaptive`: as `POMDPRouter.fit` takes it.
        on_change: What to do where a prompt, a model or a setting is not as in the run before:
            `raise`, or `rerun` the calls that it shapes.
        approve: Is shown what is going to be asked for before any call; False stops it.
        on_progress: Is told after each example.
        seed: For the order of examples, where a run may end before the last.

    Returns:
        The log, with the texts in each query's `metadata`.

    Raises:
        AutoMixError: Something given cannot be used, nothing works, the journal cannot be
            written, or it is another run's; what was paid for is kept.
    """
    with _session(**locals()) as session:
        session.work()
        try:
            ended = session.finish()
        except AutoMixError as error:
            if session.course.stopped == "interrupted":
                raise KeyboardInterrupt from error
            raise
    if ended.progress.stopped == "interrupted":
        raise KeyboardInterrupt
    return _log_of(ended)


async def acalibrate(
    examples: Any, models: AutoMixRunnable | Sequence[Runnable[Any, Any] | str], **settings: Any
) -> RoutingLog:
    """Do as `calibrate`, asynchronously: the arguments are the same."""
    given = inspect.signature(calibrate).bind(examples, models, **settings)
    given.apply_defaults()
    with _session(**given.arguments) as session:
        await session.awork()
        ended = session.finish()
    return await asyncio.to_thread(_log_of, ended)


def run_calibration(
    examples: Any, models: AutoMixRunnable | Sequence[Runnable[Any, Any] | str], **settings: Any
) -> Calibrated:
    """Do as `calibrate`, and return how it went instead of the log."""
    given = inspect.signature(calibrate).bind(examples, models, **settings)
    given.apply_defaults()
    with _session(**given.arguments) as session:
        session.work()
        return session.finish()


@dataclass(frozen=True)
class Calibrated:
    """A calibration that has ended, with the last example or before."""

    out: Path
    """The routing log."""

    progress: Progress
    written: LogStatistics
    last_error: str
    """Of the last call that failed; empty where none did."""


@dataclass(frozen=True)
class _Session:
    """One run: what is left to do, and where it is kept."""

    setup: CalibrationConfig
    examples: Examples
    todo: Iterable[Example]
    journal: Journal
    course: CalibrationRun
    examination: ExampleRunnable
    out: Path
    concurrency: int
    looks: EarlyStopping | None

    def work(self) -> None:
        """Take the examples, several at a time, each in a thread of its own."""
        feed = self._feed()

        def worker() -> None:
            while (example := self.course.taken(feed)) is not None:
                if example is WAIT:
                    time.sleep(MOMENT)
                    continue
                with self._ending_at_an_error():
                    with self._taking(example) as row:
                        row.append(self.examination.invoke(example))
                    self._look()

        with ContextThreadPoolExecutor(self.concurrency) as pool:
            workers: list[Future[None]] = []
            try:
                workers.extend(pool.submit(worker) for _ in range(self.concurrency))
                wait(workers)
            except KeyboardInterrupt:
                # What is under way has been paid for: it ends, and is kept.
                self.course.stop("interrupted", "Interrupted.")
                wait(workers)
        for each in workers:
            each.result()

    async def awork(self) -> None:
        """Take the examples, several at a time, each in a task of its own."""
        feed = self._feed()

        async def worker() -> None:
            while (example := self.course.taken(feed)) is not None:
                if example is WAIT:
                    await asyncio.sleep(MOMENT)
                    continue
                with self._ending_at_an_error():
                    with self._taking(example) as row:
                        row.append(await self.examination.ainvoke(example))
                    if self.looks is not None:
                        await asyncio.to_thread(self._look)

        each_of = (worker() for _ in range(self.concurrency))
        # All are waited for, also after an error: the others' calls have been paid for, too.
        workers = asyncio.gather(*each_of, return_exceptions=True)
        try:
            ended = await asyncio.shield(workers)
        except asyncio.CancelledError:
            self.course.stop("interrupted", "Interrupted.")
            await workers
            raise
        for error in filter(None, ended):
            raise error

    @contextlib.contextmanager
    def _taking(self, example: Example) -> Iterator[list[Row]]:
        """Count an example, however it ends."""
        found: list[Row] = []
        again = self._row(example) is not None  # what is finished is not taken: it had failed
        try:
            with contextlib.suppress(Stopped), self._ending_at_an_error(Stopped):
                yield found
        finally:
            self.course.finished(found[0] if found else None, again=again)
            if self.looks is not None and found:
                self.looks.add(found[0])

    @contextlib.contextmanager
    def _ending_at_an_error(self, *but: type[BaseException]) -> Iterator[None]:
        """Have an error end the run, also one of a listener's: no other worker goes on."""
        try:
            yield
        except but:
            raise
        except BaseException:
            self.course.stop("error")
            raise

    def _feed(self) -> Iterator[Example]:
        for example in self.todo:
            if (row := self.examination.finished(example)) is None:
                yield example
            elif self.looks is not None:
                self.looks.add(row)

    def _look(self) -> None:
        if self.looks is not None and (enough := self.looks.enough()):
            self.course.stop("enough", enough)

    def finish(self) -> Calibrated:
        """Write the log of what is there.

        Raises:
            AutoMixError: There is nothing, for no call worked; or the log cannot be written.
        """
        course = self.course
        why = f" The last error: {course.last_error}" if course.last_error else ""
        if course.stopped == "disk full":
            raise AutoMixError(
                f"The disk is full. {self.journal.calls} finished calls are in "
                f"{self.journal.path}; make room, and run the same command again."
            )
        if not any(self._row(example) is not None for example in self.examples):
            raise AutoMixError(
                f"No example was finished ({course.stopped or 'all failed'}), so there is no log."
                f"{why} What was paid for is kept in {self.journal.path}."
            )
        written = write_log(
            self.out,
            self.examples,
            self._row,
            correct=self.setup.compares,
            checks=len(self.setup.checks) > 1,
        )
        with contextlib.suppress(AutoMixError):  # everything is there but this note
            self.journal.end(course.stopped or "finished")
        return Calibrated(self.out, course.progress(), written, course.last_error)

    def _row(self, example: Example) -> Row | None:
        found = self.journal.row(example.id, self.examination.digest(example))
        return None if found is None else found["query"]


def _log_of(ended: Calibrated) -> RoutingLog:
    """Return the log, and say what is not in it.

    Raises:
        AutoMixError: It ended because nothing worked any more.
    """
    progress, all_of = ended.progress, f"{ended.written.queries} of {ended.progress.examples}"
    if progress.stopped == "nothing works":
        raise AutoMixError(
            f"Nothing works any more: {ended.last_error}. {all_of} examples are in {ended.out}; "
            "run the same again to go on."
        )
    if progress.stopped == "max_spend":
        warnings.warn(
            f"Stopped at max_spend: {progress.spent:g} {progress.currency} spent, {all_of} "
            f"examples are in {ended.out}. Run the same with more to go on.",
            stacklevel=3,
        )
    if progress.failed:
        warnings.warn(
            f"{progress.failed} of {progress.examples} examples failed, and are not complete in "
            f"{ended.out}: {ended.last_error}. Run the same again to try them again.",
            stacklevel=3,
        )
    return RoutingLog.read(ended.out)


@contextlib.contextmanager
def _session(
    examples: Any,
    models: Any,
    quality: Any,
    out: str | Path,
    unlabelled: Literal["agreement", "grade"],
    unit: Unit | None,
    names: Mapping[str, str] | None,
    on_change: str,
    approve: Approve | None,
    **options: Any,
) -> Iterator[_Session]:
    """Set everything up, have it approved, and keep the journal open meanwhile."""
    out = Path(out)
    validate_settings({"unit": unit, "unlabelled": unlabelled, "on_change": on_change, **options})
    validate_output(out)
    mix = build_mix(models, **{name: options[name] for name in ("prompt", "verifier", "prices")})
    found = examples_from(examples, names=names)
    setup = CalibrationConfig(
        mix,
        to_grader(quality),
        choose_unit(mix, unit, is_limited=options["max_spend"] is not None),
        unlabelled,
        compares=unlabelled == "agreement" and 0 < found.referenced < len(found),
    )
    tallies = EarlierCalls(setup)
    with Journal(journal_path(out), tallies.hear) as journal:
        changed = changed_since(journal.settings, setup.asks)
        if changed and on_change == "raise":
            raise AutoMixError(describe_changes(changed, out))
        may_stop = options["adaptive"] or options["max_spend"] is not None
        todo = in_order(found, options["seed"] if may_stop else None)
        expected = estimate(setup, todo, journal, tallies, changed=changed)
        if approve is not None and not approve(expected):
            raise AutoMixError("Not approved: nothing was asked.")
        course = CalibrationRun(
            examples=len(found),
            currency=CURRENCIES[setup.unit],
            spent=tallies.spent,
            max_spend=options["max_spend"],
            example_cost=_each(expected),
            is_full=lambda: journal.full,
            listener=options["on_progress"] or (lambda _: None),
            reused=expected.finished,
            done=expected.finished,
        )
        journal.begin(setup.asks)
        yield _Session(
            setup=setup,
            examples=found,
            todo=todo,
            journal=journal,
            course=course,
            examination=ExampleRunnable(setup=setup, journal=journal, course=course),
            out=out,
            concurrency=options["concurrency"] or (1 if setup.unit == "seconds" else 16),
            looks=EarlyStopping(options["goal"], options["seed"]) if options["adaptive"] else None,
        )


def _each(expected: Estimate) -> tuple[float, float]:
    """Return what one example is likely to cost; 0 where that is not known."""
    left = expected.examples - expected.finished
    if expected.cost is None or not left:
        return 0.0, 0.0
    low, high = expected.cost
    return low / left, high / left
