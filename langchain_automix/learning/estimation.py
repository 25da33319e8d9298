"""What a change of the policy is worth, from traffic of which only a part was seen in full.

A query whose models were all asked says what either policy would have made of it. Of the others
only a random share is seen, with a chance that was set beforehand. The mean over all queries is
estimated doubly robustly, and bounded below by betting: the bound holds at all numbers of queries
at once, so it may be looked at after each of them, and acted upon at any time.
"""

from __future__ import annotations

import math

import numpy as np

from langchain_automix.policy.data.arrays import Floats, Mask

_STAKES = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.95])
"""Shares of the capital that are staked, as shares of the most that can be lost."""

_PRECISION = 1e-4
"""How closely a bound is found, as a share of the range that is searched."""


def doubly_robust(values: Floats, seen: Mask, chance: Floats, lowest: float) -> Floats:
    """Return one term a query whose mean is that of the values, though only some were seen.

    The term is the guess plus (value - guess) / chance where the value was seen, and the guess
    alone where it was not (augmented inverse propensity weighting: Robins, Rotnitzky and Zhao,
    1994, equation 3). The guess is the mean of the terms before it, so it depends on nothing that
    comes after; it is kept in [lowest, 0], which keeps every term above lowest / chance.

    Args:
        values: (n,) in the order of the queries; anything where it was not seen.
        seen: (n,): whether the value is known.
        chance: (n,) in (0, 1]: how likely it was to become known, set before the query.
        lowest: The least that a value can be, below 0.
    """
    known = np.where(seen, values, 0.0)
    weight = np.where(seen, 1 / chance, 0.0)
    total = np.concatenate([[0.0], np.cumsum(weight * known)[:-1]])
    counted = np.concatenate([[0.0], np.cumsum(weight)[:-1]])
    # One query that makes no difference is counted before any was seen.
    guess = np.clip(total / (counted + 1), lowest, 0.0)
    terms: Floats = guess + weight * (known - guess) * seen
    return terms


def log_capital(terms: Floats, mean: float, lowest: Floats) -> float:
    """Return the log of the most that bets against a small mean have ever grown to.

    The bettor starts with 1 and stakes a fixed share on each query that its term is above the
    mean; the capital is averaged over several shares. If the mean of the terms is at most `mean`,
    the capital is a supermartingale, and the chance that it ever reaches 1 / alpha is at most
    alpha (Ville's inequality; Waudby-Smith and Ramdas, 2024, section 4.4, with a grid of bets as
    in their appendix; for off-policy terms Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro,
    2022).

    Args:
        terms: (n,) in the order of the queries.
        mean: What is bet against.
        lowest: (n,): the least that each term can be, known before it.
    """
    if not len(terms):
        return 0.0
    stakes = _STAKES[:, None] / (mean - lowest)
    growth = np.cumsum(np.log1p(stakes * (terms - mean)), axis=1)
    highest = growth.max(axis=0)
    mixed = highest + np.log(np.exp(growth - highest).mean(axis=0))
    return max(0.0, float(mixed.max()))


def lower_bound(terms: Floats, lowest: Floats, alpha: float) -> float:
    """Return a bound that the mean of the terms is never below, but with chance alpha.

    Args:
        terms: (n,) in the order of the queries.
        lowest: (n,): the least that each term can be, below 0.
        alpha: In (0, 1): the chance that the bound is ever wrong, over all n.

    Returns:
        -infinity while nothing is shown.
    """
    if not len(terms):
        return -math.inf
    needed = math.log(1 / alpha)
    low, high = float(lowest.max()) * (1 - 1e-9), float(terms.max())
    if high <= low or log_capital(terms, low, lowest) < needed:
        return -math.inf
    step = _PRECISION * (high - low)
    while high - low > step:
        middle = (low + high) / 2
        if log_capital(terms, middle, lowest) >= needed:
            low = middle
        else:
            high = middle
    return low


def queries_needed(terms: Floats, mean: float, lowest: Floats, alpha: float) -> float:
    """Return about how many queries like these show that the mean of their terms is above another.

    The capital of the best stake grows by a constant rate; of the average over all stakes, it is
    one part.

    Args:
        terms: (n,) in the order of the queries.
        mean: What is bet against.
        lowest: (n,): the least that each term can be, known before it.
        alpha: In (0, 1): the chance of an error that is allowed.

    Returns:
        infinity where queries like these never show it.
    """
    if not len(terms):
        return math.inf
    stakes = _STAKES[:, None] / (mean - lowest)
    rate = float(np.log1p(stakes * (terms - mean)).mean(axis=1).max())
    return math.log(len(_STAKES) / alpha) / rate if rate > 0 else math.inf


def effective_size(weight: Floats) -> float:
    """Return how many queries of equal weight say as much (Kish, 1965): (sum w)^2 / sum w^2."""
    return float(weight.sum() ** 2 / max(float((weight**2).sum()), 1e-300))
