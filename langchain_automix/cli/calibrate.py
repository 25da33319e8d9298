"""`automix calibrate`: run the models over examples, and write the routing log."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from langchain_automix.cli.options import (
    USUAL_CHECK,
    CalibrationOptions,
    cost_weight_option,
    expand_options,
)

if TYPE_CHECKING:
    from rich.console import Console

    from langchain_automix.calibration.session import CalibrationResult

_GOAL = "Goal"


def register(app: typer.Typer) -> None:
    """Add `calibrate` to the command line; errors are `AutoMixError`."""
    app.command("calibrate")(expand_options(calibrate))


def calibrate(
    examples: Annotated[
        str,
        typer.Argument(help="Examples: .jsonl, .jsonl.gz, .csv or .parquet, or langsmith:DATASET."),
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
    if code := calibration.run(_show_result):
        raise typer.Exit(code)


def _show_result(result: CalibrationResult, options: CalibrationOptions, console: Console) -> None:
    """Show the result of a calibration, and the next command."""
    from langchain_automix.calibration.validation import journal_path
    from langchain_automix.cli import tables
    from langchain_automix.cli.terminal import print_event, say

    written = result.written
    fit = f"automix fit {quote(str(result.out))} --out policy.json"
    missing = _missing(result)
    if options.as_json:
        more = {"missing": missing} if missing else {}
        following = fit if written.complete else None
        print_event("done", **tables.result_dict(result), **more, next=following)
    elif written.failed < written.queries:
        tables.show_summary(console, result, options.max_spend)
        say(console, f"Log: {result.out} (every call: {journal_path(result.out).name})")
        say(console, _next_step(result, missing, fit))


def _missing(result: CalibrationResult) -> int:
    """Return how many more complete examples a fit needs, of a run that ended early."""
    from langchain_automix.policy.fitting.fit import FEW

    written = result.written
    left = result.progress.examples - written.queries + written.failed
    return min(left, max(0, FEW - written.complete))


def _next_step(result: CalibrationResult, missing: int, fit: str) -> str:
    complete = result.written.complete
    if missing:
        return (
            f"A policy needs about {complete + missing} complete examples, and the log has "
            f"{complete}: {missing} more. Run the same command again to resume; then: "
            f"[bold]{fit}[/]"
        )
    if complete:
        return f"Next: [bold]{fit}[/]"
    return "No policy can be fitted to it: no example has a known quality for every model."
