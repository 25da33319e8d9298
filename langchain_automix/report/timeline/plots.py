"""Draw a report over time with matplotlib; needs the extra `plots`."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from langchain_automix.errors import AutoMixError
from langchain_automix.report.plots import (
    BLUE,
    GREEN,
    GREY,
    RED,
    YELLOW,
    literal,
    new_figure,
)
from langchain_automix.report.timeline.contents import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_cost_over_time(contents: Timeline) -> Figure:
    """Draw the cost of a query and of the largest model alone, with versions and alarms as marks.

    Args:
        contents: The contents of a report over time.

    Raises:
        AutoMixError: matplotlib is not installed, or no cost is known.
    """
    priced = [span for span in contents.spans if span.cost is not None]
    if not priced:
        raise AutoMixError("No query of the store has a known cost, so there is none to plot.")
    figure, axes = new_figure()
    times = [_time((span.start + span.end) / 2) for span in priced]
    alone = [span.alone for span in priced]
    cost = [span.cost for span in priced]
    axes.plot(times, alone, color=GREY, linestyle=":", marker=".", label="largest model alone")  # type: ignore[arg-type]  # its stubs know no dates
    axes.plot(times, cost, color=BLUE, marker=".", label="this mix")  # type: ignore[arg-type]
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"mean cost of a query ({literal(contents.currency)})")
    return _finished(figure, axes, contents)


def plot_quality_over_time(contents: Timeline) -> Figure:
    """Draw the quality of the answers by source of the grade, with 95 % intervals and marks.

    Args:
        contents: The contents of a report over time.

    Raises:
        AutoMixError: matplotlib is not installed, or no answer is graded.
    """
    if not contents.sources:
        raise AutoMixError("No answer in the store is graded, so there is no quality to plot.")
    figure, axes = new_figure()
    styles = itertools.cycle(((BLUE, "o"), (YELLOW, "s"), (GREEN, "^"), ("black", "D")))
    for source, (color, marker) in zip(contents.sources, styles, strict=False):
        graded = [(s, s.quality[source]) for s in contents.spans if source in s.quality]
        middles = [each.quality for _, each in graded]
        bars = [
            [max(each.quality - each.interval[0], 0.0) for _, each in graded],
            [max(each.interval[1] - each.quality, 0.0) for _, each in graded],
        ]
        times = [_time((span.start + span.end) / 2) for span, _ in graded]
        axes.errorbar(
            times,  # type: ignore[arg-type]
            middles,
            yerr=bars,
            fmt=f"{marker}-",
            markersize=4,
            color=color,
            label=literal(source),
        )
    axes.set_ylim(top=1.02)
    axes.set_ylabel("mean quality (0 to 1)")
    return _finished(figure, axes, contents)


def plot_escalations_over_time(contents: Timeline) -> Figure:
    """Draw the share of queries that asked more than one model, and of those with a shadow.

    Args:
        contents: The contents of a report over time.

    Raises:
        AutoMixError: matplotlib is not installed.
    """
    figure, axes = new_figure()
    times = [_time((span.start + span.end) / 2) for span in contents.spans]
    escalated = [float("nan") if s.escalated is None else s.escalated for s in contents.spans]
    axes.plot(times, escalated, color=BLUE, marker=".", label="escalated")  # type: ignore[arg-type]
    shadowed = [span.shadowed for span in contents.spans]
    axes.plot(times, shadowed, color=GREY, linestyle=":", marker=".", label="with a shadow")  # type: ignore[arg-type]
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("share of the queries")
    return _finished(figure, axes, contents)


def _finished(figure: Figure, axes: Axes, contents: Timeline) -> Figure:
    """Add marks for versions and alarms, the legend, and dates that do not overlap."""
    for change in contents.changes:
        if change.version is not None:
            axes.axvline(_time(change.at), color=GREEN, linewidth=1)  # type: ignore[arg-type]
            name = f"version {change.version}" if change.version else "largest"
            axes.text(
                _time(change.at),  # type: ignore[arg-type]
                0.02,
                f" {name}",
                transform=axes.get_xaxis_transform(),
                rotation=90,
                fontsize=8,
                verticalalignment="bottom",
            )
        elif change.kind == "alarm":
            axes.axvline(_time(change.at), color=RED, linewidth=1, linestyle="--")  # type: ignore[arg-type]
    if any(change.kind == "alarm" for change in contents.changes):
        axes.plot([], [], color=RED, linewidth=1, linestyle="--", label="alarm")
    axes.legend(frameon=False)
    figure.autofmt_xdate()
    return figure


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
