"""What the demo shows in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import set_cell_size
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table

from langchain_automix.local.demo.run import OUTPUT_PRICE
from langchain_automix.utils.text import escape_rich, printable

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod

    from langchain_automix.local.demo.run import Answered, Row
    from langchain_automix.local.demo.summary import MixResult, Summary


_INDENT = (0, 0, 0, 2)
_COLUMNS = (("question", 27), ("small answers", 15), ("check", 5), ("", 8), ("kept answer", 15))


def downloads(console: Console) -> Progress:
    """Return a progress bar for bytes."""
    return _progress(console, DownloadColumn(), TransferSpeedColumn())


def questions(console: Console) -> Progress:
    """Return a progress bar for questions."""
    return _progress(console, MofNCompleteColumn(), TimeElapsedColumn())


def _progress(console: Console, *columns: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def heading(console: Console, half: str, count: int) -> None:
    """Announce the rows of one half."""
    if half == "fit":
        text = f"Learning: both models answer {count} questions, the small one checks itself"
        columns = [*_COLUMNS[:3], ("large answers", 25)]
    else:
        text = f"Routing: the mix decides on {count} other questions"
        columns = [*_COLUMNS]
    console.rule(f"[bold]{text}", align="left", style="dim")
    console.print("[dim]  " + "  ".join(set_cell_size(name, width) for name, width in columns))


def row(console: Console, measured: Row) -> None:
    """Print one question: what was answered, how sure the check is, what was decided."""
    confidence = measured.check.confidence
    cells = [
        _cell(measured.question.question, _COLUMNS[0][1]),
        _marked(measured.small),
        set_cell_size("  ?" if confidence is None else f"{confidence:.2f}", _COLUMNS[2][1]),
    ]
    if measured.half == "fit":
        cells.append(_marked(measured.large))
    else:
        style, decision = ("yellow", "escalate") if measured.escalated else ("green", "keep")
        cells += [f"[{style}]{set_cell_size(decision, _COLUMNS[3][1])}[/]", _marked(measured.final)]
    console.print("  " + "  ".join(cells), highlight=False)


def _cell(text: str, width: int) -> str:
    return escape_rich(set_cell_size(printable(text), width))


def _marked(answer: Answered) -> str:
    mark = "[green]✓[/]" if answer.correct else "[red]✗[/]"
    return f"{mark} {_cell(answer.text or '(nothing)', _COLUMNS[1][1] - 2)}"


def summary(console: Console, figures: Summary, names: tuple[str, str]) -> None:
    """Print the figures of a run, and what they say."""
    routed = figures.escalation_rate is not None
    kind = "routed" if routed else "learned"
    title = f"[bold]What {figures.questions} {kind} questions showed"
    console.rule(title, align="left", style="dim")
    console.print(_strategies(figures))
    for line in _notes(figures, names):
        console.print(Padding(line, _INDENT), highlight=False)
    if not routed:
        return
    console.print()
    title = "Does mixing pay? The paper's rule, refitted for each price"
    console.print(_mix_results(title, figures.mixed))
    console.print()
    title = "And with POMDPRouter.fit, which may leave out the check"
    console.print(_mix_results(title, figures.fitted))
    note = "* of always asking the large model; what-if prices count tokens, one written as "
    console.print(Padding(f"{note}{OUTPUT_PRICE} read", _INDENT), style="dim", highlight=False)
    console.print(Padding(in_words(figures.mixed), _INDENT), highlight=False)


def _notes(figures: Summary, names: tuple[str, str]) -> list[str]:
    small, large = map(escape_rich, names)
    total = sum(figures.seconds_by_stage.values()) or 1.0
    stages = ", ".join(
        f"{stage} {seconds / total:.0%}" for stage, seconds in figures.seconds_by_stage.items()
    )
    price = (
        "the measured seconds"
        if figures.price_ratio is None
        else f"a large model at {figures.price_ratio:g} times the small one's price"
    )
    auroc = figures.confidence_auroc
    return [
        f"Small is {small}, large is {large}; tokens are read plus written.",
        f"The router was fitted to {figures.fitted_on} other questions, for {price}; it asked the "
        f"large model on {figures.escalation_rate:.0%} of these."
        if figures.escalation_rate is not None
        else "Nothing was routed: it takes more questions.",
        f"Checks: {figures.verification_samples:.1f} verdicts a question, "
        f"{figures.invalid_verdicts:.0%} of them invalid; AUROC of the confidence "
        f"{'not defined' if auroc is None else f'{auroc:.2f}'} (0.5 is chance).",
        f"Time: {stages}.",
        f"With {figures.questions} questions an accuracy is known to "
        f"±{0.5 / figures.questions**0.5:.2f} at the most.",
    ]


def in_words(results: Sequence[MixResult]) -> str:
    """Say honestly whether mixing paid at the measured cost."""
    measured = next((result for result in results if result.price_ratio is None), None)
    if measured is None:
        return "On one half the large model took no longer: there are no seconds to save."
    reason = ": the check costs more time than it can save here" if measured.cost >= 1 else ""
    return (
        f"Did mixing pay at the measured cost? {measured.verdict.capitalize()}: routed for "
        f"seconds, AutoMix takes {measured.cost:.1f} times as long as always asking the large "
        f"model, for an accuracy of {measured.accuracy:.2f}{reason}."
    )


def _strategies(figures: Summary) -> Table:
    names = ("", "accuracy", "seconds a question", "small tokens", "large tokens")
    table = _table([(name, "right" if name else "left") for name in names])
    for strategy in figures.ways:
        table.add_row(
            f"  {strategy.name}",
            f"{strategy.accuracy:.2f}",
            f"{strategy.seconds:.1f}",
            f"{strategy.small_tokens:,.0f}",
            f"{strategy.large_tokens:,.0f}",
            style="bold" if strategy.name == "AutoMix" else None,
        )
    return table


def _mix_results(title: str, results: Sequence[MixResult]) -> Table:
    table = _table(
        [
            ("  large price", "left"),
            ("asks large", "right"),
            ("cost*", "right"),
            ("accuracy", "right"),
            ("random mix", "right"),
            ("paid?", "left"),
        ],
        title,
    )
    for result in results:
        ratio = result.price_ratio
        table.add_row(
            "  as measured" if ratio is None else f"  what if {ratio:g}:1",
            f"{result.escalation_rate:.0%}",
            f"{result.cost:.0%}",
            f"{result.accuracy:.2f}",
            f"{result.random_mix:.2f} ±{result.error:.2f}",
            "one model alone" if result.policy.startswith("always:") else result.verdict,
        )
    return table


def _table(columns: Sequence[tuple[str, JustifyMethod]], title: str | None = None) -> Table:
    return Table(
        *(Column(name, justify=justify, header_style="dim") for name, justify in columns),
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 1),
    )
