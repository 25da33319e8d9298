"""Compare the checks in a routing log: what each tells, what it costs, what it would bring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.evaluation.comparison import ComparedCheck, Comparison, notes_on
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
from langchain_automix.policy.fitting.baselines import confidences
from langchain_automix.policy.fitting.cross_fitting import CrossFit
from langchain_automix.policy.fitting.fit import indifferent_weight
from langchain_automix.policy.replay import Outcomes
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
    was fitted without it. Of a check with verdicts, the first k of the log stand for one that draws
    k.

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
    comparing = _ChecksOnLog.of(log, cost_weight, samples, model, seed)
    rows = tuple(row for name in comparing.checks for row in comparing.rows(name))
    if not rows:
        raise AutoMixError(
            f"The routing log has no check of {comparing.model}'s answers that all models answered "
            "too: there is nothing to compare."
        )
    together = comparing.together() if len(comparing.checks) > 1 else None
    data = comparing.data
    found = Comparison(
        models=data.models,
        model=comparing.model,
        currency=log.currency,
        queries=len(data),
        left_out=len(log) - len(data),
        right=int((data.quality[:, comparing.place] >= _GOOD).sum()),
        quality=float(data.quality[:, comparing.place].mean()),
        answer_cost=float(data.cost[:, comparing.place].mean()),
        cost_weight=comparing.cost_weight,
        without=float(comparing.without.mean()),
        rows=rows,
        together=together,
        notes=(),
    )
    return replace(found, notes=tuple(notes_on(found, *comparing.remarks())))


@dataclass(frozen=True)
class _ChecksOnLog:
    """A log whose checks are compared, on the same queries in the same folds."""

    log: RoutingLog
    data: LogArrays
    """The complete queries."""

    places: Ints
    """Of these in the log."""

    ids: Sequence[str]
    place: int
    """Of the model whose answers' checks are judged."""

    checks: tuple[str, ...]
    """Names of the checks, as the log has them."""

    cost_weight: float
    samples: tuple[int, ...]
    seed: int
    without: Floats
    """(n,): utility of each query without any check, cross-fitted."""

    @classmethod
    def of(
        cls,
        log: RoutingLog,
        cost_weight: float | None,
        samples: Sequence[int],
        model: str | None,
        seed: int,
    ) -> _ChecksOnLog:
        if cost_weight is not None and not 0 <= cost_weight < float("inf"):
            raise AutoMixError(
                f"cost_weight must be a number of at least 0; given: {cost_weight!r}."
            )
        if wrong := [k for k in samples if k < 1]:
            raise AutoMixError(f"A check draws at least 1 verdict; samples holds {wrong[0]!r}.")
        columns = to_arrays(log)
        places = np.flatnonzero(columns.complete)
        if len(log.models) < 2 or len(places) < 2:  # noqa: PLR2004
            raise AutoMixError(
                f"Checks are compared on two or more queries that two or more models answered, "
                f"with quality and cost; this log of {len(log)} queries and {len(log.models)} "
                f"models has {len(places)} such queries."
            )
        if model is not None and model not in log.models[:-1]:
            raise AutoMixError(
                f"No check of {model!r} can be compared: give one of {list(log.models[:-1])}, "
                "whose answers a larger model may improve on."
            )
        data = columns.rows(places)
        weight = indifferent_weight(data) if cost_weight is None else cost_weight
        ids = [log.store.ids[place] for place in places.tolist()]
        bare = CrossFit(_unchecked(data), ids, weight, seed)
        return cls(
            log=log,
            data=data,
            places=places,
            ids=ids,
            place=0 if model is None else log.models.index(model),
            checks=log.checks,
            cost_weight=weight,
            samples=tuple(samples),
            seed=seed,
            without=bare.at(weight).utility(weight),
        )

    @property
    def model(self) -> str:
        """The model whose answers' checks are judged."""
        return self.data.models[self.place]

    def rows(self, check: str) -> Iterator[ComparedCheck]:
        """Yield what a check comes to, with each number of verdicts; nothing if it is not there."""
        data = self.data.alone(None if check == FIRST_CHECK else check)
        name = self._name(check)
        try:
            is_score = data.is_score(self.place)
        except AutoMixError as error:
            raise AutoMixError(f"Check {name!r}: {error}") from error
        checked = data.checked(self.place)
        if not checked.any():
            return
        fixed, each = self._prices(check)
        if is_score:
            yield self._row(name, None, data, fixed)
            return
        drawn = (data.verdicts[:, self.place] != NOT_DRAWN).sum(axis=1)[checked]
        # A few checks that were cut short must not hold all others down to their length.
        most = int(np.quantile(drawn, 0.1, method="lower"))
        for k in sorted({*(k for k in self.samples if k < most), most}):
            first = replace(data, verdicts=data.verdicts[:, :, :k])
            yield self._row(name, k, first, fixed + k * each)

    def _name(self, check: str) -> str:
        """Return what a check is called; the first one, as the metadata of all queries has it."""
        if check != FIRST_CHECK:
            return check
        return self.log.said_by_all("check") or check

    def _prices(self, check: str) -> tuple[float, float]:
        """Return the mean price of a check and of each verdict; NaN where none is known."""
        store = self.log.store
        column = store if check == FIRST_CHECK else store.further[check]
        answers = self.places * len(self.data.models) + self.place
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
        quality = data.quality[:, self.place]
        benefit = data.quality[:, -1] - quality
        confidence = confidences(data, self.place)
        verdicts = data.verdicts[:, self.place]
        drawn = int((verdicts != NOT_DRAWN).sum())
        raw = calibration(confidence, quality)
        brier, plain = calibrated_brier(confidence, quality, self.seed)
        answer = float(data.cost[:, self.place].mean())
        known = None if np.isnan(price) else price
        return ComparedCheck(
            name=name,
            samples=k,
            answers=int(data.checked(self.place).sum()),
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
            **self._use(CrossFit(data, self.ids, self.cost_weight, self.seed).at(self.cost_weight)),
        )

    def _use(self, outcomes: Outcomes) -> dict[str, Any]:
        """Return what a policy makes of a check, query by query against none."""
        assert outcomes.paths is not None  # noqa: S101
        utility = outcomes.utility(self.cost_weight)
        difference = utility - self.without
        return {
            "utility": float(utility.mean()),
            "gain": float(difference.mean()),
            "gain_interval": mean_interval(difference),
            "use": float(outcomes.paths.checked.any(axis=1).mean()),
            "escalation_rate": float((outcomes.asked > 1).mean()),
        }

    def remarks(self) -> Iterator[str]:
        """Yield what is not known of the log, one sentence each."""
        yield from self.data.notes
        named = (self.log.store.metadata.get(0) or {}).get("check_replies")
        for name in named if isinstance(named, dict) else ():
            if name not in self.checks or not self.data.alone(name).checked(self.place).any():
                yield f"{name!r} found nothing on any answer."

    def together(self) -> ComparedCheck:
        """Return what a policy makes of all checks together."""
        outcomes = CrossFit(self.data, self.ids, self.cost_weight, self.seed).at(self.cost_weight)
        nothing = dict.fromkeys(
            (field for field in ComparedCheck.__dataclass_fields__ if field != "name"), None
        )
        given: dict[str, Any] = {
            **nothing,
            "name": "all together",
            "answers": len(self.data),
            **self._use(outcomes),
        }
        return ComparedCheck(**given)


def _unchecked(data: LogArrays) -> LogArrays:
    """Return the same queries as if no answer had been checked."""
    return replace(
        data.alone(None),
        verdicts=data.verdicts[:, :, :0],
        score=np.full(data.score.shape, np.nan),
    )
