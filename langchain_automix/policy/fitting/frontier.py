"""The concave hull of cost and quality."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.ties import TIE, exceeds


@dataclass(frozen=True)
class FrontierPoint:
    """Mean cost and expected quality of one plan, and the cost weight it was solved for."""

    cost: float
    quality: float
    plan: Plan
    weight: float


def frontier(points: list[FrontierPoint]) -> list[FrontierPoint]:
    """Return the upper concave hull of (cost, quality), up to the best quality.

    Of points that are tied in both, the first is kept.
    """
    hull: list[FrontierPoint] = []
    for point in sorted(points, key=lambda p: p.cost):
        if hull and not exceeds(point.quality, hull[-1].quality):
            continue
        while hull and point.cost <= hull[-1].cost * (1 + TIE):
            hull.pop()
        while len(hull) > 1 and _is_below(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _is_below(left: FrontierPoint, middle: FrontierPoint, right: FrontierPoint) -> bool:
    rise = (middle.quality - left.quality) * (right.cost - left.cost)
    return rise <= (right.quality - left.quality) * (middle.cost - left.cost)
