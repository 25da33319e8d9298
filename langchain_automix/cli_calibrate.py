"""The verb of `automix` that runs the models over examples: `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from langchain_automix.cli_options import (
    Large,
    Port,
    Samples,
    Seed,
    Small,
    Weights,
    wanted_models,
)

_MODELS, _EXAMPLES, _MONEY, _GOAL = "Models", "Examples and grades", "Money and time", "Goal"


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
    middle: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="A model between the two; may be given again."),
    ] = None,
    large: Large = None,
    weights: Weights = None,
    port: Port = 0,
    answer_tokens: Annotated[
        int, typer.Option(min=1, help="Longest answer of a local model.")
    ] = 512,
    samples: Samples = 8,
    seed: Seed = 7,
    quality: Annotated[
        str,
        typer.Option(
            metavar="GRADER",
            help="How answers are graded: exact_match, f1, numeric, multiple_choice, contains, "
            "json_equal, judge:PROVIDER:MODEL, or FILE.py:FUNCTION.",
            rich_help_panel=_EXAMPLES,
        ),
    ] = "exact_match",
    without_references: Annotated[
        Literal["agreement", "grade"],
        typer.Option(
            help="Where there is no accepted answer: agreement with the largest model's, or a "
            "grade by --quality all the same.",
            rich_help_panel=_EXAMPLES,
        ),
    ] = "agreement",
    prompt: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What the models get: a text with {question}, {context}, {history} in it.",
            show_default="the question, after its context",
            rich_help_panel=_EXAMPLES,
        ),
    ] = None,
    question: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Your name for the question.", rich_help_panel=_EXAMPLES),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="For the context.", rich_help_panel=_EXAMPLES),
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="For the accepted answers.", rich_help_panel=_EXAMPLES),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Take only the first so many.", rich_help_panel=_EXAMPLES),
    ] = None,
    max_spend: Annotated[
        float | None,
        typer.Option(
            metavar="AMOUNT",
            help="Stop at this, all runs for this log together.",
            rich_help_panel=_MONEY,
        ),
    ] = None,
    unit: Annotated[
        Literal["dollars", "seconds"] | None,
        typer.Option(
            help="What costs are counted in.",
            show_default="dollars, or seconds with a local model",
            rich_help_panel=_MONEY,
        ),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='Dollars for a million tokens, as JSON: {"MODEL": {"input": 1, "output": 4}}.',
            rich_help_panel=_MONEY,
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Calls at a time.",
            show_default="16, or 1 for seconds",
            rich_help_panel=_MONEY,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only the estimate.", rich_help_panel=_MONEY)
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before spending.", rich_help_panel=_MONEY)
    ] = False,
    rerun_changed: Annotated[
        bool,
        typer.Option(
            "--rerun-changed",
            help="Make calls again that a changed prompt, model or setting shapes.",
            rich_help_panel=_MONEY,
        ),
    ] = False,
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
    from langchain_automix.demo.calibrating import CalibrateCommand, CalibrateOptions  # noqa: PLC0415
    from langchain_automix.demo.models import RETRIES  # noqa: PLC0415  (both slow, for --help)

    goal = {"cost_weight": cost_weight, "max_cost": max_cost, "min_quality": min_quality}
    names = {"question": question, "context": context, "references": references}
    command = CalibrateCommand(
        CalibrateOptions(
            wanted=wanted_models(
                small,
                large,
                weights,
                port,
                seed,
                samples,
                middle=tuple(middle or ()),
                answer_tokens=answer_tokens,
                max_retries=RETRIES,
            ),
            examples=examples,
            out=out,
            quality=quality,
            without_references=without_references,
            prompt=prompt,
            names={field: name for field, name in names.items() if name is not None},
            limit=limit,
            max_spend=max_spend,
            unit=unit,
            prices=prices,
            concurrency=concurrency,
            dry_run=dry_run,
            yes=yes,
            rerun_changed=rerun_changed,
            adaptive=adaptive,
            goal={name: value for name, value in goal.items() if value is not None},
            as_json=as_json,
        ),
        Console(stderr=as_json),
    )
    if code := command.run():
        raise typer.Exit(code)
