"""The verb of `automix` that compares checks: `compare-verifiers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from langchain_automix.cli_calibrate import options_in
from langchain_automix.cli_options import (
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
from langchain_automix.errors import AutoMixError

_COMPARISON = "Comparison"
_OF_ANY_LOG = frozenset({"examples", "k", "cost_weight", "markdown", "as_json"})


def register(app: typer.Typer) -> None:
    """Add `compare-verifiers` to the command line; errors are `AutoMixError`."""
    app.command("compare-verifiers")(compare_verifiers)


def compare_verifiers(
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
    from langchain_automix.demo.comparing import (  # noqa: PLC0415  (slow, for --help)
        CompareCommand,
        CompareOptions,
        is_log,
        show,
    )
    from langchain_automix.policy.log import RoutingLog  # noqa: PLC0415

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
