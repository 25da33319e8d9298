"""`automix calibrate`, from its options to what it prints."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer
from langchain_core.runnables import Runnable
from rich.console import Console

from langchain_automix.calibration.budget import Progress
from langchain_automix.calibration.calibrate import Calibrated, run_calibration
from langchain_automix.calibration.config import Unit
from langchain_automix.calibration.cost_estimate import Estimate
from langchain_automix.calibration.examples.examples import Examples, examples_from
from langchain_automix.calibration.graders.text import GRADERS
from langchain_automix.calibration.validation import journal_path, validate_output
from langchain_automix.cli import tables as view
from langchain_automix.cli.checks import check_named, large_checks, resolve_checks
from langchain_automix.cli.inputs import grader_named, prices_in, prompt_in
from langchain_automix.cli.open_models import opened_models
from langchain_automix.cli.options import (
    USUAL_CHECK,
    AnswerTokens,
    Concurrency,
    ContextName,
    DryRun,
    Large,
    Limit,
    MaxSpend,
    Middle,
    Port,
    PricesFile,
    PromptFile,
    Quality,
    QuestionName,
    ReferencesName,
    RerunChanged,
    Samples,
    Seed,
    Small,
    UnitOfCost,
    Weights,
    WithoutReferences,
    Yes,
    wanted_models,
)
from langchain_automix.cli.progress import ProgressDisplay, event
from langchain_automix.errors import AutoMixError
from langchain_automix.local.models import Model, ModelOptions, is_local, open_hosted
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.utils.formatting import pluralize

_INTERRUPTED = 130


@dataclass(frozen=True)
class CalibrateOptions:
    """Options of `automix calibrate`."""

    wanted: ModelOptions
    examples: str
    out: Path
    checks: Sequence[str] = (USUAL_CHECK,)
    """Names of the checks: one to be logged; for a comparison several, or none for the usual."""

    quality: str = "exact_match"
    without_references: Literal["agreement", "grade"] = "agreement"
    prompt: Path | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    max_spend: float | None = None
    unit: Unit | None = None
    prices: Path | None = None
    concurrency: int | None = None
    dry_run: bool = False
    yes: bool = False
    rerun_changed: bool = False
    adaptive: bool = False
    goal: Mapping[str, float] = field(default_factory=dict)
    as_json: bool = False


class _NotWanted(Exception):  # noqa: N818  (it is no error)
    """The estimate was all that was wanted."""


class CalibrateCommand:
    """One run of `automix calibrate`.

    Args:
        options: What was asked for.
        console: Where people read.

    Raises:
        AutoMixError: There is no such check.
    """

    def __init__(self, options: CalibrateOptions, console: Console) -> None:
        self.options = options
        self.console = console
        self.watch = ProgressDisplay(console, options.max_spend, as_json=options.as_json)
        self.interrupted = False
        self._checks = resolve_checks(options.checks)
        self._models: Sequence[Model] = ()
        self._failed = 0
        self._approved = False

    def run(self) -> int:
        """Run the calibration, show it, and return the exit code.

        Raises:
            AutoMixError: Something that was given cannot be used, or no model works.
        """
        options = self.options
        self._check_options()
        examples = examples_from(options.examples, names=options.names, limit=options.limit)
        prompt = self._prompt(examples)
        self._check_grader(examples)
        prices = None if options.prices is None else prices_in(options.prices)
        unit = self._unit()
        with contextlib.ExitStack() as stack, self._interruptible(stack):
            try:
                wanted = replace(options.wanted, large_checks=large_checks(self._checks))
                self._models = stack.enter_context(opened_models(wanted, self.console))
                mix = AutoMixRunnable(
                    models=[model.chat for model in self._models],
                    verifier=self._verifier(),
                    prompt=prompt,
                    prices=prices,
                )
                found = self._calibrated(examples, mix, unit)
            except _NotWanted:
                return 0 if options.dry_run else 1
            except KeyboardInterrupt:
                return self._nothing_more("Interrupted.")
            except AutoMixError as error:
                if not self.interrupted:
                    raise
                return self._nothing_more(str(error))
        return self._finished(found)

    def _check_options(self) -> None:
        options = self.options
        if options.out.exists() and options.out.absolute() == Path(options.examples).absolute():
            raise AutoMixError(
                f"--out {options.out} would be written over the examples: give another."
            )
        validate_output(options.out)  # before a model is opened
        if options.max_spend is not None and not 0 < options.max_spend < float("inf"):
            raise AutoMixError(f"--max-spend must be above 0, not {options.max_spend!r}.")
        if options.goal and not options.adaptive:
            name = next(iter(options.goal)).replace("_", "-")
            raise AutoMixError(
                f"--{name} is a goal for --adaptive, which is not given; `automix fit` takes it."
            )
        if len(options.goal) > 1:
            both = " and ".join(f"--{name.replace('_', '-')}" for name in options.goal)
            raise AutoMixError(f"Give one goal, not {both}.")

    def _verifier(self) -> Runnable[Any, Any]:
        """Return the check of the opened models."""
        [check] = self._checks
        return check_named(check, self._models, self.options.wanted)

    def _prompt(self, examples: Examples) -> Runnable[Any, Any] | None:
        if self.options.prompt is None:
            return None
        prompt, notes = prompt_in(self.options.prompt, examples)
        for note in notes:
            view.say(self.console, note)
        return prompt

    def _check_grader(self, examples: Examples) -> None:
        options = self.options
        without = len(examples) - examples.referenced
        if options.without_references == "grade" and without and options.quality in GRADERS:
            raise AutoMixError(
                f"--quality {options.quality} cannot grade without accepted answers, and "
                f"{pluralize(without, 'example')} of {examples.source} have none: give "
                "--quality judge:PROVIDER:MODEL, or leave out --without-references grade."
            )

    def _unit(self) -> Unit:
        local = [spec for spec in self.options.wanted.specs if is_local(spec)]
        if self.options.unit is not None:
            return self.options.unit
        if not local:
            return "dollars"
        view.say(
            self.console,
            f"Costs are counted in seconds, for {' and '.join(local)} on this machine "
            f"{'has' if len(local) == 1 else 'have'} no price (--unit dollars takes --prices).",
        )
        return "seconds"

    def _judge(self, spec: str) -> Runnable[Any, Any]:
        specs = self.options.wanted.specs
        if spec in specs:  # is open already, and may be a local one
            return self._models[specs.index(spec)].chat
        if is_local(spec):
            raise AutoMixError(
                f"The judge {spec!r} is not open: give a provider:model, or one of the models that "
                "are calibrated."
            )
        return open_hosted(spec, self.options.wanted).chat

    def _calibrated(self, examples: Examples, mix: AutoMixRunnable, unit: Unit) -> Calibrated:
        options, journal = self.options, journal_path(self.options.out)
        is_new = not journal.exists()
        with self.watch:
            try:
                return run_calibration(
                    examples,
                    mix,
                    quality=grader_named(options.quality, self._judge),
                    out=options.out,
                    unit=unit,
                    unlabelled=options.without_references,
                    concurrency=options.concurrency,
                    max_spend=options.max_spend,
                    adaptive=options.adaptive,
                    goal=dict(options.goal) or None,
                    on_change="rerun",  # `_approve` asks
                    approve=self._approve,
                    on_progress=self._heard,
                    seed=options.wanted.seed,
                )
            except BaseException:
                if is_new and not self._approved:
                    journal.unlink(missing_ok=True)  # nothing was asked, so nothing is left behind
                raise

    def _approve(self, expected: Estimate) -> bool:
        """Show what is going to be asked for, and have it allowed."""
        options = self.options
        if options.as_json:
            event("estimate", **expected.to_dict())
        else:
            view.estimate(self.console, expected, without_references=options.without_references)
        self._check_limit(expected)
        if expected.changed and expected.calls:
            self._allow_changes(expected)
        if options.dry_run:
            raise _NotWanted
        if expected.calls and not options.yes:
            self._ask("Go on?", "Nothing is asked without your yes, and this is no terminal", "yes")
        self._approved = True
        self.watch.begin(expected.examples, expected.finished)
        return True

    def _check_limit(self, expected: Estimate) -> None:
        limit = self.options.max_spend
        unknown = [s for s in expected.stages if s.calls and s.cost is None]
        if limit is not None and unknown and expected.currency == "USD":
            raise AutoMixError(
                f"--max-spend {limit:g} cannot be kept, for what {view.named(unknown[0])} "
                "costs is not known: give its price with --prices."
            )

    def _allow_changes(self, expected: Estimate) -> None:
        said = view.changes(expected)
        if not self.options.as_json:
            view.say(
                self.console,
                f"{said} What that shapes is asked, and paid for, again; the figures above have "
                "it in them.",
            )
        if not self.options.rerun_changed and not self.options.dry_run:
            self._ask(
                "Make them again?",
                f"{said} The calls that it shapes would be made, and paid for, again",
                "rerun-changed",
            )

    def _ask(self, question: str, otherwise: str, option: str) -> None:
        """Ask a person; where there is none, name the option that answers."""
        if not sys.stdin.isatty():
            raise AutoMixError(f"{otherwise}: give --{option}, or --dry-run for the estimate only.")
        try:
            said = self.console.input(f"{question} \\[y/N] ")
        except EOFError:
            said = ""
        if said.strip().lower() not in ("y", "yes"):
            view.say(self.console, "Nothing was asked.")
            raise _NotWanted

    def _heard(self, progress: Progress) -> None:
        """Show how far it is; end it where a server of ours is no more."""
        self.watch(progress)
        if progress.failed > self._failed:
            self._failed = progress.failed
            for model in self._models:
                try:
                    model.check()
                except AutoMixError as error:
                    raise AutoMixError(
                        f"{error} What was finished before is kept: the same command goes on."
                    ) from error

    def _finished(self, found: Calibrated) -> int:
        """Show what came of it; return the exit code.

        Raises:
            AutoMixError: Nothing worked, or nothing does any more.
        """
        self._show(found)
        if found.progress.stopped == "nothing works" or found.written.failed == (
            found.written.queries
        ):
            raise AutoMixError(
                f"Nothing works: {found.last_error or 'each example failed'} "
                f"({found.written.failed} of {found.progress.examples} examples failed). The same "
                "command tries them again, and repeats no finished call."
            )
        return _INTERRUPTED if found.progress.stopped == "interrupted" else 0

    def _show(self, found: Calibrated) -> None:
        options, written = self.options, found.written
        fit = f"automix fit {quote(str(found.out))} --out policy.json"
        if options.as_json:
            event("done", **view.as_dict(found), next=fit if written.complete else None)
        elif written.failed < written.queries:
            view.summary(self.console, found, options.max_spend)
            view.say(self.console, f"Log: {found.out} (every call: {journal_path(found.out).name})")
            view.say(
                self.console,
                f"Next: [bold]{fit}[/]"
                if written.complete
                else "No policy can be fitted to it: of no example is every quality known.",
            )

    def _nothing_more(self, text: str) -> int:
        """Say how an interrupted run without a log ended."""
        kept = " The same command goes on from here." if self._approved else " Nothing was asked."
        self.watch.stop()
        print(f"automix: {text}{kept}", file=sys.stderr)  # noqa: T201
        return _INTERRUPTED

    @contextlib.contextmanager
    def _interruptible(self, opened: contextlib.ExitStack) -> Iterator[None]:
        """Have the first Ctrl-C end it cleanly, with a word at once, and the second one at once."""

        def at_once(*_: object) -> None:
            self.watch.stop()
            opened.close()
            self.watch.say("Given up. What was finished is kept; the same command goes on.")
            # Not by an exception: threads with a call under way would be waited for. Each finished
            # call is in the journal.
            os._exit(_INTERRUPTED)

        def cleanly(*_: object) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, at_once)
            if self._approved:
                self.watch.say(
                    "Stopping: calls under way end first, and are kept. Ctrl-C again gives them up."
                )
            raise KeyboardInterrupt

        if signal.getsignal(signal.SIGINT) != signal.default_int_handler:
            yield  # somebody else's business, or to be ignored
            return
        signal.signal(signal.SIGINT, cleanly)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)


_GOAL = "Goal"
_AS_GIVEN = (
    "examples",
    "out",
    "quality",
    "without_references",
    "prompt",
    "limit",
    "max_spend",
    "unit",
    "prices",
    "concurrency",
    "dry_run",
    "yes",
    "rerun_changed",
    "as_json",
)
"""Options of a calibration that stand as they are given."""


def register(app: typer.Typer) -> None:
    """Add `calibrate` to the command line; errors are `AutoMixError`."""
    app.command("calibrate")(calibrate)


def calibrate(
    examples: Annotated[
        str,
        typer.Argument(help="Examples: .jsonl, .jsonl.gz or .csv, or langsmith:DATASET."),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="LOG", help="The routing log: .jsonl, .jsonl.gz or .parquet."),
    ],
    small: Small = None,
    middle: Middle = None,
    large: Large = None,
    weights: Weights = None,
    port: Port = 0,
    answer_tokens: AnswerTokens = 512,
    samples: Samples = 8,
    seed: Seed = 7,
    quality: Quality = "exact_match",
    without_references: WithoutReferences = "agreement",
    check: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What checks the answers, as in `automix compare-verifiers`; an unknown name "
            "lists all.",
        ),
    ] = USUAL_CHECK,
    prompt: PromptFile = None,
    question: QuestionName = None,
    context: ContextName = None,
    references: ReferencesName = None,
    limit: Limit = None,
    max_spend: MaxSpend = None,
    unit: UnitOfCost = None,
    prices: PricesFile = None,
    concurrency: Concurrency = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    rerun_changed: RerunChanged = False,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="Stop when more examples would not change the policy for the goal.",
            rich_help_panel=_GOAL,
        ),
    ] = False,
    cost_weight: Annotated[
        float | None,
        typer.Option(help="As `automix fit` takes it.", rich_help_panel=_GOAL),
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="Likewise.", rich_help_panel=_GOAL)] = None,
    min_quality: Annotated[
        float | None, typer.Option(help="Likewise.", rich_help_panel=_GOAL)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line on stdout.")
    ] = False,
) -> None:
    """Run all models over examples, and write the log that a policy is fitted to.

    Says first what that is likely to cost, and asks.

    Every finished call is kept: after a stop or a kill, the same command goes on from there.
    """
    from langchain_automix.cli.calibrate import CalibrateCommand  # noqa: PLC0415  (for --help)

    goal = {"cost_weight": cost_weight, "max_cost": max_cost, "min_quality": min_quality}
    goal = {name: value for name, value in goal.items() if value is not None}
    options = options_in(locals(), adaptive=adaptive, goal=goal, checks=[check])
    command = CalibrateCommand(options, Console(stderr=as_json))
    if code := command.run():
        raise typer.Exit(code)


def options_in(given: Mapping[str, Any], **more: Any) -> CalibrateOptions:
    """Return what a verb that runs a calibration was given.

    Args:
        given: Its arguments, by name.
        **more: Options of its own.
    """
    from langchain_automix.cli.calibrate import CalibrateOptions  # noqa: PLC0415
    from langchain_automix.local.models import RETRIES  # noqa: PLC0415  (both slow, for --help)

    names = {name: given[name] for name in ("question", "context", "references")}
    wanted = wanted_models(
        *(given[name] for name in ("small", "large", "weights", "port", "seed", "samples")),
        middle=tuple(given["middle"] or ()),
        answer_tokens=given["answer_tokens"],
        max_retries=RETRIES,
    )
    as_given = {name: given[name] for name in _AS_GIVEN}
    names = {field: name for field, name in names.items() if name is not None}
    return CalibrateOptions(wanted=wanted, names=names, **as_given, **more)
