"""The verb of `automix` that writes a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from langchain_automix._terminal import printable
from langchain_automix.errors import AutoMixError

PolicyFile = Annotated[Path, typer.Argument(help="Policy file, as `automix fit` writes it.")]
LogFile = Annotated[Path, typer.Argument(help="Routing log: .jsonl, .jsonl.gz or .parquet.")]


def register(app: typer.Typer) -> None:
    """Add `report` to the command line; errors are `AutoMixError`."""
    app.command("report")(report)


def report(
    policy: PolicyFile,
    log: LogFile,
    out: Annotated[Path, typer.Option("--out", help="Where the page goes: one .html file.")],
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figures as Markdown, too.")
    ] = None,
    cost_weight: Annotated[
        float | None, typer.Option(help="Judge at this weight, not the policy's own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same report.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write what a policy does on a routing log as one page: figures, charts, every decision."""
    from langchain_automix.policy.log import replacing  # noqa: PLC0415  (seconds, for --help)
    from langchain_automix.report.report import Report  # noqa: PLC0415

    if cost_weight is not None and not 0 <= cost_weight < float("inf"):
        raise AutoMixError(f"--cost-weight must be a number of at least 0, not {cost_weight!r}.")
    made = Report.of(policy, log, cost_weight=cost_weight, seed=seed)
    made.write(out)
    if markdown is not None:
        with replacing(markdown) as unfinished:
            unfinished.write_text(made.to_markdown(), encoding="utf-8", errors="replace")
    if as_json:
        typer.echo(json.dumps(made.figures(), allow_nan=False))
        return
    also = f" and {markdown}" if markdown else ""
    typer.echo(printable(f"{made}\n\nWritten to {out}{also}."))
