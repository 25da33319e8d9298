"""One run of the demo: live, recorded or replayed, shown as it goes, with a summary."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from langchain_automix.cli.demo_json import row_dict
from langchain_automix.cli.open_models import opened_pair
from langchain_automix.cli.options import DemoOptions
from langchain_automix.errors import AutoMixError
from langchain_automix.local.demo import results, view
from langchain_automix.local.demo.checks import IN_WORDS
from langchain_automix.local.demo.measuring import Row
from langchain_automix.local.demo.questions import SHIPPED, Question, in_order, read_questions
from langchain_automix.local.demo.run import Demo, fit_part, routing_log
from langchain_automix.local.demo.summary import summarize
from langchain_automix.local.models import ModelOptions, replayed_pair
from langchain_automix.local.recording import Recording
from langchain_automix.verifiers.combined import CombinedVerifier

LIVE_QUESTIONS = 40
"""Questions that a live run asks, time permitting."""

_PROBES = 2
"""Questions used to measure this machine, where some of what is asked is fitted on."""

_FEWEST = 8
"""Questions that are asked however slow the machine is."""

_USABLE_SHARE = 0.9
"""Share of the remaining time that is planned for."""

_SHOWN_WHILE_LEARNING, _SHOWN_OF_REPLAY = 3, 20
"""Rows that a replay shows of each part; the rest would only scroll by."""


def run_demo(options: DemoOptions, console: Console) -> dict[str, Any]:
    """Run the demo, show it, and return all its rows and figures, ready for JSON.

    Raises:
        AutoMixError: An option cannot be used, or a model failed.
    """
    price_ratio = _parse_price_ratio(options.price_ratio)
    for path in (options.log, options.record):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise AutoMixError(f"{path} cannot be written: give a file in a folder that exists.")
    if options.replay:
        return _replay(options, console, price_ratio)
    return _live(options, console, price_ratio)


def _replay(options: DemoOptions, console: Console, price_ratio: float | None) -> dict[str, Any]:
    recording = Recording.read()
    about = recording.about
    console.print(
        f"[bold]This is a replay[/] of recorded answers by {about['small']} and {about['large']}, "
        "with the time that they took; no model runs now."
    )
    questions = recorded_questions(recording)
    questions = questions[: _validate_count(options.questions, questions, "the recording")]
    demo = Demo(replayed_pair(recording), samples=about["samples"], price_ratio=price_ratio)
    return _Run(options, console, demo, about["seed"]).run(questions)


def recorded_questions(recording: Recording) -> list[Question]:
    """Return the questions of a recording of shipped questions, in the order asked."""
    return in_order(read_questions(), recording.about["seed"])[: recording.about["questions"]]


def _live(options: DemoOptions, console: Console, price_ratio: float | None) -> dict[str, Any]:
    data = options.data or SHIPPED
    questions = in_order(read_questions(data), options.seed)
    _validate_count(options.questions, questions, data.name)
    model_options = options.to_model_options()
    if options.record is not None:
        journal = _journal(options.record)
        model_options = replace(model_options, record=True, journal=journal)
    recording = None if options.learn_live else _fitting_recording(options, model_options)
    if recording is not None:
        _validate_routed(options.questions, recorded_questions(recording))
    with opened_pair(model_options, console) as pair:
        console.print(
            f"[bold]AutoMix[/]: {pair.small.name} answers, its answer is checked, and "
            f"{pair.large.name} is asked only where that seems worth it.",
            highlight=False,
        )
        demo = Demo(pair, samples=options.samples, price_ratio=price_ratio)
        run = _Run(options, console, demo, options.seed, options.minutes * 60)
        if options.record is not None:
            return run.record(questions[: options.questions])
        if recording is None:
            return run.run(questions[: options.questions])
        return run.route_after(recording, options.questions or LIVE_QUESTIONS)


def _fitting_recording(options: DemoOptions, models: ModelOptions) -> Recording | None:
    """Return the shipped recording if it is of the same models, questions and settings."""
    if options.data is not None or options.record is not None:
        return None
    recording = Recording.read()
    about = recording.about
    mine = (models.small, models.large, models.seed, models.samples)
    same = mine == tuple(about[name] for name in ("small", "large", "seed", "samples"))
    return recording if same else None


def _parse_price_ratio(text: str) -> float | None:
    if text == "measured":
        return None
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not 1 < ratio < math.inf:
        raise AutoMixError(f"--price-ratio is {text!r}; give a number above 1, or 'measured'.")
    return ratio


def _validate_count(count: int | None, questions: list[Question], where: str) -> int | None:
    if count is not None and count > len(questions):
        raise AutoMixError(f"--questions {count} is more than the {len(questions)} in {where}.")
    return count


def _journal(recording: Path) -> Path:
    return recording.with_name(f"{recording.name}.journal")


def _validate_routed(count: int | None, questions: list[Question]) -> None:
    routed = len(questions) - fit_part(questions)
    if count is not None and count > routed:
        raise AutoMixError(
            f"--questions {count} is more than the {routed} that the policy was not fitted to; "
            f"--learn-live asks up to {len(questions)}."
        )


@dataclass
class _Run:
    """A demo under way."""

    options: DemoOptions
    console: Console
    demo: Demo
    seed: int
    """Seed of the models and the questions."""

    seconds: float | None = None
    """How long the run may take where no number of questions is given; None: no limit."""

    is_interrupted: bool = False
    _is_recorded: bool = False
    _more: str | None = None
    """Where there is more to see; said at the end."""

    _started: float = field(default_factory=time.monotonic)

    def run(self, questions: list[Question]) -> dict[str, Any]:
        """Measure a third of the questions, route the rest, and return what `run_demo` does."""
        return self._finishing(lambda: self._learn_and_route(questions))

    def route_after(self, recording: Recording, count: int) -> dict[str, Any]:
        """Learn from the recorded third of the questions, and route others live."""
        return self._finishing(lambda: self._route_after(recording, count))

    def record(self, questions: list[Question]) -> dict[str, Any]:
        """Ask all questions of both models and all checks, and write the recording."""
        self.seconds = None  # a recording that was stopped goes on; one in part is no recording
        return self._finishing(lambda: self._record(questions))

    def _finishing(self, steps: Callable[[], None]) -> dict[str, Any]:
        try:
            steps()
        except KeyboardInterrupt:
            self.is_interrupted = True
            self.console.print(
                f"Stopped after {len(self.demo.rows)} questions; this is what they showed:"
            )
        except AutoMixError:
            self._finish()  # keep what was done
            raise
        return self._finish()

    @property
    def _until(self) -> float | None:
        """When to stop, by `time.monotonic`; None: after the last question."""
        if self.seconds is None or self.options.questions is not None:
            return None
        return self._started + self.seconds

    def _record(self, questions: list[Question]) -> None:
        self._show(self.demo.measure(questions), len(questions))
        self._is_recorded = True

    def _learn_and_route(self, questions: list[Question]) -> None:
        demo, is_replay = self.demo, self.demo.pair.is_replay
        if not is_replay:
            questions = self._affordable(questions)
        cut = fit_part(questions)
        view.heading(self.console, f"Learning: {cut} questions, by both models and every check")
        for row in demo.rows:
            view.row(self.console, row)
        shown = _SHOWN_WHILE_LEARNING if is_replay else cut
        self._show(demo.measure(questions[:cut]), cut, shown)
        if len(demo.rows) < cut:  # the time is up
            return
        self._show_learned()
        rest = questions[cut:]
        view.heading(self.console, f"Routing: the mix decides on {len(rest)} other questions")
        self._show(demo.route(rest), len(rest), _SHOWN_OF_REPLAY if is_replay else len(rest))

    def _route_after(self, recording: Recording, count: int) -> None:
        demo = self.demo
        questions = recorded_questions(recording)
        cut = fit_part(questions)
        view.heading(self.console, f"Learned from recorded answers to {cut} questions")
        recorded = Demo(replayed_pair(recording), samples=demo.samples)
        demo.rows += recorded.measure(questions[:cut])
        view.note(
            self.console,
            "By the same two models, which would take some "
            f"{recorded.pair.clock() / 60:.0f} minutes again; --learn-live takes them.",
        )
        self._show_learned()
        rest = questions[cut:][:count]
        limit = ""
        if self._until is not None:
            limit = f", or as many as {self.options.minutes:g} minutes allow"
        view.heading(self.console, f"Routing, live: {len(rest)} other questions{limit}")
        self._show(demo.route(rest), len(rest))
        self._more = (
            f"`automix demo --replay` shows {len(questions) - cut} recorded ones in seconds, all "
            "checks side by side."
        )

    def _show_learned(self) -> None:
        demo = self.demo
        with self.console.status("Comparing the checks, and fitting the policy"):
            learned = demo.learn()
        ratio = demo.price_ratio
        price = "the measured seconds" if ratio is None else f"a price ratio of {ratio:g}:1"
        view.learned(self.console, learned, IN_WORDS[learned.check], price)

    def _affordable(self, questions: list[Question]) -> list[Question]:
        """Measure this machine on the first questions, and return those that fit the time."""
        probes = min(_PROBES, fit_part(questions))
        seconds: list[float] = []
        start = time.monotonic()
        with self.console.status(f"Measuring this machine on {probes} questions"):
            for _ in self.demo.measure(questions[:probes]):
                seconds.append(time.monotonic() - start - sum(seconds))
        count = len(questions)
        if self._until is not None:
            left = (self._until - time.monotonic()) * _USABLE_SHARE
            count = min(count, max(_FEWEST, probes + int(left / seconds[-1])))
        self.console.print(
            f"{count} questions, at most {seconds[-1]:.0f} seconds each. Ctrl-C stops early, and "
            "shows the summary."
        )
        return questions[:count]

    def _show(self, rows: Iterable[Row], total: int, shown: int | None = None) -> None:
        """Print rows as they come, under a bar whose times move on; stop when the time is up."""
        demo, console = self.demo, self.console
        before = len(demo.rows)
        with view.questions(console) as progress:
            task = self._add_task(progress, total)
            for number, row in enumerate(rows, 1):
                if shown is None or number <= shown:
                    view.row(console, row)
                elapsed = progress.tasks[0].elapsed
                progress.update(task, advance=1, last=elapsed)
                if self._is_time_up(len(demo.rows) - before):
                    console.print("The time is up; this is what it showed.")
                    break
        view.rows_left_out(console, len(demo.rows) - before - (shown or total))

    def _add_task(self, progress: Progress, total: int) -> TaskID:
        until = None
        if self._until is not None:
            until = progress.get_time() + self._until - time.monotonic()
        return progress.add_task("questions", total=total, last=None, until=until)

    def _is_time_up(self, done: int) -> bool:
        return self._until is not None and time.monotonic() > self._until and done >= _FEWEST

    def _finish(self) -> dict[str, Any]:
        demo, options = self.demo, self.options
        pair, rows = demo.pair, demo.rows
        summary = summarize(demo)
        if summary is not None:
            results.show(self.console, summary, demo.names)
        if self._more is not None:
            view.note(self.console, self._more)
        about = {
            **dict(zip(("small", "large"), demo.names, strict=True)),
            "seed": self.seed,
            "samples": demo.samples,
            "questions": len(rows),
        }
        if options.log is not None and rows:
            checks = CombinedVerifier(checks=demo.checks)
            routing_log(rows, demo.names, None, verifier=checks).write(options.log)
        if options.record is not None and pair.recorder is not None:
            pair.recorder.recording(about).write(options.record)
            if self._is_recorded:
                _journal(options.record).unlink(missing_ok=True)
        return {
            "about": {**about, "replay": pair.is_replay, "interrupted": self.is_interrupted},
            "rows": [row_dict(row) for row in rows],
            "summary": None if summary is None else summary.as_dict(),
        }
