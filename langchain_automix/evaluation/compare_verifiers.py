"""Compare the checks in a routing log: what each tells, what it costs, what it would gain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.evaluation.comparison import ComparedCheck, Comparison, describe_comparison
from langchain_automix.policy.data.arrays import (
    INVALID,
    NOT_DRAWN,
    Floats,
    Ints,
    LogArrays,
    to_arrays,
)
from langchain_automix.policy.data.columns import NO_CHECK
from langchain_automix.policy.data.log import RoutingLog
from langchain_automix.policy.data.records import FIRST_CHECK
from langchain_automix.policy.fitting.baselines import best_single, confidences
from langchain_automix.policy.fitting.cross_fitting import CrossFit
from langchain_automix.policy.fitting.fit import indifferent_weight
from langchain_automix.policy.statistics import (
    auroc,
    auroc_interval,
    calibrated_brier,
    calibration,
    mean_interval,
)

_GOOD = 0.5
"""Quality from which an answer counts as right, as in `evaluate`."""


def compare_verifiers(
    log: RoutingLog,
    *,
    cost_weight: float | None = None,
    samples: Sequence[int] = (1, 2, 4, 8),
    model: str | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare the checks that a routing log holds of the same answers.

    Of each check: how well it tells right answers from wrong ones, how far its number can be read
    as a chance, its price, and the utility of a policy that has this check alone. Utilities are
    cross-fitted in five folds, the same ones for all checks: each query is judged by a policy that
    was fitted without it. No check at all is worth what the best single model is on the whole log,
    or the mean of tied ones; a policy that makes no check is worth the same. Of a check with
    verdicts, the first k of the log stand for one that draws k.

    Args:
        log: Queries that all models answered, as `calibrate` writes them with a
            `CombinedVerifier`; one check only is a table of one check.
        cost_weight: Quality that one unit of cost is worth, at least 0. None: what makes mixing the
            cheapest and the dearest model at random neither gain nor lose.
        samples: Numbers of verdicts (k) to compare, each at least 1; the number that the log has is
            always among them, and none above it.
        model: Whose answers' checks are judged. None: the first model's.
        seed: For folds and resampling; the same seed gives the same figures.

    Returns:
        The figures; `print` shows them as a table.

    Raises:
        AutoMixError: The log has no check of that model's answers or no two complete queries, or an
            argument is out of its range.

    ??? example "Which check is worth its price?"

        ```python
        from langchain_automix import RoutingLog, compare_verifiers

        print(compare_verifiers(RoutingLog.read("checks.jsonl")))
        ```
    """
    checks = _ChecksOnLog.of(log, cost_weight, samples, model, seed)
    rows = tuple(row for name in checks.names for row in checks.rows(name))
    if not rows:
        raise AutoMixError(
            f"The routing log has no check of {checks.model}'s answers that all models answered "
            "too: there is nothing to compare."
        )
    data, index = checks.data, checks.model_index
    comparison = Comparison(
        models=data.models,
        model=checks.model,
        currency=log.currency,
        queries=len(data),
        left_out=len(log) - len(data),
        right=int((data.quality[:, index] >= _GOOD).sum()),
        quality=float(data.quality[:, index].mean()),
        answer_cost=float(data.cost[:, index].mean()),
        cost_weight=checks.cost_weight,
        without=float(checks.without.mean()),
        rows=rows,
        together=checks.together() if len(checks.names) > 1 else None,
        notes=(),
    )
    notes = tuple(describe_comparison(comparison, *checks.remarks()))
    return replace(comparison, notes=notes)


def _validate(
    log: RoutingLog,
    cost_weight: float | None,
    samples: Sequence[int],
    model: str | None,
    *,
    complete_queries: int,
) -> None:
    """Refuse arguments that fit no log, or not this one."""
    if cost_weight is not None and not 0 <= cost_weight < float("inf"):
        raise AutoMixError(f"cost_weight must be a number of at least 0; given: {cost_weight!r}.")
    if too_few := [k for k in samples if k < 1]:
        raise AutoMixError(f"A check draws at least 1 verdict; samples holds {too_few[0]!r}.")
    if len(log.models) < 2 or complete_queries < 2:  # noqa: PLR2004
        raise AutoMixError(
            f"Checks are compared on two or more queries that two or more models answered, "
            f"with quality and cost; this log of {len(log)} queries and {len(log.models)} "
            f"models has {complete_queries} such queries."
        )
    if model is not None and model not in log.models[:-1]:
        raise AutoMixError(
            f"No check of {model!r} can be compared: give one of {list(log.models[:-1])}, "
            "whose answers a larger model may improve on."
        )


@dataclass(frozen=True)
class _ChecksOnLog:
    """A log whose checks are compared, on the same queries in the same folds."""

    log: RoutingLog
    data: LogArrays
    """The complete queries."""

    log_rows: Ints
    """Of these in the log."""

    ids: Sequence[str]
    model_index: int
    """Of the model whose answers' checks are judged."""

    names: tuple[str, ...]
    """Of the checks, as the log has them."""

    cost_weight: float
    samples: tuple[int, ...]
    seed: int
    without: Floats
    """(n,): utility of each query without any check, by the best single model on the whole log."""

    @classmethod
    def of(
        cls,
        log: RoutingLog,
        cost_weight: float | None,
        samples: Sequence[int],
        model: str | None,
        seed: int,
    ) -> _ChecksOnLog:
        arrays = to_arrays(log)
        rows = np.flatnonzero(arrays.complete)
        _validate(log, cost_weight, samples, model, complete_queries=len(rows))
        data = arrays.rows(rows)
        weight = indifferent_weight(data) if cost_weight is None else cost_weight
        ids = [log.store.ids[row] for row in rows.tolist()]
        return cls(
            log=log,
            data=data,
            log_rows=rows,
            ids=ids,
            model_index=0 if model is None else log.models.index(model),
            names=log.checks,
            cost_weight=weight,
            samples=tuple(samples),
            seed=seed,
            without=best_single(data, weight).utility,
        )

    @property
    def model(self) -> str:
        """The model whose answers' checks are judged."""
        return self.data.models[self.model_index]

    def rows(self, check: str) -> Iterator[ComparedCheck]:
        """Yield the figures of a check for each number of verdicts; none if it was never made."""
        data = self.data.alone(None if check == FIRST_CHECK else check)
        name = self._name(check)
        try:
            is_score = data.is_score(self.model_index)
        except AutoMixError as error:
            raise AutoMixError(f"Check {name!r}: {error}") from error
        checked = data.checked(self.model_index)
        if not checked.any():
            return
        fixed, each = self._prices(check)
        if is_score:
            yield self._row(name, None, data, fixed)
            return
        drawn = (data.verdicts[:, self.model_index] != NOT_DRAWN).sum(axis=1)[checked]
        # A few checks that were cut short must not hold all others down to their length.
        most = int(np.quantile(drawn, 0.1, method="lower"))
        for k in sorted({*(k for k in self.samples if k < most), most}):
            first = replace(data, verdicts=data.verdicts[:, :, :k])
            yield self._row(name, k, first, fixed + k * each)

    def _name(self, check: str) -> str:
        """Return the name of a check; of the first one, what all metadata call it."""
        if check != FIRST_CHECK:
            return check
        return self.log.said_by_all("check") or check

    def _prices(self, check: str) -> tuple[float, float]:
        """Return the mean price of a check and of each verdict; NaN where it is unknown."""
        store = self.log.store
        column = store if check == FIRST_CHECK else store.further[check]
        answers = self.log_rows * len(self.data.models) + self.model_index
        answers = answers[np.frombuffer(bytes(column.kind), dtype=np.uint8)[answers] != NO_CHECK]
        fixed, each = (
            np.frombuffer(prices, dtype=np.float64)[answers]
            for prices in (column.fixed_cost, column.sample_cost)
        )
        known = ~np.isnan(fixed)
        if not known.any():
            return float("nan"), float("nan")
        return float(fixed[known].mean()), float(each[known].mean())

    def _row(self, name: str, k: int | None, data: LogArrays, price: float) -> ComparedCheck:
        quality = data.quality[:, self.model_index]
        benefit = data.quality[:, -1] - quality
        confidence = confidences(data, self.model_index)
        verdicts = data.verdicts[:, self.model_index]
        drawn = int((verdicts != NOT_DRAWN).sum())
        raw = calibration(confidence, quality)
        brier, plain = calibrated_brier(confidence, quality, self.seed)
        answer = float(data.cost[:, self.model_index].mean())
        known = None if np.isnan(price) else price
        return ComparedCheck(
            name=name,
            samples=k,
            answers=int(data.checked(self.model_index).sum()),
            unknown=float(np.isnan(confidence).mean()),
            invalid=None if k is None else float((verdicts == INVALID).sum() / drawn),
            auroc=auroc(confidence, quality >= _GOOD),
            auroc_interval=auroc_interval(confidence, quality >= _GOOD, self.seed),
            benefit_auroc=auroc(-confidence, benefit > 0),
            benefit_auroc_interval=auroc_interval(-confidence, benefit > 0, self.seed),
            ece=None if raw is None else raw.ece,
            brier=brier,
            explained=None if brier is None or not plain else 1 - brier / plain,
            price=known,
            price_ratio=None if known is None or not answer else known / answer,
            **self._use(data),
        )

    def _use(self, data: LogArrays) -> dict[str, Any]:
        """Return what a policy makes of its checks, compared query by query with no check.

        A fold whose policy makes no check has chosen a single model on the other folds, which has
        nothing to do with the check: it counts as no check.
        """
        cross_fit = CrossFit(data, self.ids, self.cost_weight, self.seed)
        outcomes = cross_fit.at(self.cost_weight)
        assert outcomes.paths is not None  # noqa: S101
        uses = cross_fit.uses_checks(self.cost_weight)
        utility = np.where(uses, outcomes.utility(self.cost_weight), self.without)
        difference = utility - self.without
        return {
            "utility": float(utility.mean()),
            "gain": float(difference.mean()),
            "gain_interval": mean_interval(difference),
            "use": float(outcomes.paths.checked.any(axis=1).mean()),
            "escalation_rate": float((outcomes.asked > 1).mean()),
        }

    def remarks(self) -> Iterator[str]:
        """Yield what the log does not tell, one sentence each."""
        yield from self.data.notes
        named = (self.log.store.metadata.get(0) or {}).get("check_replies")
        for name in named if isinstance(named, dict) else ():
            if name not in self.names or not self.data.alone(name).checked(self.model_index).any():
                yield f"{name!r} found nothing on any answer."

    def together(self) -> ComparedCheck:
        """Return what a policy makes of all checks together."""
        values: dict[str, Any] = dict.fromkeys(ComparedCheck.__dataclass_fields__)
        values |= {"name": "all together", "answers": len(self.data), **self._use(self.data)}
        return ComparedCheck(**values)
