"""Plots of a policy: what a check says about the benefit, and what money buys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.columns import Columns, columns_of
from langchain_automix.policy.curves import believed_benefit, benefit_groups, checking_plan
from langchain_automix.policy.fit import policy_frontier
from langchain_automix.policy.learning import complete
from langchain_automix.policy.log import RoutingLog
from langchain_automix.policy.plan import Policy
from langchain_automix.policy.replaying import replay_plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BLUE, RED, GREY = "#0072B2", "#D55E00", "0.55"
"""Of Okabe and Ito's palette, which readers who are blind to some colours can tell apart."""


class BenefitGroup(Protocol):
    """Some answers of about the same confidence, as `langchain_automix.policy.curves.Group`."""

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
    columns = None if log is None else complete(columns_of(log))
    if kind == "benefit":
        _benefit(policy, columns, axes)
    elif columns is None:
        raise AutoMixError("The frontier is drawn from a routing log: give one.")
    else:
        _frontier(policy, columns, axes)
    return figure


def _benefit(policy: Policy, columns: Columns | None, axes: Axes) -> None:
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


def _frontier(policy: Policy, columns: Columns, axes: Axes) -> None:
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
