"""`automix demo`: AutoMix on two real models on this machine, without any key."""

from __future__ import annotations

import json

import typer

from langchain_automix.cli.options import AsJson, DemoOptions, expand_options, typed_options
from langchain_automix.errors import AutoMixError

_FOR_ANY_RUN = frozenset({"questions", "price_ratio", "replay", "log", "as_json"})
_INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add `demo` to the command line; errors are `AutoMixError`."""
    app.command("demo")(expand_options(demo))


def demo(invocation: typer.Context, options: DemoOptions, as_json: AsJson = False) -> None:
    """Run AutoMix on two real models on this machine; no key is needed."""
    from rich.console import Console

    from langchain_automix.cli.demo_run import run_demo

    if options.replay:
        for name in sorted(typed_options(invocation) - _FOR_ANY_RUN):
            raise AutoMixError(
                f"--{name.replace('_', '-')} does nothing in a replay: leave out one of the two."
            )
    figures = run_demo(options, Console(stderr=as_json))
    if as_json:
        typer.echo(json.dumps(figures, ensure_ascii=False))
    if figures["about"]["interrupted"]:
        raise typer.Exit(_INTERRUPTED)
