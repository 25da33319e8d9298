"""Routing logs made to order: worlds of which the best policy is known."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from langchain_automix import RoutingLog
from langchain_automix.policy.data.arrays import LogArrays


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


def world(
    n: int, seed: int = 1, k: int = 8, sample_cost: float = 0.0, fixed_cost: float = 0.0
) -> RoutingLog:
    """Half the answers are right; right ones are accepted at 0.8, wrong ones at 0.3."""
    draw = random.Random(seed)
    queries = []
    for i in range(n):
        right = draw.random() < 0.5
        rate = 0.8 if right else 0.3
        verdicts: list[bool | None] = [draw.random() < rate for _ in range(k)]
        found = query(i, float(right), float(right or draw.random() < 0.8), verdicts)
        found["answers"][0]["verification"] |= {
            "sample_cost": sample_cost,
            "fixed_cost": fixed_cost,
        }
        queries.append(found)
    return RoutingLog(queries)


def logistic(x: Any, middle: Any, steep: float) -> Any:
    return 1 / (1 + np.exp(-steep * (x - middle)))


# From a hidden ease in [0, 1]: chances that small and large are right, and that a verdict accepts.
WORLDS: dict[str, Callable[[Any], tuple[Any, Any, Any]]] = {
    "monotone": lambda u: (logistic(u, 0.5, 8), 0.9 + 0 * u, 0.1 + 0.8 * u),
    "peaked": lambda u: (logistic(u, 0.7, 12), logistic(u, 0.35, 20) * 0.95, 0.05 + 0.9 * u),
    "inverted": lambda u: (logistic(u, 0.5, 8), 0.9 + 0 * u, 0.9 - 0.8 * u),
    "lenient": lambda u: (logistic(u, 0.5, 8), 0.9 + 0 * u, 0.6 + 0.38 * u),
    "chance": lambda u: (logistic(u, 0.5, 8), 0.9 + 0 * u, 0.6 + 0 * u),
}


def scored(name: str, n: int, seed: int, price: float = 0.2) -> LogArrays:
    """Draw from one of `WORLDS`; the check is a noisy score of the small model's answer."""
    rng = np.random.default_rng(seed)
    ease = rng.random(n)
    chances = WORLDS[name](ease)
    quality = np.stack([rng.random(n) < c for c in chances[:2]], axis=1) * 1.0
    score = np.full((n, 2), np.nan)
    score[:, 0] = np.clip(chances[2] + rng.normal(0, 0.15, n), 0, 1)
    zeros = np.zeros((n, 2))
    cost = np.tile([1.0, 10.0], (n, 1))
    none = np.empty((n, 2, 0), dtype=np.int8)
    return LogArrays(
        ("small", "large"), quality, cost, none, score, zeros + price, zeros, np.ones(n)
    )


def unchecked(chances: tuple[float, ...], n: int, seed: int) -> LogArrays:
    """Models that are right with these chances, each ten times as dear as the one before."""
    rng = np.random.default_rng(seed)
    shape = (n, len(chances))
    unknown = np.full(shape, np.nan)
    names = tuple(f"model{j}" for j in range(len(chances)))
    cost = np.tile(10.0 ** np.arange(len(chances)), (n, 1))
    none = np.empty((*shape, 0), dtype=np.int8)
    quality = (rng.random(shape) < chances) * 1.0
    return LogArrays(names, quality, cost, none, unknown, 0 * cost, 0 * cost, np.ones(n))


def ladder(n: int, seed: int, models: int = 4, step: float = 3.0) -> LogArrays:
    """Models of rising quality, each `step` times as dear; free scores of all but the last."""
    rng = np.random.default_rng(seed)
    ease, names = rng.random(n), tuple(f"model{j}" for j in range(models))
    middles = np.linspace(0.7, 0.1, models)
    chances = logistic(ease[:, None], middles, 9.0) * 0.95
    quality = (rng.random((n, models)) < chances) * 1.0
    score = np.clip(0.3 + 0.4 * quality + rng.normal(0, 0.2, (n, models)), 0, 1)
    score[:, -1] = np.nan
    cost = np.tile(step ** np.arange(models), (n, 1))
    none = np.empty((n, models, 0), dtype=np.int8)
    return LogArrays(names, quality, cost, none, score, 0 * cost, 0 * cost, np.ones(n))
