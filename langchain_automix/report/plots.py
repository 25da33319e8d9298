"""A report's pictures, as matplotlib figures; needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.benefit import believed_benefit, benefit_groups, checking_plan
from langchain_automix.policy.data.arrays import LogArrays, to_arrays
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.candidates import complete
from langchain_automix.policy.fitting.fit import policy_frontier
from langchain_automix.policy.replay import replay_plan
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


BLUE, RED, GREY = "#0072B2", "#D55E00", "0.55"
"""Of Okabe and Ito's palette, which readers who are blind to some colours can tell apart."""


class BenefitGroup(Protocol):
    """Answers of about the same confidence (see `langchain_automix.policy.benefit`)."""

    @property
    def confidence(self) -> float:
        """Mean confidence."""

    @property
    def benefit(self) -> float:
        """Mean benefit."""

    @property
    def error(self) -> float:
        """Its standard error."""


def new_figure() -> tuple[Figure, Axes]:
    """Return an empty figure, of no window and no global state, and its axes.

    Raises:
        AutoMixError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise AutoMixError(
            "Plots need matplotlib: pip install 'langchain-automix[plots]'."
        ) from error
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    return figure, figure.add_subplot()


def plot(policy: Policy, log: RoutingLog | None, *, kind: str = "benefit") -> Any:
    """Return a matplotlib figure; see `POMDPRouter.plot`."""
    if kind not in ("benefit", "frontier"):
        raise AutoMixError(f"There is no plot {kind!r}: ask for 'benefit' or 'frontier'.")
    figure, axes = new_figure()
    columns = None if log is None else complete(to_arrays(log))
    if kind == "benefit":
        _benefit(policy, columns, axes)
    elif columns is None:
        raise AutoMixError("The frontier is drawn from a routing log: give one.")
    else:
        _frontier(policy, columns, axes)
    return figure


def _benefit(policy: Policy, columns: LogArrays | None, axes: Axes) -> None:
    found = checking_plan(policy)
    if found is None:
        raise AutoMixError("This policy checks no answer, so there is no benefit curve to plot.")
    plan, table = found
    large = plan.plays[-1]
    names = [reading.name for reading in table.checks]
    check = names[0] if names and None not in names else None
    curve = believed_benefit(table, plan.plays.index(table.model), check)
    if not curve:
        raise AutoMixError("This rule holds no belief, so there is no benefit curve to plot.")
    draw_benefit(
        axes,
        (policy.models[table.model], policy.models[large]),
        () if columns is None else benefit_groups(columns.alone(check), table.model, large),
        curve,
        policy.cost_weight * (policy.fit.cost[large] if policy.fit.cost else 0.0),
    )


def draw_benefit(
    axes: Axes,
    models: tuple[str, str],
    groups: Iterable[BenefitGroup],
    curve: Sequence[tuple[float, float]],
    price: float,
) -> None:
    """Draw what asking a larger model gains, against the confidence in a smaller one's answer.

    Args:
        axes: Where to draw.
        models: The smaller one and the larger one.
        groups: The data, with bars of one standard error; none if there are none.
        curve: (confidence, benefit) as the policy believes it; may be empty.
        price: What the larger model costs, in quality.
    """
    for group in groups:
        axes.errorbar(group.confidence, group.benefit, group.error, fmt="o", color=GREY)
    if curve:
        axes.plot(*zip(*curve, strict=True), color=BLUE, label="expected benefit")
    axes.axhline(price, color=RED, linestyle="--", label=f"price of {models[1]}")
    axes.set_xlabel(f"confidence in the answer of {models[0]}")
    axes.set_ylabel(f"quality of {models[1]} minus this answer's")
    axes.legend(frameon=False)


def _frontier(policy: Policy, columns: LogArrays, axes: Axes) -> None:
    for j, name in enumerate(columns.models):
        axes.plot(columns.cost[:, j].mean(), columns.quality[:, j].mean(), "s", color=GREY)
        place = (columns.cost[:, j].mean(), columns.quality[:, j].mean())
        axes.annotate(name, place, textcoords="offset points", xytext=(5, -10))
    plans = policy_frontier(columns)
    points = [(o.cost.mean(), o.quality.mean()) for o in (replay_plan(p, columns) for p in plans)]
    axes.plot(*zip(*sorted(points), strict=True), "-", color=BLUE, label="frontier on this log")
    shares = (policy.first_share, 1 - policy.first_share)
    outcomes = [replay_plan(plan, columns) for plan in policy.plans]
    cost = sum(s * o.cost.mean() for s, o in zip(shares, outcomes, strict=False))
    quality = sum(s * o.quality.mean() for s, o in zip(shares, outcomes, strict=False))
    axes.plot(cost, quality, "*", markersize=14, color=RED, label="this policy")
    axes.set_xlabel("mean cost of a query")
    axes.set_ylabel("mean quality")
    axes.legend(frameon=False)
