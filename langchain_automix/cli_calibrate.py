"""The verb of `automix` that runs the models over examples: `calibrate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from langchain_automix.cli_options import (
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

if TYPE_CHECKING:
    from langchain_automix.demo.calibrating import CalibrateOptions

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
    from langchain_automix.demo.calibrating import CalibrateCommand  # noqa: PLC0415  (for --help)

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
    from langchain_automix.demo.calibrating import CalibrateOptions  # noqa: PLC0415
    from langchain_automix.demo.models import RETRIES  # noqa: PLC0415  (both slow, for --help)

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
