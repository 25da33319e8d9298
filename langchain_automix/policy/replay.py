"""Replay a whole routing log through a plan at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

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
from langchain_automix.policy.decision.interpreter import (
    Row,
    Rule,
    Table,
    next_action,
    next_in_play,
)
from langchain_automix.policy.decision.observation import CheckEncoding, Observation
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.decision.reweighting import relative_cost, reweighed
from langchain_automix.policy.decision.table import DecisionRow, PlannedAction
from langchain_automix.policy.statistics import in_bins
from langchain_automix.utils.fingerprints import uniform

_MANY_CODES = 5_000
"""Range of codes above which sorting them is faster than counting each."""


@dataclass(frozen=True)
class Trajectories:
    """The models asked and the checks made for each of n logged queries; m models."""

    asked: Mask
    """(n, m): whether the model was asked."""

    checked: Mask
    """(n, m): whether the model's answer was checked."""

    drawn: Ints
    """(n, m): number of verdicts drawn on its answer."""

    check_cost: Floats
    """(n, m): cost of the checks of its answer."""


@dataclass(frozen=True)
class Outcomes:
    """The outcome of each logged query; n queries."""

    model: Ints
    """(n,): model whose answer is kept; -1 if none is."""

    quality: Floats
    """(n,): quality of the kept answer; 0 if none is kept."""

    cost: Floats
    """(n,): cost of all answers and checks."""

    samples: Ints
    """(n,): number of verdicts drawn."""

    asked: Ints
    """(n,): number of models asked."""

    expected: Floats
    """(n,): quality of the kept answer expected by the belief; NaN if there is none."""

    paths: Trajectories | None = None
    """How each query arrived at its outcome; None if only the outcome is known."""

    def utility(self, cost_weight: float, abstain_value: float | None = None) -> Floats:
        """Return quality minus cost weight times cost, for each query."""
        worth = np.where(self.model < 0, abstain_value or 0.0, self.quality)
        utility: Floats = worth - cost_weight * self.cost
        return utility


def replay_plan(
    plan: Rule, columns: LogArrays, own_costs: Sequence[float] | None = None
) -> Outcomes:
    """Replay every logged query through a plan, drawing verdicts in the recorded order.

    Args:
        plan: The plan, or any rule.
        columns: The log.
        own_costs: Mean cost of each model's answer, if a query's own cost scales the price of a
            larger model (`Policy.own_costs`).

    Raises:
        AutoMixError: The plan asks for an answer or a check that was not recorded.
    """
    return _Replay(plan, columns, own_costs).run()


def replay_policy(policy: Policy, columns: LogArrays, ids: Sequence[str]) -> Outcomes:
    """Replay every logged query through the plan that its id selects.

    Raises:
        AutoMixError: The policy asks for an answer or a check that was not recorded.
    """
    if len(policy.plans) == 1:
        return replay_plan(policy.plans[0], columns, policy.own_costs)
    first = np.array([uniform(i, policy.seed) < policy.first_share for i in ids], dtype=bool)
    parts = zip(policy.plans, (np.flatnonzero(first), np.flatnonzero(~first)), strict=True)
    own = policy.own_costs
    return concatenate(
        [(index, replay_plan(plan, columns.rows(index), own)) for plan, index in parts]
    )


def concatenate(parts: Sequence[tuple[Ints, Outcomes]]) -> Outcomes:
    """Join the outcomes of parts of a log, each given with the indices of its queries."""
    order = np.argsort(np.concatenate([index for index, _ in parts]))

    def join(pieces: Sequence[object], name: str) -> Floats:
        return np.concatenate([getattr(piece, name) for piece in pieces])[order]

    outcomes = [part for _, part in parts]
    names = [field.name for field in fields(Outcomes) if field.name != "paths"]
    trajectories = [part.paths for part in outcomes]
    paths = None
    if all(piece is not None for piece in trajectories):
        paths = Trajectories(*(join(trajectories, field.name) for field in fields(Trajectories)))
    return Outcomes(**{name: join(outcomes, name) for name in names}, paths=paths)


class _Replay:
    """Moves queries through the tables of a plan, grouping those with the same observations."""

    def __init__(
        self, plan: Rule, columns: LogArrays, own_costs: Sequence[float] | None = None
    ) -> None:
        n, shape = len(columns), columns.quality.shape
        self.plan, self.columns, self.own_costs = plan, columns, own_costs
        self.model, self.table = np.full(n, -1), np.full(n, -1)
        self.cost, self.expected = np.zeros(n), np.full(n, np.nan)
        self.checks = {name: columns.alone(name) for name in (None, *columns.checks)}
        # For the latest answer, by check: the number of verdicts drawn, and whether the check was
        # made.
        self.drawn: dict[str | None, Ints]
        self.drawn = {name: np.zeros(n, dtype=np.int64) for name in self.checks}
        self.made: dict[str | None, Mask]
        self.made = {name: np.zeros(n, dtype=bool) for name in self.checks}
        self._numbers: dict[tuple[str | None, int], Ints] = {}
        for encoding in (encoding for table in plan.tables for encoding in table.checks):
            if encoding.name not in self.checks:
                raise AutoMixError(
                    f"The log has no check {encoding.name!r}, which the policy asks for; it has "
                    f"{sorted(columns.checks)} beside the first."
                )
        self.paths = Trajectories(
            np.zeros(shape, dtype=bool),
            np.zeros(shape, dtype=bool),
            np.zeros(shape, dtype=np.int64),
            np.zeros(shape),
        )

    def run(self) -> Outcomes:
        self._apply(self.plan.opening, np.arange(len(self.columns)))
        for index, table in enumerate(self.plan.tables):
            here = np.flatnonzero(self.table == index)
            while len(here):
                self._step(table, here)
                here = here[self.table[here] == index]
        is_kept = self.model >= 0
        quality = self.columns.quality[np.arange(len(is_kept)), np.maximum(self.model, 0)]
        if np.isnan(quality[is_kept]).any():
            raise AutoMixError("The log does not say how a model did that the policy chooses.")
        return Outcomes(
            self.model,
            np.where(is_kept, quality, 0.0),
            self.cost,
            self.paths.drawn.sum(axis=1),
            self.paths.asked.sum(axis=1),
            np.where(is_kept, self.expected, np.nan),
            self.paths,
        )

    def _step(self, table: Table[Row], queries: Ints) -> None:
        """Take the next step of the queries that are at a table."""
        observed = [self._observe(encoding, table.model, queries) for encoding in table.encodings]
        # One number per group, encoding which models have answered and what each check found.
        in_play = np.array(self.plan.plays)
        codes = self.paths.asked[queries][:, in_play] @ (1 << np.arange(len(in_play)))
        for index, findings in observed:
            codes = codes * len(findings) + index
        following: dict[PlannedAction, list[Ints]] = {}
        for group in groups(codes):
            first = group[0]
            each = [findings[index[first]] for index, findings in observed]
            pairs = zip(table.encodings, each, strict=True)
            row = next_action(
                self.plan,
                table,
                [observation for observation, _ in each],
                [encoding.name for encoding, (_, is_spent) in pairs if is_spent],
                self.paths.asked[queries[first]].nonzero()[0].tolist(),
                self.columns.models,
            )
            for chosen, part in self._by_own_cost(row, table, queries[group]):
                following.setdefault(self._next_step(chosen, table, part), []).append(part)
        for step, parts in following.items():
            self._apply(step, np.concatenate(parts) if len(parts) > 1 else parts[0])

    def _by_own_cost(
        self, row: Row | None, table: Table[Row], queries: Ints
    ) -> Iterator[tuple[Row | None, Ints]]:
        """Yield rows adapted to each query's own answer cost, with queries grouped by step."""
        means = self.own_costs
        if row is None or means is None or row.step.action == "verify" or not row.quality:
            yield row, queries
            return
        answered, whole = np.flatnonzero(self.paths.asked[queries[0]]).tolist(), row.whole()

        def scaled(relative: float) -> DecisionRow:
            weight = self.plan.cost_weight * relative
            return reweighed(whole, self.plan, self.columns.models, means, answered, weight)

        costs = self.columns.cost[queries, table.model].tolist()
        relative = np.array([relative_cost(cost, means[table.model]) for cost in costs])
        usual, doubled = scaled(1.0).values, scaled(2.0).values
        values = np.array([usual[o] + (relative - 1) * (doubled[o] - usual[o]) for o in usual])
        best = values.argmax(axis=0)
        # As in the router, a query whose answer has the usual cost keeps its row.
        best[relative == 1] = -1
        for option in np.unique(best).tolist():
            part = np.flatnonzero(best == option)
            yield (row if option < 0 else scaled(float(relative[part[0]]))), queries[part]

    def _observe(
        self, encoding: CheckEncoding, model: int, queries: Ints
    ) -> tuple[Ints, list[tuple[Observation, bool]]]:
        """Return what a check of each answer found and whether it is spent: indices and a list."""
        check, made = self.checks[encoding.name], self.made[encoding.name][queries]
        if encoding.kind == "score":
            score = check.score[queries, model]
            bins = in_bins(np.nan_to_num(score), np.asarray(encoding.edges)) + 1
            return 2 * np.where(made & ~np.isnan(score), bins, 0) + made, [
                ((number,), is_spent)
                for number in range(len(encoding.edges) + 2)
                for is_spent in (False, True)
            ]
        drawn = self.drawn[encoding.name][queries]
        is_last = made & (self._recorded(queries, model, encoding.name) <= drawn)
        longest = int(drawn.max())
        verdicts = check.verdicts[queries, model, :longest]
        is_drawn = np.arange(longest) < drawn[:, None]
        kinds = (ACCEPT, REJECT, INVALID)
        counts = [((verdicts == kind) & is_drawn).sum(axis=1) for kind in kinds]
        shape = (longest + 1, longest + 1, longest + 1, 2, 2)
        codes = np.ravel_multi_index((*counts, made.astype(int), is_last.astype(int)), shape)
        codes, index = distinct(codes, math.prod(shape))
        numbers: dict[tuple[Observation, bool], int] = {}  # scaling makes some of them equal
        merged = []
        found = np.transpose(np.unravel_index(codes, shape)).tolist()
        for accepts, rejects, invalid, is_made, is_over in found:
            observation = encoding.encode(accepts, rejects, invalid, None)
            is_enough = encoding.is_exhausted(accepts + rejects + invalid, invalid)
            is_spent = bool(is_made and (is_over or is_enough or not any(observation)))
            merged.append(numbers.setdefault((observation, is_spent), len(numbers)))
        return np.array(merged)[index], list(numbers)

    def _recorded(self, queries: Ints, model: int, check: str | None) -> Ints:
        """Return how many verdicts the log has on each answer."""
        if (check, model) not in self._numbers:
            drawn: Ints = (self.checks[check].verdicts[:, model] != NOT_DRAWN).sum(axis=1)
            self._numbers[check, model] = drawn
        return self._numbers[check, model][queries]

    def _next_step(self, row: Row | None, table: Table[Row], queries: Ints) -> PlannedAction:
        """Return the step of a row; record the expected quality if an answer ends the query."""
        if row is not None:
            if row.step.then is None:
                quality = dict(zip(self.plan.plays, row.quality, strict=False))
                self.expected[queries] = quality.get(row.step.model, np.nan)
            return row.step
        if (later := next_in_play(self.plan, table.model)) is not None:
            return PlannedAction(action="escalate", model=later, samples=0)
        return PlannedAction(action="answer", model=table.model)

    def _apply(self, step: PlannedAction, queries: Ints) -> None:
        self.table[queries] = -1 if step.then is None else step.then
        self.model[queries] = -1 if step.action == "abstain" else step.model
        if step.action == "escalate":
            self._ask(step.model, queries)
        if step.action in ("escalate", "verify") and step.samples != 0:
            self._check(step, queries)

    def _ask(self, model: int, queries: Ints) -> None:
        self.cost[queries] += self.columns.cost[queries, model]
        if np.isnan(self.cost[queries]).any():
            raise AutoMixError(
                f"The log does not say what {self.columns.models[model]} cost on a query, "
                "which the policy asks."
            )
        self.paths.asked[queries, model] = True
        for name in self.checks:
            self.drawn[name][queries], self.made[name][queries] = 0, False

    def _check(self, step: PlannedAction, queries: Ints) -> None:
        """Draw verdicts or take the score; if the log has fewer or none, take what there is."""
        model, check, drawn = step.model, self.checks[step.check], self.drawn[step.check]
        recorded = self._recorded(queries, model, step.check)
        scored = ~np.isnan(check.score[queries, model])
        number = recorded - drawn[queries]
        if step.samples is not None:
            number = np.minimum(number, step.samples)
        # A check that found nothing, and so has no verdicts, costs as much as any other.
        fixed = np.where((number > 0) | (recorded == 0), check.fixed_cost[queries, model], 0.0)
        price = fixed + np.where(number > 0, number * check.sample_cost[queries, model], 0.0)
        self.cost[queries] += price
        drawn[queries] += number
        self.made[step.check][queries] = True
        self.paths.checked[queries, model] |= scored | (number > 0) | (fixed > 0)
        self.paths.drawn[queries, model] += number
        self.paths.check_cost[queries, model] += price


def groups(codes: Ints) -> list[Ints]:
    """Return the indices of each code, with codes in ascending order."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    ends = [*((ordered[1:] != ordered[:-1]).nonzero()[0] + 1).tolist(), len(order)]
    return [order[start:end] for start, end in pairwise([0, *ends])]


def distinct(codes: Ints, number: int) -> tuple[Ints, Ints]:
    """Return the codes that occur, ascending, and each code's index among them.

    Args:
        codes: At least 0.
        number: An upper limit, which all codes are below.
    """
    if number > _MANY_CODES + len(codes):
        found, places = np.unique(codes, return_inverse=True)
        return found, places
    found = np.bincount(codes, minlength=number).nonzero()[0]
    table = np.empty(number, dtype=np.int64)
    table[found] = np.arange(len(found))
    return found, table[codes]
