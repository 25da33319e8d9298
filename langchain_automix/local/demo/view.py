"""Show the progress of the demo in a terminal: rows and remaining time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text
from typing_extensions import override

from langchain_automix.utils.text import escape_rich, printable

if TYPE_CHECKING:
    from rich.console import Console

    from langchain_automix.local.demo.learning import Learned
    from langchain_automix.local.demo.measuring import Answered, Row

_INDENT = (0, 0, 0, 2)
_LONGEST_ANSWER = 40


def downloads(console: Console) -> Progress:
    """Return a progress bar for bytes."""
    return _progress(console, DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())


def questions(console: Console) -> Progress:
    """Return a progress bar for questions, whose times advance every second."""
    return _progress(console, MofNCompleteColumn(), TimesColumn())


def _progress(console: Console, *columns: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class TimesColumn(ProgressColumn):
    """Time elapsed and time remaining; both advance even while a question is being answered.

    The task's field `started` is the time, on the clock of its progress, from which its questions
    are timed; `until` is the latest time at which it ends.
    """

    max_refresh = 0.5

    @override
    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        left = remaining(
            elapsed, task.fields.get("last"), int(task.completed), int(task.total or 0)
        )
        if (until := task.fields.get("until")) is not None:
            end = max(until - task.get_time(), 0.0)
            left = end if left is None else min(left, end)
        text = f"{_clock(elapsed)} elapsed"
        return Text(f"{text}, about {_clock(left)} left" if left is not None else text)


def remaining(elapsed: float, last: float | None, done: int, total: int) -> float | None:
    """Return how many seconds the rest will take, or None before the first question is done.

    Args:
        elapsed: Seconds since the start.
        last: Value of `elapsed` when the last question was done.
        done: Number of questions done.
        total: Number of all questions.
    """
    if not done or last is None:
        return None
    each, waiting = last / done, elapsed - last
    # A question that takes longer than the others makes the rest longer, too, not negative.
    return max(each - waiting, waiting / 4) + each * max(total - done - 1, 0)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def heading(console: Console, text: str) -> None:
    """Print a heading."""
    console.rule(f"[bold]{escape_rich(text)}", align="left", style="dim")


def note(console: Console, text: str, style: str | None = None) -> None:
    """Print a sentence under a heading."""
    console.print(Padding(escape_rich(text), _INDENT, expand=False), highlight=False, style=style)


def row(console: Console, measured: Row) -> None:
    """Print one question on one line, and its outcome below."""
    _line(console, escape_rich(printable(measured.question.question)), indent=2)
    if measured.part == "fit":
        width = max(min((console.width - 26) // 2, _LONGEST_ANSWER), 8)
        small, large = (_marked(each, width) for each in (measured.small, measured.large))
        _line(console, f"small {small}  large {large}", indent=4)
        found = measured.checks.items()
        text = "  ".join(f"{name} {_confidence(each.found.confidence)}" for name, each in found)
        _line(console, f"[dim]{text}[/]", indent=4)
        return
    width = max(min((console.width - 36) // 2, _LONGEST_ANSWER), 8)
    small, large = (_marked(each, width) for each in (measured.small, measured.large))
    if not measured.escalated:
        text = f"[green]keep[/]       {small}"
    elif measured.record["escalated"]:
        text = f"[yellow]ask large[/]  {small} → {large}"
    else:
        text = f"[yellow]large only[/] {large}"
    check = measured.mix_check
    sure = "" if check is None else f"  [dim]check {_confidence(check.found.confidence)}[/]"
    _line(console, f"{text}{sure}", indent=4)


def _line(console: Console, markup: str, indent: int) -> None:
    """Print markup on one line, truncated to the width of the terminal."""
    text = Text.from_markup(markup)
    text.truncate(console.width - indent, overflow="ellipsis")
    console.print(Text(" " * indent).append_text(text), highlight=False)


def _confidence(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"


def _marked(answer: Answered, width: int) -> str:
    mark = "[green]✓[/]" if answer.correct else "[red]✗[/]"
    text = printable(answer.text) or "(nothing)"
    cut = text if cell_len(text) <= width else f"{set_cell_size(text, width - 1).rstrip()}…"
    return f"{mark} {escape_rich(cut)}"


def learned(console: Console, found: Learned, words: str, price: str) -> None:
    """Print which check was chosen, why, and what the policy does."""
    gains = ", ".join(f"{each.name} {100 * each.gain:+.1f}" for each in found.compared)
    note(
        console,
        f"Gain of each check over the better single model, in points of accuracy at equal cost, "
        f"cross-fitted on these {found.queries} questions for {price}: {gains}.",
    )
    if found.buys_checks:
        note(console, f"The best of them goes into the mix: {words}.")
    else:
        opening = found.router.policy.plans[0].opening
        name = found.router.policy.models[opening.model]
        note(console, f"No check is worth its price here: the policy asks {name} alone.")


def rows_left_out(console: Console, count: int) -> None:
    """Print that some rows are not shown."""
    if count > 0:
        note(console, f"… and {count} more, which --json prints.", style="dim")
