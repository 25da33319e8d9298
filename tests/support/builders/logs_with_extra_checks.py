"""Routing logs with several checks of an answer, of which it is known which are worth buying."""

from __future__ import annotations

import random
from typing import Any

from langchain_automix import RoutingLog


def _near(draw: random.Random, good: bool, gap: float, noise: float) -> float:
    return min(1.0, max(0.0, 0.5 + gap * (good - 0.5) + draw.gauss(0, noise)))


def several(
    n: int,
    seed: int = 1,
    *,
    prices: tuple[float, float] = (0.0, 2.0),
    lost: float = 0.0,
    of_last: bool = False,
) -> RoutingLog:
    """Verdicts that tell something, a weak `logprob` for nothing, and a `judge` that is dear.

    Args:
        n: Number of queries.
        seed: Of what is drawn.
        prices: Of `logprob` and of `judge`.
        lost: Chance that a further check of an answer is missing.
        of_last: Whether the large model's answers have a `logprob`, too, for nothing; then it is
            hardly better than the small one, and the judge is dear beyond use.
    """
    draw = random.Random(seed)
    prices = (prices[0], 20.0) if of_last else prices
    return RoutingLog(_query(draw, i, prices, lost, of_last) for i in range(n))


def _query(
    draw: random.Random, i: int, prices: tuple[float, float], lost: float, of_last: bool
) -> dict[str, Any]:
    good = draw.random() < 0.55
    better = draw.random() < (0.6 if of_last else 0.85)
    verdicts = [draw.random() < (0.75 if good else 0.4) for _ in range(8)]
    checks = {
        "logprob": {"score": _near(draw, good, 0.3, 0.2), "cost": prices[0]},
        "judge": {"score": _near(draw, good, 0.8, 0.25), "cost": prices[1]},
    }
    small = {
        "model": "small",
        "quality": float(good),
        "cost": 1.0,
        "verification": {"verdicts": verdicts, "fixed_cost": 0.05, "sample_cost": 0.05},
        "checks": {name: found for name, found in checks.items() if draw.random() >= lost},
    }
    large: dict[str, Any] = {"model": "large", "quality": float(better), "cost": 10.0}
    if of_last:
        large["checks"] = {"logprob": {"score": _near(draw, better, 0.7, 0.2), "cost": 0.0}}
    return {"id": str(i), "answers": [small, large]}
