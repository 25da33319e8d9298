"""`automix calibrate`: run the models over examples, and write the routing log."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from langchain_automix.cli.options import (
    USUAL_CHECK,
    CalibrationOptions,
    cost_weight_option,
    expand_options,
)

_GOAL = "Goal"


def register(app: typer.Typer) -> None:
    """Add `calibrate` to the command line; errors are `AutoMixError`."""
    app.command("calibrate")(expand_options(calibrate))


def calibrate(
    examples: Annotated[
        str, typer.Argument(help="Examples: .jsonl, .jsonl.gz or .csv, or langsmith:DATASET.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="LOG", help="The routing log: .jsonl, .jsonl.gz or .parquet.")
    ],
    options: CalibrationOptions,
    check: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The check of the answers, as `automix compare-verifiers` names them; an unknown "
            "name lists all.",
        ),
    ] = USUAL_CHECK,
    free_check: Annotated[
        bool,
        typer.Option(
            "--free-check/--no-free-check",
            help="Also log the free check: how probable each answer was to the model that wrote "
            "it, where log-probabilities come with the answers.",
        ),
    ] = True,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="Stop when more examples would not change the policy for the goal.",
            rich_help_panel=_GOAL,
        ),
    ] = False,
    cost_weight: Annotated[
        float | None, cost_weight_option("As in `automix fit`.", rich_help_panel=_GOAL)
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="As in `automix fit`.", rich_help_panel=_GOAL)
    ] = None,
    min_quality: Annotated[
        float | None, typer.Option(help="As in `automix fit`.", rich_help_panel=_GOAL)
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(help="As in `automix fit`.", rich_help_panel=_GOAL)
    ] = None,
) -> None:
    """Run all models over examples, and write the log that a policy is fitted to.

    It first says what that is likely to cost, and asks.

    Every finished call is kept: after a stop or a kill, run the same command to resume.
    """
    from langchain_automix.cli.calibration import Calibration
    from langchain_automix.cli.checks import build_check, large_checks, resolve_checks
    from langchain_automix.cli.tables import show_result

    (name,) = resolve_checks([check])
    goal = {
        "cost_weight": cost_weight,
        "max_cost": max_cost,
        "min_quality": min_quality,
        "max_loss": max_loss,
    }
    calibration = Calibration(
        options,
        replace(options.to_model_options(), large_checks=large_checks([name])),
        partial(build_check, name),
        examples,
        out,
        free_check=free_check,
        adaptive=adaptive,
        goal={name: value for name, value in goal.items() if value is not None},
    )
    if code := calibration.run(show_result):
        raise typer.Exit(code)
