"""Made-up traffic of two models, whose check says how likely the small one is right."""

from __future__ import annotations

import numpy as np

from langchain_automix.learning.observations import Observations
from langchain_automix.policy.data.arrays import LogArrays


def traffic(
    n: int,
    seed: int = 0,
    *,
    share: float = 1.0,
    told: float = 4.0,
    right: float = 0.0,
    large: float = 0.95,
    seen: bool = True,
    start: int = 0,
) -> Observations:
    """Return n queries of which a share is complete, as a shadow makes them.

    Args:
        n: Queries.
        seed: For all that is random.
        share: Chance of a shadow.
        told: How much the score says of the small model's quality; 0: nothing.
        right: Log odds that the small model is right, on average.
        large: Chance that the large model is right.
        seen: Whether what was not shadowed has its evidence (the small model was asked).
        start: When the first query ended.
    """
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=n)
    score = 1 / (1 + np.exp(-told * (hidden - 0.2 * rng.normal(size=n))))
    small = (rng.random(n) < 1 / (1 + np.exp(-(right + 3 * hidden)))).astype(float)
    quality = np.stack([small, (rng.random(n) < large).astype(float)], axis=1)
    if not told:
        score = rng.random(n)
    cost = np.stack([np.full(n, 0.0001), np.full(n, 0.0025)], axis=1)
    drawn = rng.random(n) < share
    known = np.stack([drawn | seen, drawn | (not seen)], axis=1)
    nothing = np.full((n, 2), np.nan)
    columns = LogArrays(
        ("small", "large"),
        quality=np.where(drawn[:, None], quality, np.nan),
        cost=np.where(known, cost, np.nan),
        verdicts=np.empty((n, 2, 0), dtype=np.int8),
        score=np.stack([np.where(known[:, 0], score, np.nan), nothing[:, 1]], axis=1),
        fixed_cost=np.zeros((n, 2)),
        sample_cost=np.zeros((n, 2)),
        weight=np.ones(n),
    )
    return Observations(
        columns,
        tuple(f"q{start + i}" for i in range(n)),
        np.arange(start + 1, start + n + 1, dtype=np.float64),
        np.full(n, share),
        np.zeros(n, dtype=bool),
        np.tile([seen, not seen], (n, 1)),
    )
