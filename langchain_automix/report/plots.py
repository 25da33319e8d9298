"""Draw a policy with matplotlib; needs the extra `plots`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.benefit import believed_benefit, benefit_groups, checking_plan
from langchain_automix.policy.data.arrays import LogArrays, to_arrays
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.candidates import complete
from langchain_automix.policy.fitting.fit import policy_frontier
from langchain_automix.policy.replay import Outcomes, replay_plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _RED, _GREY = "#0072B2", "#D55E00", "0.55"
"""From Okabe and Ito's palette, which colour-blind readers can tell apart."""


def plot(policy: Policy, log: RoutingLog | None, *, kind: str = "benefit") -> Any:
    """Return a matplotlib figure; see `POMDPRouter.plot`."""
    if kind not in ("benefit", "frontier"):
        raise AutoMixError(f"There is no plot {kind!r}: ask for 'benefit' or 'frontier'.")
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise AutoMixError(
            "Plots need matplotlib: pip install 'langchain-automix[plots]'."
        ) from error
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")  # of no window and no global state
    axes = figure.add_subplot()
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
    """Draw what asking a larger model gains, by the confidence in a smaller one's answer.

    The data have bars of one standard error.
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
    for group in groups:
        axes.errorbar(group.confidence, group.benefit, group.error, fmt="o", color=_GREY)
    axes.plot(*zip(*curve, strict=True), color=_BLUE, label="expected benefit")
    price = policy.cost_weight * (policy.fit.cost[large] if policy.fit.cost else 0.0)
    small_name, large_name = _literal(policy.models[table.model]), _literal(policy.models[large])
    axes.axhline(price, color=_RED, linestyle="--", label=f"price of {large_name}")
    axes.set_xlabel(f"confidence in the answer of {small_name}")
    axes.set_ylabel(f"quality of {large_name} minus this answer's")


def _draw_frontier(axes: Axes, policy: Policy, data: LogArrays) -> None:
    """Draw cost and quality of each model, of the policies on offer, and of this one."""
    for j, name in enumerate(data.models):
        point = (data.cost[:, j].mean(), data.quality[:, j].mean())
        axes.plot(*point, "s", color=_GREY)
        axes.annotate(_literal(name), point, textcoords="offset points", xytext=(5, -10))
    points = sorted(_means(replay_plan(plan, data)) for plan in policy_frontier(data))
    axes.plot(*zip(*points, strict=True), "-", color=_BLUE, label="frontier on this log")
    shares = (policy.first_share, 1 - policy.first_share)
    means = [_means(replay_plan(plan, data)) for plan in policy.plans]
    cost, quality = (
        sum(share * mean[axis] for share, mean in zip(shares, means, strict=False))
        for axis in (0, 1)
    )
    axes.plot(cost, quality, "*", markersize=14, color=_RED, label="this policy")
    axes.set_xlabel("mean cost of a query")
    axes.set_ylabel("mean quality")


def _means(outcomes: Outcomes) -> tuple[float, float]:
    return float(outcomes.cost.mean()), float(outcomes.quality.mean())


def _literal(text: str) -> str:
    """Escape what matplotlib would take for mathematics."""
    return text.replace("$", r"\$")
