"""Draw a policy, or what a report measured of it, with matplotlib; needs the extra `plots`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.benefit import (
    BenefitGroup,
    believed_benefit,
    benefit_groups,
    checking_plan,
)
from langchain_automix.policy.data.arrays import LogArrays, to_arrays
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.fit import policy_frontier
from langchain_automix.policy.fitting.fitting_data import complete
from langchain_automix.policy.replay import Outcomes, replay_plan
from langchain_automix.policy.statistics import Interval
from langchain_automix.report.contents import Contents, Point
from langchain_automix.utils.install import install_hint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREEN, YELLOW = "#0072B2", "#D55E00", "#009E73", "#E69F00"
GREY = "0.55"
"""Colours from Okabe and Ito's palette, which colour-blind readers can distinguish."""

_MARKERS = {"random_mix": "x", "oracle": "^", "threshold": "v", "double_threshold": "<"}


def plot(policy: Policy, log: RoutingLog | None, *, kind: str = "benefit") -> Any:
    """Return a matplotlib figure; see `POMDPRouter.plot`."""
    if kind not in ("benefit", "frontier"):
        raise AutoMixError(f"There is no plot {kind!r}: ask for 'benefit' or 'frontier'.")
    figure, axes = new_figure()
    data = None if log is None else complete(to_arrays(log))
    if kind == "benefit":
        _draw_benefit(axes, policy, data)
    elif data is None:
        raise AutoMixError("The frontier is drawn from a routing log: give one.")
    else:
        _draw_frontier(axes, policy, data)
    axes.legend(frameon=False)
    return figure


def _draw_benefit(axes: Axes, policy: Policy, data: LogArrays | None) -> None:
    """Draw the gain from asking a larger model, by the confidence in a smaller one's answer.

    The data points have error bars of one standard error.
    """
    checking = checking_plan(policy)
    if checking is None:
        raise AutoMixError("This policy checks no answer, so there is no benefit curve to plot.")
    plan, table = checking
    large = plan.plays[-1]
    names = [reading.name for reading in table.checks]
    check = names[0] if names and None not in names else None
    curve = believed_benefit(table, plan.plays.index(table.model), check)
    if not curve:
        raise AutoMixError("This rule holds no belief, so there is no benefit curve to plot.")
    groups = () if data is None else benefit_groups(data.alone(check), table.model, large)
    price = policy.cost_weight * (policy.fit.cost[large] if policy.fit.cost else 0.0)
    _draw_curve(axes, (policy.models[table.model], policy.models[large]), groups, curve, price)


def _draw_curve(
    axes: Axes,
    models: tuple[str, str],
    groups: Iterable[BenefitGroup],
    curve: Sequence[tuple[float, float]],
    price: float,
) -> None:
    small, large = map(literal, models)
    for group in groups:
        axes.errorbar(group.confidence, group.benefit, group.error, fmt="o", color=GREY)
    if curve:
        axes.plot(*zip(*curve, strict=True), color=BLUE, label="expected benefit")
    axes.axhline(price, color=RED, linestyle="--", label=f"price of {large}")
    axes.set_xlabel(f"confidence in the answer of {small}")
    axes.set_ylabel(f"quality of {large} minus this answer's")


def _draw_frontier(axes: Axes, policy: Policy, data: LogArrays) -> None:
    """Draw cost and quality of each model, of the available policies, and of this policy."""
    for j, name in enumerate(data.models):
        point = (data.cost[:, j].mean(), data.quality[:, j].mean())
        axes.plot(*point, "s", color=GREY)
        axes.annotate(literal(name), point, textcoords="offset points", xytext=(5, -10))
    points = sorted(_means(replay_plan(plan, data)) for plan in policy_frontier(data))
    axes.plot(*zip(*points, strict=True), "-", color=BLUE, label="frontier on this log")
    shares = (policy.first_share, 1 - policy.first_share)
    means = [_means(replay_plan(plan, data, policy.own_costs)) for plan in policy.plans]
    cost, quality = (
        sum(share * mean[axis] for share, mean in zip(shares, means, strict=False))
        for axis in (0, 1)
    )
    axes.plot(cost, quality, "*", markersize=14, color=RED, label="this policy")
    axes.set_xlabel("mean cost of a query")
    axes.set_ylabel("mean quality")


def _means(outcomes: Outcomes) -> tuple[float, float]:
    return float(outcomes.cost.mean()), float(outcomes.quality.mean())


def plot_cost_quality(contents: Contents) -> Figure:
    """Draw every baseline, the frontier, random mixing, and the policy with its intervals.

    Args:
        contents: The contents of a report.

    Raises:
        AutoMixError: matplotlib is not installed.
    """
    figure, axes = new_figure()
    singles = [point for point in contents.baselines if point.name.startswith("always:")]
    for point in contents.baselines:
        marker, color = _MARKERS.get(point.name, "D"), GREY
        if point in singles:
            marker, color = "s", "black"
        axes.plot(point.cost, point.quality, marker, color=color, markersize=5, linestyle="none")
        name = point.name.removeprefix("always:").replace("_", " ")
        at = (point.cost, point.quality)
        axes.annotate(literal(name), at, textcoords="offset points", xytext=(5, -10))
    if len(singles) > 1:
        _line(axes, (singles[0], singles[-1]), color=GREY, linestyle=":", label="random mixing")
    _line(axes, contents.frontier, color=BLUE, linestyle="-", label="frontier, cross-fitted")
    point = contents.point
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
    axes.set_xlabel(f"mean cost of a query{_unit(contents)}")
    axes.set_ylabel("mean quality (0 to 1)")
    axes.legend(frameon=False, loc="lower right")
    return figure


def plot_benefit(contents: Contents, model: str | None = None) -> Figure:
    """Draw the gain from asking a larger model against the confidence, with the data.

    Args:
        contents: The contents of a report.
        model: The checked model. None: the first one.

    Raises:
        AutoMixError: matplotlib is not installed, or no answer of the model was checked.
    """
    measured = [each for each in contents.benefits if model is None or each.model == model]
    if not measured:
        checked = [each.model for each in contents.benefits]
        raise AutoMixError(
            f"There is no benefit to plot of {model or 'any model'}: the log has checks of the "
            f"answers of {checked or 'no model'}."
        )
    first = measured[0]
    figure, axes = new_figure()
    _draw_curve(axes, (first.model, first.larger), first.groups, first.curve, first.price)
    axes.legend(frameon=False)
    return figure


def plot_reliability(contents: Contents) -> Figure:
    """Draw the true quality of answers against the stated confidence in them.

    Args:
        contents: The contents of a report.

    Raises:
        AutoMixError: matplotlib is not installed, or the log contains no confidence.
    """
    if not contents.reliabilities:
        raise AutoMixError("No answer in the log has a confidence, so there is none to plot.")
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="a true probability")
    styles = ((BLUE, "o"), (RED, "s"), (GREEN, "^"), (YELLOW, "D"), ("black", "v"))
    for (color, marker), each in zip(itertools.cycle(styles), contents.reliabilities, strict=False):
        bars = [_bars(group.actual, group.interval) or [[0.0], [0.0]] for group in each.groups]
        axes.errorbar(
            [group.stated for group in each.groups],
            [group.actual for group in each.groups],
            yerr=[[bar[side][0] for bar in bars] for side in (0, 1)],
            fmt=f"{marker}-",
            color=color,
            label=f"{literal(each.name)} (ECE {each.ece:.2f})",
        )
    axes.set_xlabel("stated confidence (0 to 1)")
    axes.set_ylabel("mean quality of the answers (0 to 1)")
    axes.legend(frameon=False)
    return figure


def plot_cost_split(contents: Contents) -> Figure:
    """Draw the cost of each model's answers and checks.

    Args:
        contents: The contents of a report.

    Raises:
        AutoMixError: matplotlib is not installed.
    """
    figure, axes = new_figure()
    costs = {(part.part, part.model): part.cost for part in contents.cost_split}
    positions = list(range(len(contents.models)))
    answers = [costs.get(("answers", model), 0.0) for model in contents.models]
    checks = [costs.get(("checks", model), 0.0) for model in contents.models]
    axes.bar(positions, answers, color=BLUE, label="answers")
    axes.bar(positions, checks, bottom=answers, color=YELLOW, hatch="//", label="checks")
    axes.set_xticks(positions, [literal(model) for model in contents.models])
    axes.tick_params(axis="x", rotation=20 if len(positions) > 2 else 0)  # noqa: PLR2004
    axes.set_ylabel(f"mean cost of a query{_unit(contents)}")
    axes.legend(frameon=False)
    return figure


def new_figure() -> tuple[Figure, Axes]:
    """Return an empty figure and its axes, without a window or global state."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise AutoMixError(
            f"Plots need matplotlib, which is not installed: {install_hint('plots')}"
        ) from error
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    return figure, figure.add_subplot()


def _line(axes: Axes, points: Sequence[Point], *, color: str, linestyle: str, label: str) -> None:
    costs, qualities = [point.cost for point in points], [point.quality for point in points]
    axes.plot(costs, qualities, color=color, linestyle=linestyle, marker=".", label=label)


def _bars(middle: float, interval: Interval | None) -> list[list[float]] | None:
    if interval is None:
        return None
    return [[max(middle - interval[0], 0.0)], [max(interval[1] - middle, 0.0)]]


def _unit(contents: Contents) -> str:
    return f" ({literal(contents.currency)})" if contents.currency else ""


def literal(text: str) -> str:
    """Escape what matplotlib would read as mathematics."""
    return text.replace("$", r"\$")
