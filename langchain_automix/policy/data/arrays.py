"""The routing log as numbers: one row a query, one column a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.columns import SCORE, CheckColumns
from langchain_automix.policy.data.log import RoutingLog

# The names say the dtype to the reader; numpy's own functions lose it for the type checker.
Floats = NDArray[Any]
Ints = NDArray[Any]
Mask = NDArray[Any]

ACCEPT, REJECT, INVALID, NOT_DRAWN = 1, 0, -1, -2

_OF_A_CHECK = ("verdicts", "score", "fixed_cost", "sample_cost")
_PER_MODEL = ("quality", "cost", *_OF_A_CHECK)


@dataclass(frozen=True)
class CheckArrays:
    """What one further check found on the answers of each query, in arrays as in `LogArrays`."""

    verdicts: NDArray[np.int8]
    score: Floats
    fixed_cost: Floats
    sample_cost: Floats

    def at(self, *index: Any) -> CheckArrays:
        """Return a part: of the queries, or of the queries and the models."""
        return CheckArrays(*(getattr(self, name)[index] for name in _OF_A_CHECK))


@dataclass(frozen=True)
class LogArrays:
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
    """(n, m): cost of a check, regardless of the number of its verdicts."""

    sample_cost: Floats
    """(n, m): cost of a verdict."""

    weight: Floats
    """(n,): how much each query counts; 1 unless a prior weighs them."""

    checks: Mapping[str, CheckArrays] = field(default_factory=dict)
    """Further checks by name; the fields above are those of the first."""

    notes: tuple[str, ...] = ()
    """Assumptions made where the log is incomplete, one sentence each."""

    def __len__(self) -> int:
        return len(self.quality)

    def rows(self, index: Mask | Ints) -> LogArrays:
        """Return these queries only."""
        if index.dtype == np.bool_ and index.all():
            return self
        return replace(
            self,
            **{name: getattr(self, name)[index] for name in (*_PER_MODEL, "weight")},
            checks={name: check.at(index) for name, check in self.checks.items()},
        )

    @property
    def canonical(self) -> LogArrays:
        """The same queries in an order that depends on what is recorded of each, and on no more."""
        n = len(self)
        numbers = [self.weight, self.quality, self.cost, *(self._of_checks("score"))]
        numbers += [*self._of_checks("fixed_cost"), *self._of_checks("sample_cost")]
        keys = [key for column in numbers for key in column.reshape(n, -1).T]
        keys += [
            key for each in self._of_checks("verdicts") for key in _packed(each.reshape(n, -1))
        ]
        # A column that is the same throughout has no say, and would cost as much as any other.
        telling = [key for key in keys if n and (key != key[0]).any()]
        order = np.lexsort(telling[::-1]) if telling else np.arange(n)
        return self.rows(order)

    def _of_checks(self, name: str) -> list[NDArray[Any]]:
        """Return an array of all checks, the first one's first and the others by name."""
        return [
            getattr(check, name) for check in (self, *(c for _, c in sorted(self.checks.items())))
        ]

    def only(self, models: Sequence[int]) -> LogArrays:
        """Return these models only, by their indices, ascending."""
        chosen = list(models)
        return replace(
            self,
            models=tuple(self.models[j] for j in chosen),
            **{name: getattr(self, name)[:, chosen] for name in _PER_MODEL},
            checks={name: check.at(slice(None), chosen) for name, check in self.checks.items()},
        )

    def alone(self, check: str | None) -> LogArrays:
        """Return one check only, as the first; None: the first itself."""
        if check is None:
            return replace(self, checks={}) if self.checks else self
        found = {name: getattr(self.checks[check], name) for name in _OF_A_CHECK}
        return replace(self, **found, checks={})

    def checks_of(self, model: int) -> tuple[str | None, ...]:
        """Return the checks that were made of all answers of a model; None is the first."""
        if not len(self):
            return ()
        names = (None, *self.checks)
        return tuple(name for name in names if bool(self.alone(name).checked(model).all()))

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


def to_arrays(log: RoutingLog, weights: Sequence[float] | None = None) -> LogArrays:
    """Return a routing log as arrays.

    Args:
        log: The log.
        weights: How much each query counts, at least 0: a prior over the logged queries, for
            instance their similarity to the expected traffic. None: all count the same.

    Raises:
        AutoMixError: The weights are not one number of at least 0 for each query.
    """
    store = log.store
    shape = (len(log), len(log.models))
    notes: list[str] = []
    checks = {}
    for name, further in (("", store), *store.further.items()):
        checks[name] = _checked(further, shape)
        notes += _without_price(further, checks[name], log.models, name)
    first = checks.pop("")
    return LogArrays(
        log.models,
        quality=_numbers(store.quality, shape),
        cost=_numbers(store.cost, shape),
        weight=_weights(weights, len(log)),
        **{name: getattr(first, name) for name in _OF_A_CHECK},
        checks=checks,
        notes=tuple(notes),
    )


def _numbers(column: Any, shape: tuple[int, int]) -> Floats:
    if not shape[0]:
        return np.empty(shape)
    return np.frombuffer(column, dtype=np.float64).reshape(shape)


def _checked(check: CheckColumns, shape: tuple[int, int]) -> CheckArrays:
    score, fixed, sample = (
        _numbers(column, shape) for column in (check.score, check.fixed_cost, check.sample_cost)
    )
    return CheckArrays(_verdicts(check, *shape), score, _priced(check, fixed), sample)


def _priced(check: CheckColumns, fixed: Floats) -> Floats:
    """Replace an unknown price by the mean known price of that model's checks, or by 0.

    `LogArrays.notes` records it, and so does anything fitted to or judged on the arrays.
    """
    scored = (_kinds(check) == SCORE).reshape(fixed.shape)
    unknown = np.isnan(fixed)
    if not unknown.any():
        return fixed
    known = scored & ~unknown
    sums = np.where(known, fixed, 0.0).sum(axis=0)
    means = sums / np.maximum(known.sum(axis=0), 1)
    return np.where(unknown, means, fixed)


def _kinds(check: CheckColumns) -> Ints:
    return np.frombuffer(bytes(check.kind), dtype=np.uint8)


def _without_price(
    check: CheckColumns, found: CheckArrays, models: tuple[str, ...], name: str
) -> Iterator[str]:
    """State which prices are unknown, and what replaces them."""
    shape = found.score.shape
    scored = (_kinds(check) == SCORE).reshape(shape)
    unknown = scored & np.isnan(_numbers(check.fixed_cost, shape))
    called = f"the check {name!r}" if name else "the check"
    for j, model in enumerate(models):
        number, all_of = int(unknown[:, j].sum()), int(scored[:, j].sum())
        if number:
            taken = "the others' mean is taken" if number < all_of else "it counts as free"
            yield (
                f"The log does not say what {called} of {model}'s answers cost on {number} of "
                f"{all_of} queries; {taken}."
            )


def _verdicts(check: CheckColumns, n: int, m: int) -> NDArray[np.int8]:
    """Lay the verdicts of all answers side by side."""
    ends = np.array(check.ends, dtype=np.int64)
    lengths = np.diff(ends, prepend=0)
    table = np.full((n * m, int(lengths.max(initial=0))), NOT_DRAWN, dtype=np.int8)
    codes = np.array([REJECT, ACCEPT, INVALID], dtype=np.int8)
    drawn = np.arange(table.shape[1]) < lengths[:, None]
    table[drawn] = codes[np.frombuffer(bytes(check.verdicts), dtype=np.uint8)]
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


def _packed(verdicts: NDArray[np.int8]) -> Iterator[NDArray[np.uint64]]:
    """Yield columns of (n, k) verdicts, eight in one number, in the order of their bytes."""
    codes = np.ascontiguousarray(verdicts.astype(np.int8)).view(np.uint8)
    for start in range(0, codes.shape[1], 8):
        part = codes[:, start : start + 8]
        padded = np.pad(part, ((0, 0), (0, 8 - part.shape[1])))
        yield padded.view(">u8").ravel().astype(np.uint64)
