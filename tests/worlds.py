"""Routing logs made to order: worlds of which the best policy is known."""

from __future__ import annotations

import random
from typing import Any

from langchain_automix import RoutingLog


def query(
    id: int, small: float, large: float, verdicts: list[bool | None] | float, cost: float = 10.0
) -> dict[str, Any]:
    check = {"score": verdicts} if isinstance(verdicts, float) else {"verdicts": verdicts}
    return {
        "id": str(id),
        "answers": [
            {"model": "small", "quality": small, "cost": 1.0, "verification": check},
            {"model": "large", "quality": large, "cost": cost},
        ],
    }


def world(n: int, seed: int = 1, k: int = 8, sample_cost: float = 0.0) -> RoutingLog:
    """Half the answers are right; right ones are accepted at 0.8, wrong ones at 0.3."""
    draw = random.Random(seed)
    queries = []
    for i in range(n):
        right = draw.random() < 0.5
        rate = 0.8 if right else 0.3
        verdicts: list[bool | None] = [draw.random() < rate for _ in range(k)]
        found = query(i, float(right), float(right or draw.random() < 0.8), verdicts)
        found["answers"][0]["verification"]["sample_cost"] = sample_cost
        queries.append(found)
    return RoutingLog(queries)
