"""The routing log as numbers: one row a query, one column a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.log import RoutingLog
from langchain_automix.policy.store import Store

# The names say the dtype to the reader; numpy's own functions lose it for the type checker.
Floats = NDArray[Any]
Ints = NDArray[Any]
Mask = NDArray[Any]

ACCEPT, REJECT, INVALID, NOT_DRAWN = 1, 0, -1, -2

_PER_QUERY = ("quality", "cost", "verdicts", "score", "fixed_cost", "sample_cost", "weight")


@dataclass(frozen=True)
class Columns:
    """A routing log in arrays; n queries, m models, k the most verdicts on one answer.

    An unknown quality or cost is NaN. Costs are in the log's currency, qualities in [0, 1].
    """

    models: tuple[str, ...]
    quality: Floats
    """(n, m): how good each answer is."""

    cost: Floats
    """(n, m): what each answer cost."""

    verdicts: NDArray[np.int8]
    """(n, m, k): ACCEPT, REJECT, INVALID or NOT_DRAWN, in the order drawn."""

    score: Floats
    """(n, m): score of a continuous check, NaN where there is none."""

    fixed_cost: Floats
    """(n, m): cost of a check, whatever the number of its verdicts."""

    sample_cost: Floats
    """(n, m): cost of a verdict."""

    weight: Floats
    """(n,): how much each query counts; 1 unless a prior weighs them."""

    def __len__(self) -> int:
        return len(self.quality)

    def rows(self, index: Mask | Ints) -> Columns:
        """Return these queries only."""
        return replace(
            self,
            **{name: getattr(self, name)[index] for name in _PER_QUERY},
        )

    def only(self, models: Sequence[int]) -> Columns:
        """Return these models only, by their indices, ascending."""
        chosen = list(models)
        per_model = [name for name in _PER_QUERY if name != "weight"]
        return replace(
            self,
            models=tuple(self.models[j] for j in chosen),
            **{name: getattr(self, name)[:, chosen] for name in per_model},
        )

    @property
    def complete(self) -> Mask:
        """(n,): whether the quality and the cost of every model are known."""
        unknown: Mask = np.isnan(self.quality) | np.isnan(self.cost)
        return np.logical_not(unknown.any(axis=1))

    def checked(self, model: int) -> Mask:
        """Return, for each query, whether the model's answer was checked."""
        drawn: Mask = (self.verdicts[:, model] != NOT_DRAWN).any(axis=1)
        return drawn | ~np.isnan(self.score[:, model])

    def is_score(self, model: int) -> bool:
        """Whether the checks of this model's answers are scores.

        Raises:
            AutoMixError: Some are scores and some are verdicts.
        """
        scored = ~np.isnan(self.score[:, model])
        if scored.any() and (self.checked(model) & ~scored).any():
            raise AutoMixError(
                f"The routing log mixes checks with verdicts and checks with a score on the "
                f"answers of {self.models[model]}: keep one kind for each model."
            )
        return bool(scored.any())

    def counts(self, model: int) -> Ints:
        """Return the (accepts, rejects, invalid) of each query, shape (n, 3)."""
        verdicts = self.verdicts[:, model]
        kinds = (ACCEPT, REJECT, INVALID)
        return np.stack([(verdicts == kind).sum(axis=1) for kind in kinds], axis=1)

    def mean(self, values: Floats) -> Floats:
        """Return the weighted means of columns."""
        means: Floats = self.weight @ values / self.weight.sum()
        return means


def columns_of(log: RoutingLog, weights: Sequence[float] | None = None) -> Columns:
    """Return a routing log as arrays.

    Args:
        log: The log.
        weights: How much each query counts, at least 0: a prior over the logged queries, for
            instance their likeness to the traffic that is expected. None: all the same.

    Raises:
        AutoMixError: The weights are not one number of at least 0 for each query.
    """
    store = log.store
    n, m = len(log), len(log.models)
    numbers = {
        name: np.frombuffer(getattr(store, name), dtype=np.float64).reshape(n, m)
        if n
        else np.empty((n, m))
        for name in ("quality", "cost", "score", "fixed_cost", "sample_cost")
    }
    # An unknown price of a check with a score counts as nothing.
    fixed = np.nan_to_num(numbers.pop("fixed_cost"))
    return Columns(
        log.models,
        verdicts=_verdicts(store, n, m),
        weight=_weights(weights, n),
        fixed_cost=fixed,
        **numbers,
    )


def _verdicts(store: Store, n: int, m: int) -> NDArray[np.int8]:
    """Lay the verdicts of all answers side by side."""
    ends = np.array(store.ends, dtype=np.int64)
    lengths = np.diff(ends, prepend=0)
    table = np.full((n * m, int(lengths.max(initial=0))), NOT_DRAWN, dtype=np.int8)
    codes = np.array([REJECT, ACCEPT, INVALID], dtype=np.int8)
    drawn = np.arange(table.shape[1]) < lengths[:, None]
    table[drawn] = codes[np.frombuffer(bytes(store.verdicts), dtype=np.uint8)]
    return table.reshape(n, m, -1) if n else table.reshape(0, m, 0)


def _weights(weights: Sequence[float] | None, n: int) -> Floats:
    if weights is None:
        return np.ones(n)
    found = np.asarray(weights, dtype=np.float64)
    if found.shape != (n,) or not np.isfinite(found).all() or (found < 0).any() or not found.any():
        raise AutoMixError(
            f"The prior weights must be {n} numbers of at least 0, one for each query of the "
            "log, not all of them 0."
        )
    scaled: Floats = found * (n / found.sum())
    return scaled
