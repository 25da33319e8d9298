"""Plots of a policy: what a check says about the benefit, and what money buys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.columns import Columns, columns_of
from langchain_automix.policy.fit import policy_frontier
from langchain_automix.policy.learning import complete
from langchain_automix.policy.log import RoutingLog
from langchain_automix.policy.plan import Policy, Table
from langchain_automix.policy.replaying import replay_plan
from langchain_automix.policy.rules import confidences

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot(policy: Policy, log: RoutingLog | None, *, kind: str = "benefit") -> Any:
    """Return a matplotlib figure; see `POMDPRouter.plot`."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise AutoMixError(
            "Plots need matplotlib: pip install 'langchain-automix[plots]'."
        ) from error
    if kind not in ("benefit", "frontier"):
        raise AutoMixError(f"There is no plot {kind!r}: ask for 'benefit' or 'frontier'.")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    columns = None if log is None else complete(columns_of(log))
    if kind == "benefit":
        _benefit(policy, columns, axes)
    elif columns is None:
        raise AutoMixError("The frontier is drawn from a routing log: give one.")
    else:
        _frontier(policy, columns, axes)
    return figure


def _benefit(policy: Policy, columns: Columns | None, axes: Axes) -> None:
    plan = next((plan for plan in policy.plans if plan.tables), None)
    if plan is None:
        raise AutoMixError("This policy checks no answer, so there is no benefit curve to plot.")
    table, large = plan.tables[0], plan.plays[-1]
    if columns is not None:
        known = confidences(columns, table.model)
        benefit = columns.quality[:, large] - columns.quality[:, table.model]
        order = np.argsort(known)
        for group in np.array_split(order, min(12, len(order))):
            mean, error = benefit[group].mean(), benefit[group].std() / np.sqrt(len(group))
            axes.errorbar(known[group].mean(), mean, error, fmt="o", color="0.6")
    points = sorted(_curve(table, plan.plays.index(table.model)))
    axes.plot(*zip(*points, strict=True), color="C0", label="expected benefit")
    price = policy.cost_weight * (policy.fit.cost[large] if policy.fit.cost else 0.0)
    axes.axhline(price, color="C3", linestyle="--", label=f"price of {policy.models[large]}")
    axes.set_xlabel(f"confidence in the answer of {policy.models[table.model]}")
    axes.set_ylabel(f"quality of {policy.models[large]} minus this answer's")
    axes.legend(frameon=False)


def _curve(table: Table, here: int) -> list[tuple[float, float]]:
    """Return (confidence, expected benefit) of the fullest findings of a table."""
    most = max(sum(row.seen) for row in table.rows)
    points = []
    for row in table.rows:
        if not row.quality:
            raise AutoMixError("This rule holds no belief, so there is no benefit curve to plot.")
        benefit = row.quality[-1] - row.quality[here]
        if table.kind == "score":
            ends = (0.0, *table.edges, 1.0)
            points.append(((ends[row.seen[0]] + ends[row.seen[0] + 1]) / 2, benefit))
        elif sum(row.seen) == most and not row.seen[2]:
            points.append((row.seen[0] / most, benefit))
    return points


def _frontier(policy: Policy, columns: Columns, axes: Axes) -> None:
    for j, name in enumerate(columns.models):
        axes.plot(columns.cost[:, j].mean(), columns.quality[:, j].mean(), "s", color="0.4")
        place = (columns.cost[:, j].mean(), columns.quality[:, j].mean())
        axes.annotate(name, place, textcoords="offset points", xytext=(5, -10))
    plans = policy_frontier(columns)
    points = [(o.cost.mean(), o.quality.mean()) for o in (replay_plan(p, columns) for p in plans)]
    axes.plot(*zip(*sorted(points), strict=True), "-", color="C0", label="frontier on this log")
    shares = (policy.first_share, 1 - policy.first_share)
    outcomes = [replay_plan(plan, columns) for plan in policy.plans]
    cost = sum(s * o.cost.mean() for s, o in zip(shares, outcomes, strict=False))
    quality = sum(s * o.quality.mean() for s, o in zip(shares, outcomes, strict=False))
    axes.plot(cost, quality, "*", markersize=14, color="C3", label="this policy")
    axes.set_xlabel("mean cost of a query")
    axes.set_ylabel("mean quality")
    axes.legend(frameon=False)
