"""The command line: `automix`, one verb a job."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from pydantic import ValidationError

from langchain_automix._version import __version__
from langchain_automix.cli import calibrate as cli_calibrate
from langchain_automix.cli import compare as cli_compare
from langchain_automix.cli import policy as cli_policy
from langchain_automix.cli.options import (
    AsJson,
    Large,
    Port,
    Samples,
    Seed,
    Small,
    Weights,
    wanted_models,
)
from langchain_automix.errors import AutoMixError, first_problem
from langchain_automix.utils.text import printable

try:
    import typer
    from rich.console import Console
except ImportError as error:
    raise SystemExit(
        f"automix: {error.name} is not installed: pip install 'langchain-automix[cli]' brings it, "
        "and 'langchain-automix[local]' the local models as well."
    ) from error


app = typer.Typer(
    name="automix",
    help="Pay for a larger model only where the evidence says so.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

cli_calibrate.register(app)
cli_compare.register(app)
cli_policy.register(app)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Pay for a larger model only where the evidence says so."""
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    context: typer.Context,
    small: Small = None,
    large: Large = None,
    questions: Annotated[
        int | None,
        typer.Option(min=4, help="How many questions.", show_default="as many as fit --minutes"),
    ] = None,
    minutes: Annotated[float, typer.Option(min=1, help="Time to fill without --questions.")] = 9,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON lines with question, context, references.",
            show_default="80 shipped questions",
        ),
    ] = None,
    price_ratio: Annotated[
        str,
        typer.Option(
            metavar="RATIO|measured",
            help="Price of the large model in prices of the small one, for the decisions.",
        ),
    ] = "17",
    samples: Samples = 8,
    seed: Seed = 7,
    replay: Annotated[
        bool, typer.Option("--replay", help="Show the recorded run; needs no models.")
    ] = False,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the routing log here.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Record the calls here, for a replay.")
    ] = None,
    weights: Weights = None,
    port: Port = 0,
    as_json: AsJson = False,
) -> None:
    """Run the main job on two real models, on this machine, without any key."""
    from langchain_automix.cli.demo import DemoCommand, DemoOptions  # noqa: PLC0415
    from langchain_automix.local.demo.questions import SHIPPED  # noqa: PLC0415

    if replay:
        _only_for_live_runs(context)
    command = DemoCommand(
        DemoOptions(
            wanted=wanted_models(
                small, large, weights, port, seed, samples, record=record is not None
            ),
            data=data or SHIPPED,
            questions=questions,
            minutes=minutes,
            price_ratio=_ratio(price_ratio),
            replay=replay,
            log=log,
            record=record,
        ),
        Console(stderr=as_json),
    )
    found = command.run()
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    if command.interrupted:
        raise typer.Exit(130)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    context: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text that the answer must follow from.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Policy file.", show_default="a prior, not calibrated"),
    ] = None,
    small: Small = None,
    large: Large = None,
    samples: Samples = 8,
    seed: Seed = 7,
    weights: Weights = None,
    port: Port = 0,
    explained: Annotated[
        bool, typer.Option("--explain", help="Show what was believed, its worth, and the bill.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Answer one question, and say how it was decided."""
    from langchain_automix.cli.ask import ask_once  # noqa: PLC0415
    from langchain_automix.mix.explain import explain  # noqa: PLC0415

    wanted = wanted_models(small, large, weights, port, seed, samples, answer_tokens=512)
    found = ask_once(question, context, wanted, policy, Console(stderr=True))
    record = found["automix"]
    if as_json:
        more = {"explanation": explain(record)} if explained else {}
        typer.echo(json.dumps({**found, **more}, ensure_ascii=False))
        return
    Console().print(printable(found["answer"]), markup=False, highlight=False)
    if explained:
        # Not wrapped: a bar would break in two.
        Console().print(
            printable(f"\n{explain(record)}"),
            style="dim",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return
    Console().print(
        printable(f"({record['model']}) {record['why']}"),
        style="dim",
        markup=False,
        highlight=False,
    )


def _only_for_live_runs(context: typer.Context) -> None:
    """Refuse options that a replay would leave without effect."""
    live = ("small", "large", "data", "samples", "seed", "minutes", "record", "weights", "port")
    for name in live:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise AutoMixError(f"--{name} does nothing in a replay: leave it out, or --replay.")


def _ratio(text: str) -> float | None:
    if text == "measured":
        return None
    try:
        ratio = float(text)
    except ValueError:
        ratio = 0.0
    if not 1 < ratio < float("inf"):
        raise AutoMixError(f"--price-ratio is {text!r}; give a number above 1, or 'measured'.")
    return ratio


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    try:
        app()
    except AutoMixError as error:
        message = str(error)
    except ValidationError as error:
        message = first_problem(error)
    print(f"automix: {printable(' '.join(message.split()))}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
