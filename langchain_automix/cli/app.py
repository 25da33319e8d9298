"""The command line: `automix`, one verb a job."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

from langchain_automix._version import __version__
from langchain_automix.errors import AutoMixError, first_problem
from langchain_automix.utils.install import install_hint
from langchain_automix.utils.text import redact_secrets

try:
    import rich  # noqa: F401  (what the verbs print with)
    import typer
except ImportError as error:
    raise SystemExit(
        f"automix: {error.name} is not installed: {install_hint('cli')} "
        "(or [local], for local models too)"
    ) from error

from langchain_automix.cli import ask, calibrate, compare, demo, learning, policy, serve

app = typer.Typer(
    name="automix",
    help="Pay for a larger model only where the evidence says so.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verbs in (demo, ask, calibrate, compare, policy, learning, serve):
    verbs.register(app)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Pay for a larger model only where the evidence says so."""
    if show:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    with warnings.catch_warnings():
        warnings.showwarning = _say
        message = _run()
    _print(message)
    sys.exit(2)


def _run() -> str:
    """Run the command line; return what was wrong, or raise SystemExit."""
    try:
        app()
    except AutoMixError as error:
        return str(error)
    except ValueError as error:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError):
            raise
        return first_problem(error)
    raise SystemExit


def _say(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning without the place in this package that it comes from."""
    _print(f"warning: {message}")


def _print(message: str) -> None:
    from langchain_automix.cli.terminal import echo

    echo(f"automix: {redact_secrets(' '.join(message.split()))}", to_stderr=True)
