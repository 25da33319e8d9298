"""The verb of `automix` that compares checks: `compare-verifiers`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from langchain_core.runnables import Runnable
from rich.console import Console
from rich.table import Table
from typing_extensions import override

from langchain_automix.cli import tables as view
from langchain_automix.cli.calibrate import CalibrateCommand, CalibrateOptions, options_in
from langchain_automix.cli.checks import combined
from langchain_automix.cli.options import (
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
)
from langchain_automix.cli.progress import event
from langchain_automix.errors import AutoMixError
from langchain_automix.evaluation.compare_verifiers import compare_verifiers
from langchain_automix.evaluation.comparison import EXPLANATION, Comparison, cells, heads, title
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.utils.text import escape_rich

if TYPE_CHECKING:
    from langchain_automix.calibration.calibrate import Calibrated


_COMPARISON = "Comparison"
_OF_ANY_LOG = frozenset({"examples", "k", "cost_weight", "markdown", "as_json"})


def register(app: typer.Typer) -> None:
    """Add `compare-verifiers` to the command line; errors are `AutoMixError`."""
    app.command("compare-verifiers")(compare)


def compare(
    run: typer.Context,
    examples: Annotated[
        str,
        typer.Argument(
            metavar="EXAMPLES_OR_LOG",
            help="Examples, as `automix calibrate` takes them; or a routing log, of which only "
            "the table is made.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="LOG", help="Where the routing log of the checks goes.")
    ] = Path("checks.jsonl"),
    check: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A check to make; may be given again. An unknown name lists all.",
            show_default="all but those that cost most",
            rich_help_panel=_COMPARISON,
        ),
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Verdicts, of those drawn, to compare; may be given again.",
            show_default="1, 2, 4 and 8",
            rich_help_panel=_COMPARISON,
        ),
    ] = None,
    cost_weight: Annotated[
        float | None,
        typer.Option(
            help="Quality that one unit of cost is worth.",
            show_default="where mixing the models at random is indifferent",
            rich_help_panel=_COMPARISON,
        ),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the table, with more columns, here.",
            rich_help_panel=_COMPARISON,
        ),
    ] = None,
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line on stdout.")
    ] = False,
) -> None:
    """Compare checks of the small model's answers: what each tells, costs, and would bring.

    Makes all of them of the same answers, says first what that is likely to cost, and asks.
    """
    from langchain_automix.cli.compare import CompareCommand, CompareOptions, is_log, show  # noqa: PLC0415  (slow, for --help)
    from langchain_automix.policy.data.log import RoutingLog  # noqa: PLC0415

    comparing = CompareOptions(tuple(k or (1, 2, 4, 8)), cost_weight, 0, markdown, as_json)
    console = Console(stderr=as_json)
    if cost_weight is not None and not 0 <= cost_weight < float("inf"):
        raise AutoMixError(f"--cost-weight must be a number of at least 0, not {cost_weight!r}.")
    if markdown is not None and (markdown.is_dir() or not markdown.absolute().parent.is_dir()):
        raise AutoMixError(
            f"--markdown {markdown} cannot be written: give a file in a folder that is there."
        )
    if is_log(examples):
        _refuse_options_of_a_run(run)
        show(console, RoutingLog.read(examples), comparing)
        return
    options = options_in(locals(), checks=check or ())
    if code := CompareCommand(options, comparing, console).run():
        raise typer.Exit(code)


def _refuse_options_of_a_run(run: typer.Context) -> None:
    """Refuse options that a log would leave without effect."""
    for name in sorted(run.params.keys() - _OF_ANY_LOG):
        source = run.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = name.replace("_", "-")
            raise AutoMixError(
                f"--{option} is for examples that are yet to be run; a routing log holds its "
                "checks already: leave it out."
            )


@dataclass(frozen=True)
class CompareOptions:
    """How checks are compared."""

    k: Sequence[int]
    cost_weight: float | None = None
    seed: int = 0
    markdown: Path | None = None
    """Where the table goes as Markdown."""

    as_json: bool = False


class CompareCommand(CalibrateCommand):
    """A calibration with several checks, and the table that comes of it.

    Args:
        options: Of the calibration.
        comparing: How they are compared.
        console: Where people read.

    Raises:
        AutoMixError: There is no such check.
    """

    def __init__(
        self,
        options: CalibrateOptions,
        comparing: CompareOptions,
        console: Console,
    ) -> None:
        super().__init__(options, console)
        self._comparing = comparing

    @override
    def _verifier(self) -> Runnable[Any, Any]:
        return combined(self._checks, self._models, self.options.wanted)

    @override
    def _show(self, found: Calibrated) -> None:
        if self.options.as_json:
            event("done", **view.as_dict(found))
        elif found.written.queries:
            first, *others = view.ending(found, self.options.max_spend)
            for line in (f"[bold]{escape_rich(first)}[/]", *map(escape_rich, others)):
                view.say(self.console, line)
            for line in view.labels(found.written):
                view.say(self.console, escape_rich(line))
            view.say(self.console, f"Log: {escape_rich(str(found.out))}\n")
        if found.written.complete > 1 and found.progress.stopped != "interrupted":
            show(self.console, RoutingLog.read(found.out), self._comparing)


def is_log(path: str) -> bool:
    """Whether a file holds a routing log, and not examples; its first line tells."""
    if path.endswith(".parquet"):
        return True
    if not path.endswith((".jsonl", ".jsonl.gz")):
        return False
    try:
        with gzip.open(path, "rt") if path.endswith(".gz") else Path(path).open() as lines:
            first = next((line for line in lines if line.strip()), "")
        found = json.loads(first or "null")
    except (OSError, EOFError, ValueError):
        return False  # who reads it as examples says what is wrong with it
    answers = found.get("answers") if isinstance(found, dict) else None
    return isinstance(answers, list) and all(isinstance(a, dict) and "model" in a for a in answers)


def show(console: Console, log: RoutingLog, options: CompareOptions) -> None:
    """Compare the checks of a log, and print what comes of it.

    Raises:
        AutoMixError: They cannot be compared, or the Markdown cannot be written.
    """
    found = compare_verifiers(
        log, cost_weight=options.cost_weight, samples=options.k, seed=options.seed
    )
    if options.markdown is not None:
        try:
            options.markdown.write_text(found.to_markdown(), encoding="utf-8")
        except OSError as error:
            raise AutoMixError(
                f"The table {options.markdown} cannot be written: {error.strerror}."
            ) from error
    if options.as_json:
        event("comparison", **found.to_dict())
        return
    view.say(console, escape_rich(title(found)))
    console.print()
    console.print(_table(found))
    for line in EXPLANATION:
        view.say(console, escape_rich(line), style="dim")
    console.print()
    for note in found.notes:
        view.say(console, escape_rich(note))


def _table(found: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in heads():
        table.add_column(name, justify="left" if name == "check" else "right", no_wrap=True)
    table.columns[0].no_wrap = False
    best = None if found.best is None else found.rows.index(found.best)
    for place, row in enumerate(cells(found)):
        table.add_row(*map(escape_rich, row), style="bold" if place == best else None)
    return table
