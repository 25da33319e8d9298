"""What the demo shows in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import set_cell_size
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from langchain_automix.local.demo.run import OUTPUT_PRICE
from langchain_automix.utils.text import escape_rich, printable

if TYPE_CHECKING:
    from rich.console import Console

    from langchain_automix.local.demo.run import Row
    from langchain_automix.local.demo.summary import MixResult, Summary


_INDENT = (0, 0, 0, 2)
_COLUMNS = (("question", 27), ("small answers", 15), ("check", 5), ("", 8), ("kept answer", 15))


def downloads(console: Console) -> Progress:
    """Return a progress bar for bytes."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def questions(console: Console) -> Progress:
    """Return a progress bar for questions."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def heading(console: Console, half: str, count: int) -> None:
    """Print what the following rows are."""
    if half == "fit":
        text = f"Learning: both models answer {count} questions, the small one checks itself"
    else:
        text = f"Routing: the mix decides on {count} other questions"
    console.rule(f"[bold]{text}", align="left", style="dim")
    if half == "fit":
        line = "  ".join(set_cell_size(name, width) for name, width in _COLUMNS[:3])
        console.print(f"[dim]  {line}  {set_cell_size('large answers', 25)}")
    else:
        line = "  ".join(set_cell_size(name, width) for name, width in _COLUMNS)
        console.print(f"[dim]  {line}")


def row(console: Console, found: Row) -> None:
    """Print one question: what was answered, how sure the check is, what was decided."""
    confidence = found.check.confidence
    cells = [
        _cell(found.question.question, 0),
        _marked(found.small.text, found.small.correct, 1),
        set_cell_size("  ?" if confidence is None else f"{confidence:.2f}", _COLUMNS[2][1]),
    ]
    if found.half == "fit":
        cells.append(_marked(found.large.text, found.large.correct, 4))
    else:
        style, word = ("yellow", "escalate") if found.record["escalated"] else ("green", "keep")
        cells.append(f"[{style}]{set_cell_size(word, _COLUMNS[3][1])}[/]")
        cells.append(_marked(found.final.text, found.final.correct, 4))
    console.print("  " + "  ".join(cells), highlight=False)


def _cell(text: str, column: int) -> str:
    width = _COLUMNS[column][1]
    text = printable(text)
    return escape_rich(text if len(text) == width else set_cell_size(text, width))


def _marked(text: str, correct: bool, column: int) -> str:
    mark = "[green]✓[/]" if correct else "[red]✗[/]"
    cell = set_cell_size(printable(text) or "(nothing)", _COLUMNS[column][1] - 2)
    return f"{mark} {escape_rich(cell)}"


def summary(console: Console, found: Summary, names: tuple[str, str]) -> None:
    """Print the figures of a run, and what they say."""
    routed = found.escalation_rate is not None
    kind = "routed" if routed else "learned"
    console.rule(f"[bold]What {found.questions} {kind} questions showed", align="left", style="dim")
    console.print(_ways(found))
    error = 0.5 / found.questions**0.5
    total = sum(found.seconds_by_stage.values()) or 1.0
    stages = ", ".join(
        f"{stage} {seconds / total:.0%}" for stage, seconds in found.seconds_by_stage.items()
    )
    price = (
        "the measured seconds"
        if found.price_ratio is None
        else f"a large model at {found.price_ratio:g} times the small one's price"
    )
    lines = [
        f"Small is {escape_rich(names[0])}, large is {escape_rich(names[1])}; tokens are read "
        "plus written.",
        f"The router was fitted to {found.fitted_on} other questions, for {price}; it asked the "
        f"large model on {found.escalation_rate:.0%} of these."
        if routed
        else "Nothing was routed: it takes more questions.",
        f"Checks: {found.verification_samples:.1f} verdicts a question, "
        f"{found.invalid_verdicts:.0%} of them invalid; AUROC of the confidence "
        f"{_number(found.confidence_auroc)} (0.5 is chance).",
        f"Time: {stages}.",
        f"With {found.questions} questions an accuracy is known to ±{error:.2f} at the most.",
    ]
    for line in lines:
        console.print(Padding(line, _INDENT), highlight=False)
    if not routed:
        return
    console.print()
    console.print(_mixed("Does mixing pay? The paper's rule, refitted for each price", found.mixed))
    console.print()
    title = "And with POMDPRouter.fit, which may leave out the check"
    console.print(_mixed(title, found.fitted))
    note = "* of always asking the large model; what-if prices count tokens, one written as "
    console.print(Padding(f"{note}{OUTPUT_PRICE} read", _INDENT), style="dim", highlight=False)
    for line in in_words(found.mixed):
        console.print(Padding(line, _INDENT), highlight=False)


def in_words(mixed: Sequence[MixResult]) -> list[str]:
    """Say honestly whether mixing paid at the measured cost."""
    measured = next((m for m in mixed if m.price_ratio is None), None)
    if measured is None:
        return ["On one half the large model took no longer: there are no seconds to save."]
    answer = {"yes": "Yes", "no": "No"}.get(measured.verdict, "Too close to tell")
    text = (
        f"Did mixing pay at the measured cost? {answer}: routed for seconds, AutoMix takes "
        f"{measured.cost:.1f} times as long as always asking the large model"
    )
    if measured.cost >= 1:
        return [
            f"{text}, for an accuracy of {measured.accuracy:.2f}: the check costs more time "
            "than it can save here."
        ]
    return [f"{text}, for an accuracy of {measured.accuracy:.2f}."]


def _ways(found: Summary) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for name in ("", "accuracy", "seconds a question", "small tokens", "large tokens"):
        table.add_column(name, justify="right" if name else "left", header_style="dim")
    for way in found.ways:
        figures = (f"{way.accuracy:.2f}", f"{way.seconds:.1f}")
        tokens = (f"{way.small_tokens:,.0f}", f"{way.large_tokens:,.0f}")
        style = "bold" if way.name == "AutoMix" else None
        table.add_row(f"  {way.name}", *figures, *tokens, style=style)
    return table


def _mixed(title: str, rows: Sequence[MixResult]) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 1),
        title=title,
        title_justify="left",
        title_style="bold",
    )
    headers: tuple[Any, ...] = (
        ("  large price", "left"),
        ("asks large", "right"),
        ("cost*", "right"),
        ("accuracy", "right"),
        ("random mix", "right"),
        ("paid?", "left"),
    )
    for name, justify in headers:
        table.add_column(name, justify=justify, header_style="dim")
    for mixed in rows:
        what = (
            "  as measured" if mixed.price_ratio is None else f"  what if {mixed.price_ratio:g}:1"
        )
        table.add_row(
            what,
            f"{mixed.escalation_rate:.0%}",
            f"{mixed.cost:.0%}",
            f"{mixed.accuracy:.2f}",
            f"{mixed.random_mix:.2f} ±{mixed.error:.2f}",
            "one model alone" if mixed.policy.startswith("always:") else mixed.verdict,
        )
    return table


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2f}"
