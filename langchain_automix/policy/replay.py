"""Send a whole routing log through a plan at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.data.arrays import (
    ACCEPT,
    INVALID,
    NOT_DRAWN,
    REJECT,
    Floats,
    Ints,
    LogArrays,
    Mask,
)
from langchain_automix.policy.decision.observation import CheckEncoding
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.decision.table import DecisionRow, DecisionTable, PlannedAction
from langchain_automix.policy.statistics import in_bins
from langchain_automix.utils.fingerprints import uniform


@dataclass(frozen=True)
class Trajectories:
    """What was asked and checked on the way of each logged query; n queries, m models."""

    asked: Mask
    """(n, m): whether the model was asked."""

    checked: Mask
    """(n, m): whether its answer was checked."""

    drawn: Ints
    """(n, m): verdicts drawn on its answer."""

    check_cost: Floats
    """(n, m): cost of the checks of its answer."""


@dataclass(frozen=True)
class Outcomes:
    """What became of each logged query; n queries."""

    model: Ints
    """(n,): whose answer is kept; -1 where none is."""

    quality: Floats
    """(n,): quality of the kept answer; 0 where none is kept."""

    cost: Floats
    """(n,): cost of every answer and check on the way."""

    samples: Ints
    """(n,): verdicts drawn."""

    asked: Ints
    """(n,): models asked."""

    expected: Floats
    """(n,): expected quality of the kept answer by the belief; NaN if there is none."""

    paths: Trajectories | None = None
    """How each query came there; None where only its end is known."""

    def utility(self, cost_weight: float, abstain_value: float | None = None) -> Floats:
        """Return quality minus cost weight times cost, of each query."""
        worth = np.where(self.model < 0, abstain_value or 0.0, self.quality)
        utility: Floats = worth - cost_weight * self.cost
        return utility


def replay_plan(plan: Plan, columns: LogArrays) -> Outcomes:
    """Send every logged query through a plan; verdicts are drawn in the order recorded.

    Raises:
        AutoMixError: The plan asks for an answer or a check that was not recorded.
    """
    return _Replay(plan, columns).run()


def replay_policy(policy: Policy, columns: LogArrays, ids: Sequence[str]) -> Outcomes:
    """Send every logged query through the plan that it gets by its id.

    Args:
        policy: One plan, or two.
        columns: The queries.
        ids: Their ids.

    Raises:
        AutoMixError: The policy asks for an answer or a check that was not recorded.
    """
    if len(policy.plans) == 1:
        return replay_plan(policy.plans[0], columns)
    first = np.array([uniform(i, policy.seed) < policy.first_share for i in ids], dtype=bool)
    places = [np.flatnonzero(first), np.flatnonzero(~first)]
    return concatenate(
        [
            (where, replay_plan(plan, columns.rows(where)))
            for plan, where in zip(policy.plans, places, strict=True)
        ]
    )


def concatenate(parts: Sequence[tuple[Ints, Outcomes]]) -> Outcomes:
    """Return the outcomes of parts of a log as those of the whole.

    Args:
        parts: Places of the queries in the whole, each exactly once, and their outcomes.
    """
    order = np.argsort(np.concatenate([places for places, _ in parts]))

    def whole(of: Sequence[object], name: str) -> Floats:
        return np.concatenate([getattr(part, name) for part in of])[order]

    found = [outcomes for _, outcomes in parts]
    names = [field.name for field in fields(Outcomes) if field.name != "paths"]
    ways = [outcomes.paths for outcomes in found]
    paths = None
    if all(way is not None for way in ways):
        paths = Trajectories(*(whole(ways, field.name) for field in fields(Trajectories)))
    return Outcomes(**{name: whole(found, name) for name in names}, paths=paths)


class _Replay:
    def __init__(self, plan: Plan, columns: LogArrays) -> None:
        n = len(columns)
        self.plan, self.columns = plan, columns
        self.model = np.full(n, -1)
        self.cost, self.expected = np.zeros(n), np.full(n, np.nan)
        self.samples, self.asked = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.drawn: dict[str | None, Ints]  # verdicts on the latest answer, by check
        self.drawn = {name: np.zeros(n, dtype=np.int64) for name in (None, *columns.checks)}
        self.made: dict[str | None, Mask]  # whether it was tried on the latest answer, by check
        self.made = {name: np.zeros(n, dtype=bool) for name in (None, *columns.checks)}
        self.alone = {name: columns.alone(name) for name in (None, *columns.checks)}
        for reading in (reading for table in plan.tables for reading in table.checks):
            if reading.name not in self.alone:
                raise AutoMixError(
                    f"The log has no check {reading.name!r}, which the policy asks for; it has "
                    f"{sorted(columns.checks)} beside the first."
                )
        self.table = np.full(n, -1)
        shape = columns.quality.shape
        self.paths = Trajectories(
            np.zeros(shape, dtype=bool),
            np.zeros(shape, dtype=bool),
            np.zeros(shape, dtype=np.int64),
            np.zeros(shape),
        )

    def run(self) -> Outcomes:
        opening = self.plan.opening
        self._take(np.arange(len(self.columns)), opening)
        if opening.then is not None:
            self.table[:] = opening.then
        for place, table in enumerate(self.plan.tables):
            here = np.flatnonzero(self.table == place)
            while len(here):
                self._look_up(table, place, here)
                here = here[self.table[here] == place]
        kept = np.maximum(self.model, 0)
        quality = self.columns.quality[np.arange(len(kept)), kept]
        if np.isnan(quality[self.model >= 0]).any():
            raise AutoMixError("The log does not say how a model did that the policy chooses.")
        quality = np.where(self.model < 0, 0.0, quality)
        return Outcomes(
            self.model, quality, self.cost, self.samples, self.asked, self.expected, self.paths
        )

    def _take(self, who: Ints, step: PlannedAction) -> None:
        """Ask or check, and pay for it."""
        model = step.model
        if step.action == "escalate":
            self.cost[who] += self.columns.cost[who, model]
            self.asked[who] += 1
            self.paths.asked[who, model] = True
            self.model[who] = model
            for name in self.alone:
                self.drawn[name][who], self.made[name][who] = 0, False
            if np.isnan(self.cost[who]).any():
                raise AutoMixError(
                    f"The log does not say what {self.columns.models[model]} cost on a query, "
                    "which the policy asks."
                )
        if step.samples == 0:
            return
        # Where the log has fewer verdicts, or no check at all, the policy goes by what there is.
        found, drawn = self.alone[step.check], self.drawn[step.check]
        there = self._recorded(who, model, step.check)
        scored = ~np.isnan(found.score[who, model])
        wanted = there if step.samples is None else np.minimum(drawn[who] + step.samples, there)
        number = np.where(scored, 0, wanted - drawn[who])
        # One that found nothing, and so has no verdicts, is paid for like any other.
        fixed = np.where((number > 0) | (there == 0), found.fixed_cost[who, model], 0.0)
        checked = scored | (number > 0) | (fixed > 0)
        price = fixed + np.where(number > 0, number * found.sample_cost[who, model], 0.0)
        self.cost[who] += price
        drawn[who] += number
        self.made[step.check][who] = True
        self.samples[who] += number
        self.paths.checked[who, model] |= checked
        self.paths.drawn[who, model] += number
        self.paths.check_cost[who, model] += price

    def _recorded(self, who: Ints, model: int, check: str | None) -> Ints:
        """Return how many verdicts the log has on each answer."""
        number: Ints = (self.alone[check].verdicts[who, model] != NOT_DRAWN).sum(axis=1)
        return number

    def _look_up(self, table: DecisionTable, place: int, who: Ints) -> None:
        if table.checks:
            self._look_up_several(table, place, who)
            return
        if table.kind == "score":
            unknown = np.isnan(self.columns.score[who, table.model])
            self._apply(None, table, who[unknown])
            who = who[~unknown]
        found = self._findings(table, who)
        kinds, which = np.unique(found, axis=0, return_inverse=True)
        which = which.ravel()
        for kind, seen in enumerate(kinds.tolist()):
            self._apply(_row(table, seen), table, who[which == kind])

    def _findings(self, table: DecisionTable, who: Ints) -> Ints:
        if table.kind == "score":
            edges = np.asarray(table.edges)
            return in_bins(self.columns.score[who, table.model], edges)[:, None]
        return self._counts(who, table.model, None)

    def _counts(self, who: Ints, model: int, check: str | None) -> Ints:
        """Return the accepts, rejects and invalid ones among the verdicts drawn; (who, 3)."""
        drawn = self.drawn[check][who]
        longest = int(drawn.max(initial=0))
        verdicts = self.alone[check].verdicts[who, model, :longest]
        there = np.arange(longest) < drawn[:, None]
        kinds = (ACCEPT, REJECT, INVALID)
        return np.stack([((verdicts == kind) & there).sum(axis=1) for kind in kinds], axis=1)

    def _look_up_several(self, table: DecisionTable, place: int, who: Ints) -> None:
        """Group the queries by what each check found and whether it can find any more."""
        parts = [self._read(reading, table.model, who) for reading in table.checks]
        kinds, which = np.unique(np.concatenate(parts, axis=1), axis=0, return_inverse=True)
        which = which.ravel()
        width = parts[0].shape[1]
        for kind, numbers in enumerate(kinds.tolist()):
            here = who[which == kind]
            each = [numbers[i : i + width] for i in range(0, len(numbers), width)]
            found = [
                tuple(part[: len(r.nothing)]) for r, part in zip(table.checks, each, strict=True)
            ]
            spent = [r.name for r, part in zip(table.checks, each, strict=True) if part[-1]]
            if not any(map(any, found)) and len(spent) == len(table.checks):
                self._apply(None, table, here)
                continue
            row = table.reached(found)
            answered = self._answered(here)
            step = row.instead(answered, self.plan.plays, self.columns.models, spent)
            # Only a step to another check is made up here, and such a check has this very table.
            self._go(
                step.model_copy(update={"then": place}) if step.action == "verify" else step,
                row,
                here,
            )

    def _read(self, reading: CheckEncoding, model: int, who: Ints) -> Ints:
        """Return what one of several checks found, padded to 3 numbers, and whether it is spent.

        A score is spent once it was tried, verdicts once the log has no more of them, or none
        that says anything.
        """
        made = self.made[reading.name][who]
        found = np.zeros((len(who), 4), dtype=np.int64)
        if reading.kind == "score":
            score = self.alone[reading.name].score[who, model]
            known = made & ~np.isnan(score)
            bins = in_bins(np.nan_to_num(score), np.asarray(reading.edges)) + 1
            found[:, 0], found[:, 3] = np.where(known, bins, 0), made
            return found
        counts = self._counts(who, model, reading.name)
        rows, which = np.unique(counts, axis=0, return_inverse=True)
        placed = np.array([reading.place(a, r, i, None) for a, r, i in rows.tolist()])
        found[:, :3] = placed[which.ravel()]
        nothing = ~found[:, :3].any(axis=1)
        ended = self._recorded(who, model, reading.name) <= self.drawn[reading.name][who]
        found[:, 3] = made & (nothing | ended)
        return found

    def _apply(self, row: DecisionRow | None, table: DecisionTable, who: Ints) -> None:
        later = [j for j in self.plan.plays if j > table.model]
        if row is None:  # nothing to go by: ask the next model, as the router does
            self.table[who] = -1
            if later:
                self._take(who, PlannedAction(action="escalate", model=later[0], samples=0))
            return
        if row.step.action == "verify":
            spent = self._recorded(who, table.model, None) <= self.drawn[None][who]
            if spent.any():
                step = row.settled(self._answered(who), self.plan.plays, self.columns.models)
                self._go(step, row, who[spent])
            who = who[~spent]
        self._go(row.step, row, who)

    def _answered(self, who: Ints) -> list[int]:
        """Return the models that answered: of queries at one table, the same ones."""
        answered: list[int] = np.flatnonzero(self.paths.asked[who[0]]).tolist()
        return answered

    def _go(self, step: PlannedAction, row: DecisionRow, who: Ints) -> None:
        self.table[who] = -1 if step.then is None else step.then
        if step.action in ("escalate", "verify"):
            self._take(who, step)
        if step.action == "abstain":
            self.model[who] = -1
        elif step.action == "answer":
            self.model[who] = step.model
        if step.then is None and step.model in self.plan.plays and row.quality:
            self.expected[who] = row.quality[self.plan.plays.index(step.model)]


def _row(table: DecisionTable, seen: list[int]) -> DecisionRow | None:
    if table.kind == "score":
        return table.at(tuple(seen))
    return table.find(seen[0], seen[1], seen[2], None)
