"""A calibration at a terminal: its estimate, your consent, its progress and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_core.runnables import Runnable
from rich.console import Console

from langchain_automix.calibration.budget import Progress
from langchain_automix.calibration.calibrate import run_calibration
from langchain_automix.calibration.config import Unit
from langchain_automix.calibration.cost_estimate import Estimate
from langchain_automix.calibration.examples.examples import examples_from
from langchain_automix.calibration.graders.text import GRADERS
from langchain_automix.calibration.interruption import StoppedBySignalError
from langchain_automix.calibration.session import CalibrationResult
from langchain_automix.calibration.settings import CalibrationSettings
from langchain_automix.calibration.validation import validate_output
from langchain_automix.cli import tables
from langchain_automix.cli.inputs import read_grader, read_prices, read_prompt
from langchain_automix.cli.open_models import opened_models
from langchain_automix.cli.options import CalibrationOptions
from langchain_automix.cli.progress import ProgressDisplay
from langchain_automix.cli.terminal import echo, print_event, say
from langchain_automix.errors import AutoMixError
from langchain_automix.local.models import Model, ModelOptions, is_local, open_hosted
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.utils.formatting import pluralize
from langchain_automix.utils.ray_cluster import connect
from langchain_automix.utils.text import redact_secrets
from langchain_automix.verifiers.base import Verifier

_INTERRUPTED = 130

BuildCheck = Callable[[Sequence[Model], ModelOptions], Verifier]
Show = Callable[[CalibrationResult, CalibrationOptions, Console], None]


class _EstimateOnly(Exception):  # noqa: N818  (not an error)
    """The user wanted only the estimate."""


@dataclass
class Calibration:
    """One calibration that a verb runs.

    Raises:
        AutoMixError: Options conflict, the examples cannot be read, or the log could
            not be written.
    """

    options: CalibrationOptions
    model_options: ModelOptions
    build_check: BuildCheck
    """Makes the check for the answers of the opened models."""

    source: str
    """The source of the examples."""

    out: Path
    free_check: bool = False
    """Whether the log also has the free check, beside the one that is built."""

    adaptive: bool = False
    goal: Mapping[str, float] = field(default_factory=dict)
    _models: Sequence[Model] = ()
    _failed: int = 0
    _is_approved: bool = False
    _is_interrupted: bool = False
    _signal_number: int | None = None

    def __post_init__(self) -> None:
        options = self.options
        self.console = Console(stderr=options.as_json)
        self._display = ProgressDisplay(self.console, options.max_spend, as_json=options.as_json)
        self._validate()
        self.examples = examples_from(self.source, names=options.names, limit=options.limit)

    def _validate(self) -> None:
        """Refuse options that must fail, before the examples are read or a model is opened."""
        if self.out.absolute() == Path(self.source).absolute():
            raise AutoMixError(
                f"--out {self.out} would overwrite the examples: write another file."
            )
        validate_output(self.out)
        names = [f"--{name.replace('_', '-')}" for name in self.goal]
        if names and not self.adaptive:
            raise AutoMixError(
                f"{names[0]} needs --adaptive: without it all examples are run, and the goal is "
                "given to `automix fit`."
            )
        if len(names) > 1:
            raise AutoMixError(f"Give one goal only: {' or '.join(names)}.")

    def run(self, show: Show) -> int:
        """Run it, show the result, and return the exit code.

        If a signal stopped it, the signal ends the process, once the models are closed.

        Raises:
            AutoMixError: An input cannot be used, or no model works.
        """
        code = _INTERRUPTED
        try:
            code = self._run(show)
        except OSError:
            if self._signal_number is None:
                raise  # else the terminal has gone, and with it whoever would read a result
        if self._signal_number is not None:
            _end_by_signal(self._signal_number)
        return code

    def _run(self, show: Show) -> int:
        if self.options.ray is not None:
            connect(self.options.ray)
        prompt = self._prompt()
        self._validate_grader()
        prices = None if self.options.prices is None else read_prices(self.options.prices)
        unit = self._unit()
        with contextlib.ExitStack() as stack, self._interruptible(stack):
            try:
                self._models = stack.enter_context(opened_models(self.model_options, self.console))
                mix = AutoMixRunnable(
                    models=[model.chat for model in self._models],
                    verifier=self.build_check(self._models, self.model_options),
                    prompt=prompt,
                    prices=prices,
                )
                result = self.calibrate(mix, unit)
            except _EstimateOnly:
                return 0 if self.options.dry_run else 1
            except KeyboardInterrupt:
                return self._end_without_log("Interrupted.")
            except StoppedBySignalError as error:
                self._signal_number = error.number
                return self._end_without_log(str(error))
            except AutoMixError as error:
                if not self._is_interrupted:
                    raise
                return self._end_without_log(str(error))
        self._signal_number = result.signal_number
        show(result, self.options, self.console)
        return _INTERRUPTED if self._signal_number is not None else _exit_code(result)

    def _prompt(self) -> Runnable[Any, Any] | None:
        if self.options.prompt is None:
            return None
        prompt, notes = read_prompt(self.options.prompt, self.examples)
        for note in notes:
            say(self.console, note)
        return prompt

    def _validate_grader(self) -> None:
        options, examples = self.options, self.examples
        unlabelled = len(examples) - examples.referenced
        if options.without_references == "grade" and unlabelled and options.quality in GRADERS:
            raise AutoMixError(
                f"--quality {options.quality} cannot grade without accepted answers, and "
                f"{pluralize(unlabelled, 'example')} of {examples.source} have none: give "
                "--quality judge:PROVIDER:MODEL, or leave out --without-references grade."
            )

    def _unit(self) -> Unit:
        if self.options.unit is not None:
            return self.options.unit
        local = [spec for spec in self.model_options.specs if is_local(spec)]
        if not local:
            return "dollars"
        say(
            self.console,
            f"Costs are counted in seconds, because {' and '.join(local)} on this machine "
            f"{'has' if len(local) == 1 else 'have'} no price (--unit dollars needs --prices).",
        )
        return "seconds"

    def _open_judge(self, spec: str) -> Runnable[Any, Any]:
        specs = self.model_options.specs
        if spec in specs:  # already open, and possibly local
            return self._models[specs.index(spec)].chat
        if is_local(spec):
            raise AutoMixError(
                f"The judge {spec!r} is not open: give a provider:model, or one of the models "
                "being calibrated."
            )
        return open_hosted(spec, self.model_options).chat

    def calibrate(self, mix: AutoMixRunnable, unit: Unit) -> CalibrationResult:
        """Run the calibration of a mix; leave nothing behind if it was not approved."""
        options = self.options
        with self._display:
            return run_calibration(
                CalibrationSettings(
                    self.examples,
                    mix,
                    quality=read_grader(options.quality, self._open_judge),
                    out=self.out,
                    unit=unit,
                    unlabelled=options.without_references,
                    concurrency=options.concurrency,
                    max_spend=options.max_spend,
                    adaptive=self.adaptive,
                    goal=self.goal or None,
                    on_change="rerun",  # `_approve` asks
                    approve=self._approve,
                    on_progress=self._show_progress,
                    seed=options.seed,
                    free_check=self.free_check,
                    engine=None if options.ray is None else "ray",
                )
            )

    def _approve(self, expected: Estimate) -> bool:
        """Show the estimate, and ask for consent."""
        options = self.options
        if options.as_json:
            print_event("estimate", **expected.to_dict())
        else:
            tables.show_estimate(
                self.console, expected, without_references=options.without_references
            )
        self._validate_limit(expected)
        if expected.changed and expected.calls:
            self._allow_changes(expected)
        if options.dry_run:
            raise _EstimateOnly
        if expected.calls and not options.yes:
            self._ask(
                "Go on?",
                "No call is made without your consent, and there is no terminal to ask at",
                "yes",
            )
        self._is_approved = True
        self._display.begin(expected.examples, expected.finished)
        return True

    def _validate_limit(self, expected: Estimate) -> None:
        limit = self.options.max_spend
        unknown = [s for s in expected.stages if s.calls and s.cost is None]
        if limit is not None and unknown and expected.currency == "USD":
            raise AutoMixError(
                f"--max-spend {limit:g} cannot be enforced, for the cost of "
                f"`{tables.describe_stage(unknown[0])}` is unknown: give its price with --prices."
            )

    def _allow_changes(self, expected: Estimate) -> None:
        changes = tables.describe_changes(expected)
        if not self.options.as_json:
            say(
                self.console,
                f"{changes} The calls that depend on it are made, and paid for, again; the figures "
                "above include them.",
            )
        if not self.options.rerun_changed and not self.options.dry_run:
            self._ask(
                "Make them again?",
                f"{changes} The calls that depend on it would be made, and paid for, again",
                "rerun-changed",
            )

    def _ask(self, question: str, otherwise: str, option: str) -> None:
        """Ask for consent; without a terminal, name the option that gives it.

        Raises:
            _EstimateOnly: The answer is no.
            AutoMixError: There is no terminal to ask at.
        """
        if not sys.stdin.isatty():
            raise AutoMixError(f"{otherwise}: give --{option}, or --dry-run for the estimate only.")
        try:
            answer = self.console.input(f"{question} \\[y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            say(self.console, "No call was made.")
            raise _EstimateOnly

    def _show_progress(self, progress: Progress) -> None:
        """Show the progress; end the run if a local server has died.

        Raises:
            AutoMixError: A local server has died.
        """
        self._display(progress)
        if progress.failed > self._failed:
            self._failed = progress.failed
            for model in self._models:
                try:
                    model.check()
                except AutoMixError as error:
                    raise AutoMixError(
                        f"{error} What was finished before is kept: run the same command again to "
                        "resume."
                    ) from error

    def _end_without_log(self, reason: str) -> int:
        kept = "No call was made."
        if self._is_approved:
            from langchain_automix.policy.fitting.fit import FEW

            needed = min(FEW, len(self.examples))
            kept = (
                f"`automix fit` needs about {needed} complete examples, and there is none yet: run "
                "the same command again to resume."
            )
        self._display.stop()
        echo(f"automix: {redact_secrets(reason)} {kept}", to_stderr=True)
        return _INTERRUPTED

    @contextlib.contextmanager
    def _interruptible(self, opened: contextlib.ExitStack) -> Iterator[None]:
        """End cleanly, and say so, at the first Ctrl-C; end at once at the second."""

        def give_up(*_: object) -> None:
            self._display.stop()
            opened.close()
            self._display.say(
                "Stopped at once. Finished calls are kept; run the same command again to resume."
            )
            # Not by an exception, which would wait for threads with a call under way. Finished
            # calls are in the journal.
            os._exit(_INTERRUPTED)

        def interrupt(*_: object) -> None:
            self._is_interrupted = True
            signal.signal(signal.SIGINT, give_up)
            if self._is_approved:
                self._display.say(
                    "Stopping: calls under way end first, and are kept. Ctrl-C again drops them."
                )
            raise KeyboardInterrupt

        if signal.getsignal(signal.SIGINT) != signal.default_int_handler:
            yield  # another handler is set, or the signal is ignored
            return
        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_by_signal(number: int) -> None:
    """End the process by the signal that stopped a run, when all that it said has been written."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    signal.raise_signal(number)


def _exit_code(result: CalibrationResult) -> int:
    """Return the exit code of a calibration.

    Raises:
        AutoMixError: Nothing worked, or nothing works any more.
    """
    progress, written = result.progress, result.written
    if progress.stopped == "nothing works" or written.failed == written.queries:
        raise AutoMixError(
            f"Nothing works: {written.failed} of {progress.examples} examples failed. The last "
            f"error: {result.last_error or 'unknown'} Run the same command to retry them; finished "
            "calls are not repeated."
        )
    return _INTERRUPTED if progress.stopped == "interrupted" else 0
