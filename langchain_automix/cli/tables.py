"""What a calibration shows: the estimate, how it is getting on, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from langchain_automix.utils.formatting import (
    format_amount,
    format_count,
    format_duration,
    format_range,
    pluralize,
)
from langchain_automix.utils.text import escape_rich

if TYPE_CHECKING:
    from rich.console import Console

    from langchain_automix.calibration.budget import Progress
    from langchain_automix.calibration.calibrate import Calibrated
    from langchain_automix.calibration.cost_estimate import Estimate, StageEstimate
    from langchain_automix.calibration.log_writer import LogStatistics, ModelFigures


_LONGEST_ERROR = 160


def estimate(console: Console, expected: Estimate, *, without_references: str) -> None:
    """Print what is going to be asked for."""
    head = pluralize(expected.examples, "example")
    if expected.unlabelled:
        head += f", {expected.unlabelled:,} without an accepted answer"
    say(console, f"[bold]{head}.[/]")
    if expected.unlabelled:
        say(console, _unlabelled(expected, without_references))
    if expected.finished or expected.spent:
        say(
            console,
            f"Already finished: {expected.finished:,} of {expected.examples:,}; "
            f"{format_amount(expected.spent, expected.currency)} spent before.",
        )
    for note in expected.notes:
        say(console, escape_rich(note))
    if not expected.calls:
        say(console, "No call is left to make.")
        return
    console.print(_stages(expected))
    say(console, _cost_in_words(expected))


def _unlabelled(expected: Estimate, without_references: str) -> str:
    if without_references == "grade":
        return "Answers to these are graded by themselves."
    text = "Answers to these are graded by how far they agree with the largest model's"
    some = expected.unlabelled < expected.examples
    return f"{text}, corrected by what the others show." if some else f"{text}."


def _stages(expected: Estimate) -> Table:
    table = _table(("calls to make", "left"), ("calls", "right"), ("tokens in", "right"))
    table.add_column("tokens out", justify="right", header_style="dim")
    table.add_column("cost", justify="right", header_style="dim")
    checked = {stage.model for stage in expected.stages if stage.check}
    for stage in expected.stages:
        if stage.calls:
            # Of one model's answers the checks' names alone fit the line.
            name = stage.check if stage.check and len(checked) == 1 else named(stage)
            table.add_row(
                f"  {escape_rich(name)}",
                f"{stage.calls:,}",
                format_range(*map(format_count, stage.tokens_in)),
                format_range(*map(format_count, stage.tokens_out)),
                _cost(stage.cost, expected.currency),
            )
    stages = [stage for stage in expected.stages if stage.calls]
    table.add_row(
        "  in all",
        f"{expected.calls:,}",
        format_range(*(format_count(sum(s.tokens_in[end] for s in stages)) for end in (0, 1))),
        format_range(*(format_count(sum(s.tokens_out[end] for s in stages)) for end in (0, 1))),
        _cost(expected.cost, expected.currency),
        style="bold",
    )
    return table


def _cost(cost: tuple[float, float] | None, currency: str) -> str:
    return (
        "unknown" if cost is None else format_range(*(format_amount(end, currency) for end in cost))
    )


def _cost_in_words(expected: Estimate) -> str:
    if expected.cost is not None:
        known = _cost(expected.cost, expected.currency)
        return f"That is likely to cost {known}: how much the models write decides."
    if expected.currency != "USD":
        return "How long it takes can be said only after some calls: the bar shows it."
    unknown = ", ".join(map(named, filter(lambda s: s.calls and s.cost is None, expected.stages)))
    return f"What it costs is not known, for there is no price for: {escape_rich(unknown)}."


def named(stage: StageEstimate) -> str:
    """Return the kind of some calls, as people read it."""
    which = f"{stage.stage} {stage.check} of" if stage.check else stage.stage
    return f"{which} {stage.model}"


def changes(expected: Estimate) -> str:
    """Say what is not as in the run before."""
    said = [_change(name, *both) for name, both in expected.changed.items()]
    return f"Since the run before, this has changed: {', '.join(said)}."


def _change(name: str, before: Any, now: Any) -> str:
    if before is None:
        return f"the {name} is new"
    if now is None:
        return f"the {name} is gone"
    if isinstance(now, int):
        return f"the {name} ({before}, now {now})"
    return f"the {name}"


def on_the_way(progress: Progress, limit: float | None) -> dict[str, str]:
    """Return how far it is, in parts: rate, spent, failed and time left."""
    new, spent = progress.done - progress.reused, format_amount(progress.spent, progress.currency)
    rate = 60 * new / progress.seconds if progress.seconds else 0.0
    left = progress.seconds_left
    said = spent if limit is None else f"{spent} of {format_amount(limit, progress.currency)}"
    return {
        "rate": f"{rate:.{0 if rate >= 10 else 1}f}/min",  # noqa: PLR2004  (two digits that count)
        "spent": said if progress.currency == "USD" else f"{said} spent",
        "failed": f"{progress.failed} failed" if progress.failed else "",
        "left": "" if left is None else f"{format_duration(left)} left",
    }


def summary(console: Console, found: Calibrated, limit: float | None) -> None:
    """Print what came of it: how far it got, the figures, what failed."""
    progress, written = found.progress, found.written
    console.print()
    first, *others = map(escape_rich, ending(found, limit))
    say(console, f"[bold]{first}[/]")
    for line in others:
        say(console, line)
    console.print()
    console.print(_figures(written, progress.currency))
    if any(model.auroc is not None for model in written.models):
        say(
            console,
            "AUROC: the chance that the check is surer of a good answer than of a bad one; "
            "0.5 is chance.",
            style="dim",
        )
    console.print()
    for line in (*labels(written), *_failures(written)):
        say(console, escape_rich(line))


def ending(found: Calibrated, limit: float | None) -> list[str]:
    """Say how far it got, what was spent, and why it ended before the last example."""
    progress, written = found.progress, found.written
    left = progress.examples - written.queries
    parts = [f"{written.queries - written.failed:,} of {progress.examples:,} examples finished"]
    parts += [f"{written.failed:,} failed"] if written.failed else []
    parts += [f"{left:,} left"] if left else []
    lines = [f"{', '.join(parts)}."]
    lines += [_why_stopped(progress, limit)] if progress.stopped else []
    spent, took = (
        format_amount(progress.spent, progress.currency),
        format_duration(progress.seconds),
    )
    lines.append(
        f"Spent so far: {spent}. This run made {pluralize(progress.calls, 'call')} in {took}."
    )
    return lines


def _why_stopped(progress: Progress, limit: float | None) -> str:
    if progress.stopped == "max_spend" and limit is not None:
        return (
            f"It stopped before --max-spend {format_amount(limit, progress.currency)} would be "
            "passed; "
            "the same command with a higher one goes on from here."
        )
    more = "The same command goes on from here."
    if progress.stopped in ("interrupted", "disk full"):
        return f"{progress.words} {more}".lstrip()
    return progress.words


def _figures(written: LogStatistics, currency: str) -> Table:
    table = _table(("answers of", "left"), ("graded", "right"), ("quality", "right"))
    for name in ("answer costs", "check costs", "AUROC of check"):
        table.add_column(name, justify="right", header_style="dim")
    for model in written.models:
        table.add_row(
            f"  {escape_rich(model.model)}",
            f"{model.answers:,}",
            _known(model.quality),
            "unknown" if model.cost is None else format_amount(model.cost, currency),
            _check_cost(model, currency),
            _known(model.auroc) if model.checks else "",
        )
    return table


def _check_cost(model: ModelFigures, currency: str) -> str:
    return "" if model.check_cost is None else format_amount(model.check_cost, currency)


def _known(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def labels(written: LogStatistics) -> list[str]:
    """Say what the qualities are made of, where not of accepted answers."""
    agreed = written.queries - written.labelled - written.corrected
    if not written.models or not (agreed or written.corrected):
        return []
    largest = written.models[-1].model
    if written.corrected:
        return [
            f"The quality of {written.corrected:,} examples without an accepted answer is their "
            f"agreement with {largest}, corrected by what {written.labelled:,} with one show."
        ]
    return [
        f"Quality here is agreement with {largest}, which counts as always right: it cannot tell "
        f"where {largest} is wrong, nor where a smaller model is better. Some accepted answers, "
        "even for a part of the examples, would."
    ]


def _failures(written: LogStatistics) -> list[str]:
    if not written.failed:
        return []
    shown = [
        f"  {failure.id}: {_shortened('; '.join(failure.errors.values()))}"
        for failure in written.failures
    ]
    if more := written.failed - len(shown):
        shown.append(f"  and {more:,} more")
    return [
        f"{pluralize(written.failed, 'example')} failed; the log has each one's errors in its "
        "metadata.failed.",
        *shown,
        "The same command tries these again, and repeats no finished call.",
    ]


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_ERROR else f"{text[: _LONGEST_ERROR - 1]}…"


def as_dict(found: Calibrated) -> dict[str, Any]:
    """Return the summary ready for JSON."""
    progress, written = found.progress, found.written
    return {
        "log": str(found.out),
        "examples": progress.examples,
        "finished": written.queries - written.failed,
        "failed": written.failed,
        "left": progress.examples - written.queries,
        "complete": written.complete,
        "stopped": progress.stopped,
        "words": progress.words,
        "calls": progress.calls,
        "spent": progress.spent,
        "currency": progress.currency,
        "seconds": round(progress.seconds, 3),
        "models": [vars(model) for model in written.models],
        "failures": [vars(failure) for failure in written.failures],
        "notes": labels(written),
    }


def progress_dict(progress: Progress) -> Mapping[str, Any]:
    """Return how far it is, ready for JSON."""
    found = vars(progress)
    return {name: round(v, 6) if isinstance(v, float) else v for name, v in found.items()}


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a line of markup as it is, without colours for its numbers."""
    console.print(text, highlight=False, style=style)


def _table(*columns: tuple[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for name, justify in columns:
        table.add_column(f"  {name}" if justify == "left" else name, justify=justify)
        table.columns[-1].header_style = "dim"
    return table
