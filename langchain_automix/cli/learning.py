"""`automix learning`: look at what a mix has learned in production, and have a say in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from langchain_automix.cli.options import AsJson
from langchain_automix.cli.terminal import echo
from langchain_automix.utils.text import escape_rich, printable

if TYPE_CHECKING:
    from langchain_automix.learning.records import Event, PolicyVersion
    from langchain_automix.learning.review_settings import ReviewSettings
    from langchain_automix.learning.store.store import LearningStore

STORE_HELP = "The store: sqlite:///automix.db, or postgresql://user:password@host/database."
"""What the verbs say of their first argument."""

BY_HAND = "By hand, on the command line."
"""Why a version changes, where a person gives no other reason."""

StoreUrl = Annotated[str, typer.Argument(metavar="STORE", help=STORE_HELP)]
Epoch = Annotated[
    str | None,
    typer.Option(
        help="Which of several mixes in one store, by what `automix learning status --json` calls "
        "its epoch.",
        show_default="that of the newest query",
    ),
]
MaxLoss = Annotated[
    float | None,
    typer.Option(
        help="Largest mean quality to lose against the largest model, as in `Learning`.",
        show_default="the mix's own goal",
    ),
]
CostWeight = Annotated[
    float | None, typer.Option(help="Quality that one dollar is worth, in place of --max-loss.")
]
Confidence = Annotated[
    float | None,
    typer.Option(help="How sure a change must be to be a good one.", show_default="the mix's own"),
]
Why = Annotated[str, typer.Option(help="Why, in one sentence; it is kept in the store.")]


def register(app: typer.Typer) -> None:
    """Add `learning` and its verbs to the command line; errors are `AutoMixError`."""
    learning = typer.Typer(
        help="What a mix has learned from its own traffic, by its store.", no_args_is_help=True
    )
    verbs = (status, history, fit, promote, rollback, export, report, sync_langsmith)
    for verb in verbs:
        learning.command(verb.__name__.replace("_", "-"))(verb)
    app.add_typer(learning, name="learning")


def status(
    store: StoreUrl,
    max_loss: MaxLoss = None,
    cost_weight: CostWeight = None,
    confidence: Confidence = None,
    epoch: Epoch = None,
    as_json: AsJson = False,
) -> None:
    """Show queries, labels, the version that decides, the saving, drift, and what comes next."""
    from langchain_automix.learning.status import read_status

    opened = _open(store)
    settings = _settings(opened, epoch, max_loss, cost_weight, confidence)
    found = read_status(opened, settings, epoch)
    _print(found.to_json(), as_json=as_json, text=str(found))


def history(store: StoreUrl, epoch: Epoch = None, as_json: AsJson = False) -> None:
    """Show every version of the policy with what became of it and why, and what happened."""
    opened = _open(store)
    epoch = epoch or opened.newest_epoch()
    versions, events = opened.versions(epoch), opened.events(epoch)
    found = {
        "epoch": epoch,
        "versions": [_version_record(version) for version in versions],
        "events": [asdict(event) for event in events],
    }
    if as_json:
        _print(found, as_json=True)
        return
    if not versions and not events:
        typer.echo("Nothing has happened yet: there is no version and no event.")
        return
    _show_history(versions, events)


def fit(
    store: StoreUrl,
    max_loss: MaxLoss = None,
    cost_weight: CostWeight = None,
    confidence: Confidence = None,
    promote: Annotated[
        Literal["auto", "ask"] | None,
        typer.Option(
            help="Whether a proven policy decides at once, or when a person says so.",
            show_default="the mix's own",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of chance.", show_default="the mix's own")
    ] = None,
    epoch: Epoch = None,
    as_json: AsJson = False,
) -> None:
    """Review the traffic once, as from cron: fit, promote what is proven, go back from what loses.

    It does what a mix does by itself with `refit="thread"`. Where another process is at it,
    nothing is done. The goal is the mix's own, unless another is given.
    """
    from langchain_automix.learning.by_hand import review_once

    opened = _open(store)
    settings = _settings(
        opened, epoch, max_loss, cost_weight, confidence, promote=promote, seed=seed
    )
    found = review_once(opened, settings, epoch)
    if found is None:
        text = "Another process reviews this store at present; nothing was done."
        _print({"is_held_by_another": True}, as_json=as_json, text=text)
        return
    record = {
        "is_held_by_another": False,
        "fitted": found.fitted,
        "promoted": found.review.promote,
        "back_to": found.review.back_to,
        "decides": found.decides,
        "why": found.review.why,
        "share": found.review.share,
        "next_step": found.review.next_step,
        "judged": {str(number): judged for number, judged in found.review.judged.items()},
    }
    _print(record, as_json=as_json, text=str(found))


def promote(
    store: StoreUrl,
    number: Annotated[int, typer.Argument(help="Number of the version, as in the history.")],
    why: Why = BY_HAND,
    as_json: AsJson = False,
) -> None:
    """Have a version of the policy decide from now on; running processes take it in seconds."""
    from langchain_automix.learning.by_hand import promote as promote_version

    found = promote_version(_open(store), number, why)
    _print(asdict(found), as_json=as_json, text=str(found))


def rollback(
    store: StoreUrl, why: Why = BY_HAND, epoch: Epoch = None, as_json: AsJson = False
) -> None:
    """Go back to the version before the present one, or to the largest model."""
    from langchain_automix.learning.by_hand import roll_back

    found = roll_back(_open(store), why, epoch)
    _print(asdict(found), as_json=as_json, text=str(found))


def export(
    store: StoreUrl,
    out: Annotated[Path, typer.Argument(help="Where the log goes: .jsonl, .jsonl.gz or .parquet.")],
    source: Annotated[
        str | None,
        typer.Option(
            help="Whose grades are the qualities, such as agreement or feedback.",
            show_default="of each answer the latest by people or judges, else its agreement",
        ),
    ] = None,
    epoch: Epoch = None,
    as_json: AsJson = False,
) -> None:
    """Write the traffic as a routing log, for `automix fit`, `evaluate` and `report`."""
    number = _open(store).export(out, epoch, source=source)
    from langchain_automix.utils.formatting import pluralize

    text = f"{pluralize(number, 'query', 'queries')} written to {out}."
    _print({"log": str(out), "queries": number}, as_json=as_json, text=text)


def report(
    store: StoreUrl,
    out: Annotated[
        Path | None, typer.Option(help="Where it goes, too: a page (.html) or Markdown (.md).")
    ] = None,
    max_loss: MaxLoss = None,
    cost_weight: CostWeight = None,
    confidence: Confidence = None,
    epoch: Epoch = None,
    as_json: AsJson = False,
) -> None:
    """Say what the mix saves or would save, how sure that is, and how it went over time."""
    opened = _open(store)
    settings = _settings(opened, epoch, max_loss, cost_weight, confidence)
    _report(opened, (out,), settings, epoch, as_json=as_json)


def report_store(
    store: str,
    out: Sequence[Path | None],
    *,
    cost_weight: float | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Print the report of a store, and write it to the files of `out`."""
    opened = _open(store)
    settings = _settings(opened, None, None, cost_weight, None, seed=seed)
    _report(opened, out, settings, None, as_json=as_json)


def _report(
    store: LearningStore,
    out: Sequence[Path | None],
    settings: ReviewSettings,
    epoch: str | None,
    *,
    as_json: bool,
) -> None:
    from langchain_automix.learning.report import report_of

    made = report_of(store, settings, epoch)
    files = [path for path in out if path is not None]
    for path in files:
        made.write(path)
    written = f"\n\nWritten to {' and '.join(map(str, files))}." if files else ""
    _print(made.figures(), as_json=as_json, text=f"{made}{written}")


def sync_langsmith(
    store: StoreUrl,
    project: Annotated[str, typer.Argument(help="Name of the tracing project.")],
    key: Annotated[str, typer.Option(help="Key of the feedback that is a quality.")] = (
        "correctness"
    ),
    as_json: AsJson = False,
) -> None:
    """Read LangSmith's feedback on the mix's runs into the store, as grades."""
    from langchain_automix.learning.langsmith import sync_langsmith as sync

    found = sync(_open(store), project, key)
    _print(asdict(found), as_json=as_json, text=str(found))


def is_store(text: str) -> bool:
    """Whether an argument is the URL of a store, rather than the path of a file."""
    return "://" in text


def _open(url: str) -> LearningStore:
    from langchain_automix.errors import AutoMixError
    from langchain_automix.learning.store.opening import open_store

    if not is_store(url):
        raise AutoMixError(
            f"{url} is no URL of a learning store: give one such as sqlite:///{url} or "
            "postgresql://user:password@host/database."
        )
    return open_store(url, create=False)


def _settings(
    store: LearningStore,
    epoch: str | None,
    max_loss: float | None,
    cost_weight: float | None,
    confidence: float | None,
    **more: Any,
) -> ReviewSettings:
    """Return what a review goes by: what is given, else what the mix goes by."""
    from langchain_automix.learning.traffic import settings_told

    given = {"max_loss": max_loss, "cost_weight": cost_weight, "confidence": confidence}
    return settings_told(store, epoch, **given, **more)


def _print(found: Any, *, as_json: bool, text: str = "") -> None:
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
    else:
        echo(text)


def _version_record(version: PolicyVersion) -> dict[str, Any]:
    """Return a version ready for JSON, with its policy as an object."""
    found = asdict(version)
    return {**found, "policy": json.loads(version.policy) if version.policy else None}


def _show_history(versions: list[PolicyVersion], events: list[Event]) -> None:
    from rich.console import Console
    from rich.table import Table

    from langchain_automix.learning.events import describe_event
    from langchain_automix.utils.formatting import format_time

    console = Console(highlight=False)
    for title, rows in (
        ("Versions", [_version_cells(version) for version in versions]),
        ("Events", [(format_time(e.at), e.kind, describe_event(e)) for e in events]),
    ):
        if not rows:
            continue
        if title == "Events" and versions:
            console.print()
        console.print(f"[bold]{title}[/]")
        table = Table.grid(padding=(0, 2, 0, 0))
        for width in (20, 12, None):
            table.add_column(min_width=width, overflow="fold")
        for cells in rows:
            table.add_row(*(escape_rich(printable(cell)) for cell in cells))
        console.print(table)


def _version_cells(version: PolicyVersion) -> Iterator[str]:
    from langchain_automix.utils.formatting import format_time

    yield format_time(version.at)
    yield f"{version.number} {version.status}"
    yield version.why
