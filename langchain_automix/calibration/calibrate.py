"""`calibrate`: run the models over examples and write a routing log; resumes after a kill."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from langchain_core.runnables import Runnable

from langchain_automix.calibration.config import Unit, Unlabelled
from langchain_automix.calibration.interruption import StoppedBySignalError, end_by_signal
from langchain_automix.calibration.log_writer import LogStatistics
from langchain_automix.calibration.session import CalibrationResult, open_session
from langchain_automix.calibration.settings import (
    Approve,
    CalibrationSettings,
    Engine,
    Listener,
    Models,
    OnChange,
)
from langchain_automix.errors import AutoMixError
from langchain_automix.models.prices import PriceSource
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.utils.formatting import pluralize
from langchain_automix.utils.user_warnings import keeping_users_line, warn_user

P = ParamSpec("P")
T = TypeVar("T")


def calibrate(
    examples: Any,
    models: Models,
    *,
    quality: Any = "exact_match",
    out: str | Path = "calibration.jsonl",
    prompt: Runnable[Any, Any] | None = None,
    verifier: Runnable[Any, Any] | None = None,
    prices: PriceSource | None = None,
    unit: Unit | None = None,
    unlabelled: Unlabelled = "agreement",
    names: Mapping[str, str] | None = None,
    concurrency: int | None = None,
    max_spend: float | None = None,
    adaptive: bool = False,
    goal: Mapping[str, float] | None = None,
    on_change: OnChange = "raise",
    approve: Approve | None = None,
    on_progress: Listener | None = None,
    seed: int = 0,
    free_check: bool = True,
    engine: Engine | None = None,
) -> RoutingLog:
    """Run all models over examples, check and grade their answers, and return a routing log.

    Every finished call is written to a journal beside the log (`<out>.journal`) before it is used.
    After a kill, the same call of `calibrate` resumes where it stopped, and nothing is paid for
    twice.

    Args:
        examples: A `.jsonl`, `.jsonl.gz`, `.csv` or `.parquet` file, `langsmith:<dataset>`, a data
            frame, a Ray dataset, or a list of questions, mappings or `Example`s. Fields:
            `question`, and optionally `context`, `references`, `messages` (the conversation before)
            and `prompt` (the whole input of the models). Finished calls are found again by their
            input, so examples may be reordered or added.
        models: Two or more chat models, cheap to expensive; or an `AutoMixRunnable`, whose prompt,
            check and prices are used.
        quality: How to grade an answer: `exact_match`, `f1`, `numeric`, `multiple_choice`,
            `contains` or `json_equal`, which leave a grade unknown if they cannot read the answer
            with certainty; a function of the answer and its references; an `LLMJudge`, an
            `EmbeddingSimilarity`, or a LangSmith evaluator. See
            `langchain_automix.calibration.graders.text`.
        out: Path of the log: `.jsonl`, `.jsonl.gz` or `.parquet`. A file that no calibration wrote
            is not overwritten.
        prompt: Builds the models' input from `question`, `context` and `history`. None: the
            question itself, or, if the example has a context, an instruction to answer from it.
        verifier: Checks the answers. None: the check of the mix, or a `SelfVerifier` for models.
            For a mix without a check, every check that it could buy is made of every answer,
            because a log cannot tell anything about a check that was left out: the probabilities of
            the tokens (free), four new answers, and eight verdicts. `approve` is told what that
            costs. Each check of a `CombinedVerifier` is made, priced and kept separately:
            `compare_verifiers` can tell from the log which one is worth its price, and a check that
            is added later costs only its own calls.
        prices: As in `AutoMixRunnable`.
        unit: Unit of costs: `dollars` or `seconds`. None: dollars, or, with a warning, seconds if
            no model has a known price.
        unlabelled: How to grade examples without references: by `agreement` with the largest
            model's answer, or by `quality` alone (`grade`). If some examples have references, they
            correct the agreement of the others.
        names: Your own names of fields, such as `{"question": "my_column"}`.
        concurrency: Number of calls at a time. None: 16 (on Ray, 16 per worker), or 1 if costs are
            in seconds, which would otherwise include the time spent waiting for other calls.
        max_spend: Maximum cost of all runs for this log together, in its unit. The run stops there
            and reports how far it got.
        adaptive: Whether to stop as soon as more examples would not change the policy (see
            `langchain_automix.policy.fitting.stopping`). The examples are then taken in random
            order.
        goal: The goal that the policy will be fitted for, with `adaptive`; as in `POMDPRouter.fit`.
        on_change: What to do if a prompt, a model or a setting has changed since the last run:
            `raise`, or `rerun` the calls that depend on it.
        approve: Called with the estimate before any call is made; if it returns False, the run
            stops.
        on_progress: Called after each example.
        seed: Seed of the random order, used if a run may end before the last example.
        free_check: Whether to log the free check of each answer too, if there is a single other
            check: the probability of the answer's tokens according to the model that wrote them.
            Models that support it send these log-probabilities with the answer, in the same
            request; without them, the log has no free check. A log that was started without the
            free check continues without it.
        engine: `ray`: the workers of a Ray cluster run the examples, one on each CPU. The cluster
            is the one that this process is connected to, or the one that `ray.init` finds or starts
            (extra `ray`). The journal and the budget stay with this process, so everything else is
            the same. Models, check and grader are sent to the workers by cloudpickle. None: this
            process runs them.

    Returns:
        The log, with the texts in the `metadata` of each query.

    Raises:
        AutoMixError: An argument cannot be used, every call fails, or the journal cannot be written
            or belongs to another run. Calls that were paid for are kept.
    """
    settings = CalibrationSettings(
        examples,
        models,
        quality=quality,
        out=out,
        prompt=prompt,
        verifier=verifier,
        prices=prices,
        unit=unit,
        unlabelled=unlabelled,
        names=names,
        concurrency=concurrency,
        max_spend=max_spend,
        adaptive=adaptive,
        goal=goal,
        on_change=on_change,
        approve=approve,
        on_progress=on_progress,
        seed=seed,
        free_check=free_check,
        engine=engine,
    )
    with open_session(settings) as session:
        session.work()
        try:
            result = session.finish()
        except AutoMixError as error:
            if session.course.stopped == "interrupted":
                end_by_signal(session.course)
                raise KeyboardInterrupt from error
            raise
    end_by_signal(session.course)
    if result.progress.stopped == "interrupted":
        raise KeyboardInterrupt
    return _read_log(result)


def _takes_what(other: Callable[P, Any]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Give a function the signature of another one, for editors and `help`."""

    def change(function: Callable[..., T]) -> Callable[P, T]:
        function.__signature__ = inspect.signature(other)  # type: ignore[attr-defined]
        return function

    return change


@_takes_what(calibrate)
async def acalibrate(*args: Any, **kwargs: Any) -> RoutingLog:
    """Run all models over examples asynchronously; the arguments are those of `calibrate`."""
    settings = CalibrationSettings(*args, **kwargs)
    with open_session(settings) as session:
        await session.awork()
        try:
            result = session.finish()
        except AutoMixError:
            end_by_signal(session.course)
            raise
    end_by_signal(session.course)
    with keeping_users_line():
        return await asyncio.to_thread(_read_log, result)


def run_calibration(settings: CalibrationSettings) -> CalibrationResult:
    """Run a calibration, and return its result instead of the log.

    If a signal stopped the run, the process is not ended: the caller does so
    (`signal.raise_signal`) after reporting what is kept.

    Raises:
        StoppedBySignalError: A signal stopped the run before any example was finished, so there is
            no result.
        AutoMixError: As in `calibrate`.
    """
    with open_session(settings) as session:
        session.work()
        try:
            return session.finish()
        except AutoMixError as error:
            number = session.course.signal_number
            if number is None:
                raise
            raise StoppedBySignalError(str(error), number) from error


def _read_log(result: CalibrationResult) -> RoutingLog:
    """Return the log, and warn about what is missing in it.

    Raises:
        AutoMixError: The run ended because no call worked any more.
    """
    progress = result.progress
    finished = f"{result.written.queries} of {progress.examples} examples are in {result.out}"
    if progress.stopped == "nothing works":
        raise AutoMixError(
            f"Nothing works any more: {result.last_error}. {finished}; run the same again to "
            "resume."
        )
    if progress.stopped == "max_spend":
        warn_user(
            f"Stopped at max_spend: {progress.spent:g} {progress.currency} spent, {finished}. "
            "Run the same with a higher limit to resume."
        )
    if progress.failed:
        warn_user(
            f"{progress.failed} of {progress.examples} examples failed, and are not complete in "
            f"{result.out}: {result.last_error}. Run the same again to retry them."
        )
    _warn_of_unknown_grades(result.written)
    return RoutingLog.read(result.out)


def _warn_of_unknown_grades(written: LogStatistics) -> None:
    finished = written.queries - written.failed
    counts = [(model.model, finished - model.answers) for model in written.models]
    unknown = [(name, count) for name, count in counts if count > 0]
    if unknown:
        (name, count), *others = unknown
        said = [f"{count} of {finished} answers of {name}"]
        said += [f"{count} of {finished} of {name}" for name, count in others]
        warn_user(
            f"The quality of {' and '.join(said)} is unknown: the grader could not tell. A policy "
            f"is fitted to the {pluralize(written.complete, 'query', 'queries')} of which all "
            "is known."
        )
