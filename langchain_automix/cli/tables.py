"""Print a calibration and a comparison: estimate, progress, summary and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from langchain_automix.calibration.budget import Progress
from langchain_automix.calibration.cost_estimate import Estimate, StageEstimate
from langchain_automix.calibration.log_writer import LogStatistics
from langchain_automix.calibration.session import CalibrationResult
from langchain_automix.cli.terminal import new_table, say
from langchain_automix.evaluation.comparison import EXPLANATION, Comparison, cells, heads, title
from langchain_automix.utils.formatting import (
    format_amount,
    format_count,
    format_duration,
    format_range,
    pluralize,
)
from langchain_automix.utils.text import escape_rich

if TYPE_CHECKING:
    pass

_LONGEST_ERROR = 160


def show_estimate(console: Console, expected: Estimate, *, without_references: str) -> None:
    """Print the estimate of a calibration."""
    head = pluralize(expected.examples, "example")
    if expected.unlabelled:
        head += f", {expected.unlabelled:,} without an accepted answer"
    say(console, f"[bold]{head}.[/]")
    if expected.unlabelled:
        say(console, _how_unlabelled(expected, without_references))
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


def _how_unlabelled(expected: Estimate, without_references: str) -> str:
    if without_references == "grade":
        return "Answers to these are graded without one."
    text = "Answers to these are graded by how far they agree with the largest model's"
    some = expected.unlabelled < expected.examples
    return f"{text}, corrected by what the others show." if some else f"{text}."


def _stages(expected: Estimate) -> Table:
    table = new_table("calls to make", "calls", "tokens in", "tokens out", "cost", indent=2)
    stages = [stage for stage in expected.stages if stage.calls or stage.is_free]
    is_one_model_checked = len({stage.model for stage in expected.stages if stage.check}) == 1
    for stage in stages:
        # If only one model's answers are checked, the check's name is enough, and fits the line.
        short = stage.check if is_one_model_checked else None
        table.add_row(
            f"  {escape_rich(short or describe_stage(stage))}",
            *(
                ("none", "", "", "free")
                if stage.is_free
                else (
                    f"{stage.calls:,}",
                    *_tokens([stage]),
                    _cost(stage.cost, expected.currency),
                )
            ),
        )
    table.add_row(
        "  in all",
        f"{expected.calls:,}",
        *_tokens(stages),
        _cost(expected.cost, expected.currency),
        style="bold",
    )
    return table


def _tokens(stages: Sequence[StageEstimate]) -> Iterator[str]:
    for ranges in ([s.tokens_in for s in stages], [s.tokens_out for s in stages]):
        yield format_range(*(format_count(sum(ends)) for ends in zip(*ranges, strict=True)))


def _cost(cost: tuple[float, float] | None, currency: str) -> str:
    if cost is None:
        return "unknown"
    return format_range(*(format_amount(end, currency) for end in cost))


def _cost_in_words(expected: Estimate) -> str:
    if expected.cost is not None:
        cost = _cost(expected.cost, expected.currency)
        return f"That is likely to cost {cost}, depending on how much the models write."
    if expected.currency != "USD":
        return "How long it takes can be estimated only after some calls: the progress shows it."
    unknown = [describe_stage(s) for s in expected.stages if s.calls and s.cost is None]
    return f"The cost is unknown, because there is no price for: {escape_rich(', '.join(unknown))}."


def describe_stage(stage: StageEstimate) -> str:
    """Return the kind of some calls in words."""
    which = f"{stage.stage} {stage.check} of" if stage.check else stage.stage
    return f"{which} {stage.model}"


def describe_changes(expected: Estimate) -> str:
    """Say which settings differ from the last run."""
    changes = [_change(name, *values) for name, values in expected.changed.items()]
    return f"Since the last run, this has changed: {', '.join(changes)}."


def _change(name: str, before: Any, now: Any) -> str:
    if before is None:
        return f"the {name} is new"
    if now is None:
        return f"the {name} is gone"
    if isinstance(now, int):
        return f"the {name} ({before}, now {now})"
    return f"the {name}"


def progress_parts(progress: Progress, limit: float | None) -> Iterator[str]:
    """Yield the progress in words: rate, cost so far, failures and time left."""
    new = progress.done - progress.reused
    rate = 60 * new / progress.seconds if progress.seconds else 0.0
    yield f"{rate:.{0 if rate >= 10 else 1}f}/min"  # noqa: PLR2004  (two significant digits)
    spent = format_amount(progress.spent, progress.currency)
    if limit is not None:
        spent += f" of {format_amount(limit, progress.currency)}"
    yield spent if progress.currency == "USD" else f"{spent} spent"
    if progress.failed:
        yield f"{progress.failed} failed"
    if progress.seconds_left is not None:
        yield f"{format_duration(progress.seconds_left)} left"


def show_summary(console: Console, result: CalibrationResult, limit: float | None) -> None:
    """Print the result of a calibration: how far it got, the figures, the failures."""
    written = result.written
    console.print()
    _show_end(console, result, limit)
    console.print()
    console.print(_figures(written, result.progress.currency))
    if any(model.auroc is not None for model in written.models):
        say(
            console,
            "AUROC: the chance that the check gives a good answer more confidence than a bad one; "
            "0.5 is chance.",
            style="dim",
        )
    console.print()
    for line in (*_label_notes(written), *_missing_free_check(written), *_failures(written)):
        say(console, escape_rich(line))


def _missing_free_check(written: LogStatistics) -> Iterator[str]:
    if names := written.without_free_check:
        yield (
            f"The answers of {' and '.join(names)} came without log-probabilities, so the log has "
            "no free check of them."
        )


def show_ending(console: Console, result: CalibrationResult, limit: float | None) -> None:
    """Print how far a calibration got, and where its log is."""
    _show_end(console, result, limit)
    for line in _label_notes(result.written):
        say(console, escape_rich(line))
    say(console, f"Log: {escape_rich(str(result.out))}\n")


def _show_end(console: Console, result: CalibrationResult, limit: float | None) -> None:
    progress, written = result.progress, result.written
    left = progress.examples - written.queries
    parts = [f"{written.queries - written.failed:,} of {progress.examples:,} examples finished"]
    parts += [f"{written.failed:,} failed"] if written.failed else []
    parts += [f"{left:,} left"] if left else []
    say(console, f"[bold]{', '.join(parts)}.[/]")
    if progress.stopped:
        say(console, escape_rich(_why_stopped(progress, limit)))
    spent = format_amount(progress.spent, progress.currency)
    took = format_duration(progress.seconds)
    calls = pluralize(progress.calls, "call")
    say(console, f"Spent so far: {spent}. This run made {calls} in {took}.")
    if progress.lost:
        requests = pluralize(progress.lost, "request")
        say(
            console,
            f"In it {requests} may have been billed unseen (cut, timed out, or under way when a "
            "run was killed): each counts as the dearest of its kind.",
        )


def _why_stopped(progress: Progress, limit: float | None) -> str:
    if progress.stopped == "max_spend" and limit is not None:
        return (
            f"It stopped before --max-spend {format_amount(limit, progress.currency)} was "
            "exceeded; run the same command with a higher limit to resume."
        )
    if progress.stopped in ("interrupted", "disk full"):
        return f"{progress.words} Run the same command again to resume.".lstrip()
    return progress.words


def _figures(written: LogStatistics, currency: str) -> Table:
    table = new_table(
        "answers of",
        "graded",
        "quality",
        "answer costs",
        "check costs",
        "AUROC of check",
        indent=2,
    )
    for model in written.models:
        table.add_row(
            f"  {escape_rich(model.model)}",
            f"{model.answers:,}",
            _known(model.quality),
            "unknown" if model.cost is None else format_amount(model.cost, currency),
            "" if model.check_cost is None else format_amount(model.check_cost, currency),
            _known(model.auroc) if model.checks else "",
        )
    return table


def _known(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _label_notes(written: LogStatistics) -> list[str]:
    """Say what the qualities are based on, if not on accepted answers alone."""
    agreed = written.queries - written.labelled - written.corrected
    if not written.models or not (agreed or written.corrected):
        return []
    largest = written.models[-1].model
    if written.corrected:
        return [
            f"The quality of {written.corrected:,} examples without an accepted answer is their "
            f"agreement with {largest}, corrected by what the {written.labelled:,} with one show."
        ]
    return [
        f"Quality here is agreement with {largest}, which counts as always right: it cannot tell "
        f"where {largest} is wrong, nor where a smaller model is better. Accepted answers to even "
        "a few of the examples would."
    ]


def _failures(written: LogStatistics) -> Iterator[str]:
    if not written.failed:
        return
    yield (
        f"{pluralize(written.failed, 'example')} failed; the log has the errors of each in its "
        "metadata.failed."
    )
    for failure in written.failures:
        yield f"  {failure.id}: {_shortened('; '.join(failure.errors.values()))}"
    if more := written.failed - len(written.failures):
        yield f"  and {more:,} more"
    yield "Run the same command to retry these; finished calls are not repeated."


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_ERROR else f"{text[: _LONGEST_ERROR - 1]}…"


def result_dict(result: CalibrationResult) -> dict[str, Any]:
    """Return the summary of a calibration, ready for JSON."""
    progress, written = result.progress, result.written
    return {
        "log": str(result.out),
        "examples": progress.examples,
        "finished": written.queries - written.failed,
        "failed": written.failed,
        "left": progress.examples - written.queries,
        "complete": written.complete,
        "stopped": progress.stopped,
        "words": progress.words,
        "calls": progress.calls,
        "spent": progress.spent,
        "lost": progress.lost,
        "currency": progress.currency,
        "seconds": round(progress.seconds, 3),
        "models": [vars(model) for model in written.models],
        "failures": [vars(failure) for failure in written.failures],
        "notes": _label_notes(written),
    }


def progress_dict(progress: Progress) -> Mapping[str, Any]:
    """Return the progress, ready for JSON."""
    values = vars(progress)
    return {name: round(v, 6) if isinstance(v, float) else v for name, v in values.items()}


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print a comparison of checks: the table, how to read it, and what it says."""
    say(console, escape_rich(title(comparison)))
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in heads():
        table.add_column(name, justify="left" if name == "check" else "right", no_wrap=True)
    table.columns[0].no_wrap = False
    best = None if comparison.best is None else comparison.rows.index(comparison.best)
    for index, row in enumerate(cells(comparison)):
        table.add_row(*map(escape_rich, row), style="bold" if index == best else None)
    console.print(table)
    for line in EXPLANATION:
        say(console, escape_rich(line), style="dim")
    console.print()
    for note in comparison.notes:
        say(console, escape_rich(note))
