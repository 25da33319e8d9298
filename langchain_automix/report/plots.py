"""A report's pictures, as matplotlib figures; needs the extra `plots`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.plots import BLUE, GREY, RED, draw_benefit, new_figure
from langchain_automix.report.contents import Contents, Interval, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREEN, _YELLOW = "#009E73", "#E69F00"  # of the same palette
_MARKERS = {"random_mix": "x", "oracle": "^", "threshold": "v", "double_threshold": "<"}


def plot_cost_quality(contents: Contents) -> Figure:
    """Draw every baseline, the frontier, random mixing, and the policy with its intervals.

    Args:
        contents: What the report says.

    Raises:
        AutoMixError: matplotlib is not installed.
    """
    figure, axes = new_figure()
    singles = [p for p in contents.baselines if p.name.startswith("always:")]
    for point in contents.baselines:
        if point not in singles:
            marker = _MARKERS.get(point.name, "D")
            axes.plot(point.cost, point.quality, marker, color=GREY, markersize=5, linestyle="none")
            _name(axes, point, point.name.replace("_", " "))
    for point in singles:
        axes.plot(point.cost, point.quality, "s", color="black", linestyle="none")
        _name(axes, point, point.name.removeprefix("always:"))
    if len(singles) > 1:
        ends = (singles[0], singles[-1])
        _line(axes, ends, color=GREY, linestyle=":", label="random mixing")
    _line(axes, contents.frontier, color=BLUE, linestyle="-", label="frontier, cross-fitted")
    _policy(axes, contents.point)
    axes.set_xlabel(f"mean cost of a query{_unit(contents)}")
    axes.set_ylabel("mean quality (0 to 1)")
    axes.legend(frameon=False, loc="lower right")
    return figure


def _line(axes: Axes, points: tuple[Point, ...], *, color: str, linestyle: str, label: str) -> None:
    costs, qualities = [p.cost for p in points], [p.quality for p in points]
    axes.plot(costs, qualities, color=color, linestyle=linestyle, marker=".", label=label)


def _policy(axes: Axes, point: Point) -> None:
    axes.errorbar(
        [point.cost],
        [point.quality],
        yerr=_bars(point.quality, point.quality_interval),
        xerr=_bars(point.cost, point.cost_interval),
        fmt="*",
        markersize=14,
        color=RED,
        label="this policy (95 %)",
    )


def _bars(middle: float, interval: Interval | None) -> list[list[float]] | None:
    if interval is None:
        return None
    return [[max(middle - interval[0], 0.0)], [max(interval[1] - middle, 0.0)]]


def _name(axes: Axes, point: Point, text: str) -> None:
    place = (point.cost, point.quality)
    axes.annotate(
        _plain(text), place, textcoords="offset points", xytext=(5, -10), fontsize="small"
    )


def _unit(contents: Contents) -> str:
    return f" ({_plain(contents.currency)})" if contents.currency else ""


def _plain(text: str) -> str:
    """Return a text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")


def plot_benefit(contents: Contents, model: str | None = None) -> Figure:
    """Draw what asking a larger model gains, against the confidence, with the data.

    Args:
        contents: What the report says.
        model: The checked model. None: the first one.

    Raises:
        AutoMixError: matplotlib is not installed, or no answer of the model was checked.
    """
    found = [b for b in contents.benefits if model is None or b.model == model]
    if not found:
        checked = [b.model for b in contents.benefits]
        raise AutoMixError(
            f"There is no benefit to plot of {model or 'any model'}: the log has checks of the "
            f"answers of {checked or 'no model'}."
        )
    [benefit, *_] = found
    figure, axes = new_figure()
    names = (_plain(benefit.model), _plain(benefit.larger))
    draw_benefit(axes, names, benefit.groups, benefit.curve, benefit.price)
    return figure


def plot_reliability(contents: Contents) -> Figure:
    """Draw the true quality of answers against the stated confidence in them.

    Args:
        contents: What the report says.

    Raises:
        AutoMixError: matplotlib is not installed, or the log has no confidence at all.
    """
    if not contents.reliabilities:
        raise AutoMixError("No answer in the log has a confidence, so there is none to plot.")
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="a true probability")
    styles = ((BLUE, "o"), (RED, "s"), (_GREEN, "^"), (_YELLOW, "D"), ("black", "v"))
    for place, each in enumerate(contents.reliabilities):
        color, marker = styles[place % len(styles)]
        bars = [_bars(group.actual, group.interval) or [[0.0], [0.0]] for group in each.groups]
        axes.errorbar(
            [group.stated for group in each.groups],
            [group.actual for group in each.groups],
            yerr=[[bar[side][0] for bar in bars] for side in (0, 1)],
            fmt=f"{marker}-",
            color=color,
            label=f"{_plain(each.name)} (ECE {each.ece:.2f})",
        )
    axes.set_xlabel("stated confidence (0 to 1)")
    axes.set_ylabel("mean quality of the answers (0 to 1)")
    axes.legend(frameon=False)
    return figure


def plot_cost_split(contents: Contents) -> Figure:
    """Draw what the answers and the checks of each model cost.

    Args:
        contents: What the report says.

    Raises:
        AutoMixError: matplotlib is not installed.
    """
    figure, axes = new_figure()
    parts = {(part.part, part.model): part.cost for part in contents.cost_split}
    places = list(range(len(contents.models)))
    answers = [parts.get(("answers", model), 0.0) for model in contents.models]
    checks = [parts.get(("checks", model), 0.0) for model in contents.models]
    axes.bar(places, answers, color=BLUE, label="answers")
    axes.bar(places, checks, bottom=answers, color=_YELLOW, hatch="//", label="checks")
    axes.set_xticks(places, [_plain(model) for model in contents.models])
    axes.tick_params(axis="x", rotation=20 if len(places) > 2 else 0)  # noqa: PLR2004
    axes.set_ylabel(f"mean cost of a query{_unit(contents)}")
    axes.legend(frameon=False)
    return figure
