"""`automix compare-verifiers`, from its options to what it prints."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable
from rich.table import Table
from typing_extensions import override

from langchain_automix._terminal import shown
from langchain_automix.calibration import view
from langchain_automix.calibration.watching import event
from langchain_automix.compared import Comparison
from langchain_automix.comparison import compare_verifiers
from langchain_automix.comparison_words import EXPLANATION, cells, heads, title
from langchain_automix.demo.calibrating import CalibrateCommand, CalibrateOptions
from langchain_automix.demo.checks import combined
from langchain_automix.errors import AutoMixError
from langchain_automix.policy.log import RoutingLog

if TYPE_CHECKING:
    from rich.console import Console

    from langchain_automix.calibration.run import Calibrated


@dataclass(frozen=True)
class CompareOptions:
    """How checks are compared."""

    k: Sequence[int]
    cost_weight: float | None = None
    seed: int = 0
    markdown: Path | None = None
    """Where the table goes as Markdown."""

    as_json: bool = False


class CompareCommand(CalibrateCommand):
    """A calibration with several checks, and the table that comes of it.

    Args:
        options: Of the calibration.
        comparing: How they are compared.
        console: Where people read.

    Raises:
        AutoMixError: There is no such check.
    """

    def __init__(
        self,
        options: CalibrateOptions,
        comparing: CompareOptions,
        console: Console,
    ) -> None:
        super().__init__(options, console)
        self._comparing = comparing

    @override
    def _verifier(self) -> Runnable[Any, Any]:
        return combined(self._checks, self._models, self.options.wanted)

    @override
    def _show(self, found: Calibrated) -> None:
        if self.options.as_json:
            event("done", **view.as_dict(found))
        elif found.written.queries:
            first, *others = view.ending(found, self.options.max_spend)
            for line in (f"[bold]{shown(first)}[/]", *map(shown, others)):
                view.say(self.console, line)
            for line in view.labels(found.written):
                view.say(self.console, shown(line))
            view.say(self.console, f"Log: {shown(str(found.out))}\n")
        if found.written.complete > 1 and found.progress.stopped != "interrupted":
            show(self.console, RoutingLog.read(found.out), self._comparing)


def is_log(path: str) -> bool:
    """Whether a file holds a routing log, and not examples; its first line tells."""
    if path.endswith(".parquet"):
        return True
    if not path.endswith((".jsonl", ".jsonl.gz")):
        return False
    try:
        with gzip.open(path, "rt") if path.endswith(".gz") else Path(path).open() as lines:
            first = next((line for line in lines if line.strip()), "")
        found = json.loads(first or "null")
    except (OSError, EOFError, ValueError):
        return False  # who reads it as examples says what is wrong with it
    answers = found.get("answers") if isinstance(found, dict) else None
    return isinstance(answers, list) and all(isinstance(a, dict) and "model" in a for a in answers)


def show(console: Console, log: RoutingLog, options: CompareOptions) -> None:
    """Compare the checks of a log, and print what comes of it.

    Raises:
        AutoMixError: They cannot be compared, or the Markdown cannot be written.
    """
    found = compare_verifiers(
        log, cost_weight=options.cost_weight, samples=options.k, seed=options.seed
    )
    if options.markdown is not None:
        try:
            options.markdown.write_text(found.to_markdown(), encoding="utf-8")
        except OSError as error:
            raise AutoMixError(
                f"The table {options.markdown} cannot be written: {error.strerror}."
            ) from error
    if options.as_json:
        event("comparison", **found.to_dict())
        return
    view.say(console, shown(title(found)))
    console.print()
    console.print(_table(found))
    for line in EXPLANATION:
        view.say(console, shown(line), style="dim")
    console.print()
    for note in found.notes:
        view.say(console, shown(note))


def _table(found: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in heads():
        table.add_column(name, justify="left" if name == "check" else "right", no_wrap=True)
    table.columns[0].no_wrap = False
    best = None if found.best is None else found.rows.index(found.best)
    for place, row in enumerate(cells(found)):
        table.add_row(*map(shown, row), style="bold" if place == best else None)
    return table
