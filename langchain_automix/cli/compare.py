"""`automix compare-verifiers`: which check of the small model's answers is worth its price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from langchain_automix.cli.options import (
    CalibrationOptions,
    ComparisonOptions,
    expand_options,
    typed_options,
)
from langchain_automix.errors import AutoMixError

if TYPE_CHECKING:
    from rich.console import Console

    from langchain_automix.calibration.session import CalibrationResult
    from langchain_automix.policy.data.log import RoutingLog

_FOR_ANY_LOG = frozenset({"examples", "k", "cost_weight", "markdown", "ray", "as_json"})


def register(app: typer.Typer) -> None:
    """Add `compare-verifiers` to the command line; errors are `AutoMixError`."""
    app.command("compare-verifiers")(expand_options(compare))


def compare(
    invocation: typer.Context,
    examples: Annotated[
        str,
        typer.Argument(
            metavar="EXAMPLES_OR_LOG",
            help="Examples, as `automix calibrate` takes them; or a routing log, for which only "
            "the table is made.",
        ),
    ],
    comparison: ComparisonOptions,
    options: CalibrationOptions,
    out: Annotated[
        Path, typer.Option(metavar="LOG", help="Where the routing log of the checks goes.")
    ] = Path("checks.jsonl"),
) -> None:
    """Compare checks of the small model's answers: what each tells, costs, and would gain.

    All of them check the same answers. It first says what that is likely to cost, and asks.
    """
    from rich.console import Console

    from langchain_automix.cli.calibration import Calibration
    from langchain_automix.cli.checks import build_combined_check, large_checks, resolve_checks
    from langchain_automix.cli.logs import is_log, read_log

    _validate_markdown(comparison.markdown)
    if is_log(examples):
        _refuse_options_of_a_run(invocation)
        log = read_log(examples, options.ray)
        print_comparison(log, comparison, Console(), as_json=options.as_json)
        return
    names = resolve_checks(comparison.check or ())
    calibration = Calibration(
        options,
        replace(options.to_model_options(), large_checks=large_checks(names)),
        partial(build_combined_check, names),
        examples,
        out,
    )
    if code := calibration.run(partial(_show_result, comparison)):
        raise typer.Exit(code)


def _validate_markdown(path: Path | None) -> None:
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise AutoMixError(
            f"--markdown {path} cannot be written: give a file in a folder that exists."
        )


def _refuse_options_of_a_run(invocation: typer.Context) -> None:
    """Refuse options that have no effect on a log."""
    for name in sorted(typed_options(invocation) - _FOR_ANY_LOG):
        raise AutoMixError(
            f"--{name.replace('_', '-')} is for examples that are yet to be run; a routing log "
            "holds its checks already: leave it out."
        )


def _show_result(
    comparison: ComparisonOptions,
    result: CalibrationResult,
    options: CalibrationOptions,
    console: Console,
) -> None:
    from langchain_automix.cli import tables
    from langchain_automix.cli.terminal import print_event
    from langchain_automix.policy.data.log import RoutingLog

    if options.as_json:
        print_event("done", **tables.result_dict(result))
    elif result.written.queries:
        tables.show_ending(console, result, options.max_spend)
    if result.written.complete > 1 and result.progress.stopped != "interrupted":
        log = RoutingLog.read(result.out)
        print_comparison(log, comparison, console, as_json=options.as_json)


def print_comparison(
    log: RoutingLog, options: ComparisonOptions, console: Console, *, as_json: bool
) -> None:
    """Compare the checks of a log, and print the result.

    Raises:
        AutoMixError: They cannot be compared, or the Markdown cannot be written.
    """
    from langchain_automix.cli import tables
    from langchain_automix.cli.terminal import print_event
    from langchain_automix.evaluation.compare_verifiers import compare_verifiers

    samples: Sequence[int] = options.k or (1, 2, 4, 8)
    result = compare_verifiers(log, cost_weight=options.cost_weight, samples=samples, seed=0)
    if options.markdown is not None:
        try:
            options.markdown.write_text(result.to_markdown(), encoding="utf-8")
        except OSError as error:
            raise AutoMixError(
                f"The table {options.markdown} cannot be written: {error.strerror}."
            ) from error
    if as_json:
        print_event("comparison", **result.to_dict())
    else:
        tables.show_comparison(console, result)
