"""Fit every family that a policy may come from, and judge each by cross-fitting.

The families are: one model without a check (trivial), a pair of models whose benefit falls with the
confidence (monotone), a pair whose benefit may have any smooth shape (free), a pair with several
checks of the first model's answer read together (joint), and all models with all checks (chain).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial

import numpy as np

from langchain_automix.policy.data.arrays import NOT_DRAWN, Floats, Ints, LogArrays
from langchain_automix.policy.decision.interpreter import Rule
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.score_prior import SHIPPED, ScorePrior
from langchain_automix.policy.decision.table import PlannedAction
from langchain_automix.policy.fitting.fitting_data import fitting_data
from langchain_automix.policy.fitting.selection import FittedCandidate
from langchain_automix.policy.pomdp.backward_induction import Solution, solve
from langchain_automix.policy.pomdp.extract_plan import solved_rule
from langchain_automix.policy.pomdp.many_models import (
    CheckNames,
    Resolutions,
    chain_pomdp,
    joint_pomdp,
    resolutions_of,
)
from langchain_automix.policy.pomdp.model import RoutingPOMDP
from langchain_automix.policy.pomdp.observation_model import BATCHES
from langchain_automix.policy.pomdp.solved_rule import SolvedRule
from langchain_automix.policy.pomdp.two_models import CheckedAnswers, Shape, share_of_labels
from langchain_automix.policy.replay import Outcomes, replay_plan
from langchain_automix.utils.formatting import pluralize

FOLDS = 5
_FEWEST = 5
"""Number of queries below which only trivial policies are candidates, since none can be held
out."""

_COMPLEX = 3
"""Complexity of families with more than two models or several checks."""

CROSS_FIT_ROWS = 20_000
"""Maximum number of cross-fitted queries; more would not make the choice of family more certain."""


_FamilyPOMDPs = tuple[str, int, RoutingPOMDP, list[RoutingPOMDP]]
"""A family's name and complexity, its POMDP, and its POMDPs fitted without each fold."""


def always(models: tuple[str, ...], index: int) -> Plan:
    """Return the plan that asks one model and checks nothing."""
    opening = PlannedAction(action="escalate", model=index, samples=0)
    return Plan(name=f"always:{models[index]}", opening=opening, plays=(index,))


class CandidateFitter:
    """Fits candidates to one log, for any cost weight; caches what does not depend on it.

    Args:
        columns: The log. Candidates are fitted to the complete queries; from the others, only the
            findings of their checks are used.
        seed: Seed for the folds.
        shapes: Shapes of the benefit to try.
        chain: Whether to try policies of more than two models.
        prior: Assumptions about a score before any label; None for no assumptions.
    """

    def __init__(
        self,
        columns: LogArrays,
        *,
        seed: int = 0,
        shapes: tuple[Shape, ...] = ("monotone", "free"),
        chain: bool = True,
        prior: ScorePrior | None = SHIPPED,
    ) -> None:
        # Use a canonical order: shuffling the lines of a log must not change the folds.
        self.data = fitting_data(columns)
        self.labels = int(self.data.labelled.sum())
        """Number of queries with the quality and the cost of every model."""
        self.seed, self.shapes, self.chain, self.prior = seed, shapes, chain, prior
        self._checked: dict[tuple[int, str | None, int | None], CheckedAnswers] = {}
        if self.labels < _FEWEST:
            self.shapes, self.chain = ("monotone",), False
        rows = self.data.labels if self.labels else self.data.queries
        found = {j: rows.checks_of(j) for j in range(len(rows.models) if self.labels else 1)}
        if self.labels and (len(self.data.queries) if prior else self.labels) < _FEWEST:
            found = {}
        self.checks: dict[int, CheckNames] = {j: names for j, names in found.items() if names}
        """For each model whose answers were all checked, the names of its checks."""
        for j, names in self.checks.items():
            for name in names:
                rows.alone(name).is_score(j)  # raises if kinds are mixed
        self.columns = (
            rows
            if self.labels
            else replace(rows, quality=np.broadcast_to(self.level, rows.quality.shape))
        )
        """The labelled queries; without labels, all queries, each with the expected mean
        qualities."""

    @property
    def checkable(self) -> list[int]:
        """Models, except the last, whose answers were checked."""
        return [j for j in self.checks if j < len(self.data.queries.models) - 1]

    @property
    def level(self) -> Floats:
        """(models,): expected mean quality of each model."""
        return self._levels[None]

    @cached_property
    def _levels(self) -> dict[int | None, Floats]:
        """The same for each fold, without its labels; None: with all labels."""
        return {fold: self._level(fold) for fold in (None, *range(len(self.folds)))}

    def _level(self, fold: int | None) -> Floats:
        rows = self.data.labels if fold is None else self.folds[fold][0]
        level: Floats = rows.mean(rows.quality) if len(rows) else np.zeros(len(rows.models))
        if self.prior is None or not self.checkable:
            return level
        base = self.checkable[0]
        answers = self._answers(base, self.checks[base][0], fold)
        for later in (j for j in self.singles if j > base):
            level[base], level[later] = answers.level(later)
        if not self.labels:
            place = np.log(np.maximum(self.data.queries.mean(self.data.queries.cost), 1e-300))
            if place[0] < place[-1]:
                level[1:-1] = np.interp(place[1:-1], place[[0, -1]], level[[0, -1]])
        return level

    @cached_property
    def sample(self) -> Ints:
        """Indices of the queries that are held out in turn, at most `CROSS_FIT_ROWS`."""
        order = np.random.default_rng(self.seed).permutation(self.labels)
        return np.sort(order[:CROSS_FIT_ROWS])

    @cached_property
    def _share(self) -> Floats:
        """Weight of each held-out query; 1 on average."""
        weight = self.columns.weight[self.sample]
        return weight / max(float(weight.mean()), 1e-300)

    @cached_property
    def folds(self) -> list[tuple[LogArrays, Ints]]:
        """For each fold, the queries to fit on, and the indices in `sample` of those held out."""
        number = min(FOLDS, len(self.sample))
        fold = np.random.default_rng(self.seed + 1).permutation(len(self.sample)) % max(number, 1)
        return [
            (self.data.labels.rows(self.sample[fold != f]), np.flatnonzero(fold == f))
            for f in range(number)
        ]

    @cached_property
    def _held_out(self) -> list[LogArrays]:
        """The held-out queries of each fold."""
        return [self.columns.rows(self.sample[out]) for _, out in self.folds]

    @cached_property
    def most(self) -> dict[tuple[int, str | None], int]:
        """Verdicts that may be drawn on each model's answer: as many as every query has, up to 32.

        By model and check; only for checks that draw verdicts.
        """
        found = {}
        rows = self.data.labels if self.labels else self.data.queries
        for j, names in self.checks.items():
            for name in names:
                check = rows.alone(name)
                if not check.is_score(j):
                    drawn = (check.verdicts[:, j] != NOT_DRAWN).sum(axis=1)
                    found[j, name] = min(int(drawn.min()), BATCHES[-1])
        return found

    @property
    def several(self) -> bool:
        """Whether some answers have several checks, or the last model's have any."""
        last = len(self.columns.models) - 1
        return any(len(names) > 1 for names in self.checks.values()) or last in self.checks

    @cached_property
    def _of_pairs(self) -> list[_FamilyPOMDPs]:
        """Families of two models and one check."""
        return [family for pair in self._pairs for family in self._of_one_check(*pair)]

    @cached_property
    def _of_more(self) -> list[_FamilyPOMDPs]:
        """Families of more models or several checks: the joint ones and the chain."""
        families: list[_FamilyPOMDPs] = []
        if not self.chain:
            return families
        for small, large in self._pairs:
            if len(self.checks[small]) > 1:
                pair = partial(self._joint, models=(small, large), checked=(small,))
                families.append(self._family(f"joint:{self._called(small, large)}", pair))
        if len(self.checks) > 1:
            make: Callable[[LogArrays], RoutingPOMDP] = self._chain
            if self.several or any(names != (None,) for names in self.checks.values()):
                models = tuple(range(len(self.columns.models)))
                make = partial(self._joint, models=models, checked=tuple(self.checks))
            families.append(self._family("chain", make))
        return families

    def forget(self) -> None:
        """Release the POMDPs of more models and several checks; they are rebuilt if needed."""
        self.__dict__.pop("_of_more", None)

    @property
    def singles(self) -> list[int]:
        """Models that may be asked alone."""
        last = len(self.data.queries.models) - 1
        # Without labels, nothing is known about the models in between except their prices.
        return list(range(last + 1)) if self.labels else [0, last]

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        """Pairs of a model whose answers are checked and a later model."""
        later = self.singles
        return [(j, k) for j in self.checkable for k in later if k > j]

    def _called(self, small: int, large: int) -> str:
        return f"{self.columns.models[small]}->{self.columns.models[large]}"

    def _of_one_check(self, small: int, large: int) -> Iterator[_FamilyPOMDPs]:
        for name in self.checks[small]:
            full, *folds = (
                self._answers(small, name, fold).pomdps(large, self.shapes, self._levels[fold])
                for fold in (None, *range(len(self.folds)))
            )
            by = "" if name is None else f" by {name}"
            for shape in self.shapes:
                fold_pomdps = [fold[shape] for fold in folds]
                called = f"{shape}:{self._called(small, large)}{by}"
                yield called, 1 if shape == "monotone" else 2, full[shape], fold_pomdps

    def _answers(self, small: int, name: str | None, fold: int | None) -> CheckedAnswers:
        """Return a model's answers with one of their checks, without a fold's labels."""
        key = (small, name, fold)
        if key not in self._checked:
            labels = None if fold is None else self.folds[fold][0]
            most = self.most.get((small, name), 0)
            rows = self.data.checked_by(small, name, most, labels)
            self._checked[key] = CheckedAnswers(rows, small, name, most, self.prior)
        return self._checked[key]

    def _family(self, name: str, make: Callable[[LogArrays], RoutingPOMDP]) -> _FamilyPOMDPs:
        full = _levelled(make(self.columns), self.columns, self.level)
        folds = [
            _levelled(make(train), train, level)
            for (train, _), level in zip(self.folds, list(self._levels.values())[1:], strict=True)
        ]
        return name, _COMPLEX, full, folds

    def _chain(self, columns: LogArrays) -> RoutingPOMDP:
        most = min(self.most.values(), default=0)
        return chain_pomdp(columns, most, self.seed)

    def _joint(
        self, columns: LogArrays, models: tuple[int, ...], checked: tuple[int, ...]
    ) -> RoutingPOMDP:
        return joint_pomdp(columns, models, self._grains[checked], self.seed)

    @cached_property
    def _grains(self) -> dict[tuple[int, ...], dict[int, Resolutions]]:
        """How finely checks are read, by the models whose answers are checked: one or all."""
        which = {*((j,) for j in self.checks), tuple(self.checks)}
        return {
            some: resolutions_of(self.columns, {j: self.checks[j] for j in some}) for some in which
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the reader of the policy on how checks are read together."""
        known = self.columns.notes
        left_out = self.data.left_out
        if left_out:
            known += (
                f"{left_out} of {len(self.columns) + left_out} complete queries lack a "
                "check that most have, or have fewer verdicts than most: they were left out.",
            )
        if not any(len(names) > 1 for names in self.checks.values()):
            return known
        read = self._grains[tuple(self.checks)]
        finest = max(self.checks, key=lambda j: len(self.checks[j]))
        verdicts = max(resolution.verdicts for resolution in read[finest].values())
        bins = max(resolution.bins for resolution in read[finest].values())
        return (
            *known,
            "Where several checks are read together, quality is taken for linear in the ranks of "
            "what they find and in products of two ranks; invalid verdicts are left out, and a "
            f"policy reads at most {verdicts} verdicts and {bins} bins of a score each.",
        )

    @property
    def notes_on_labels(self) -> Iterator[str]:
        """Yield notes on what rests on prior assumptions and how unlabelled queries are used."""
        if not self.checkable or self.prior is None:
            return
        labels = pluralize(self.labels, "labelled query", "labelled queries")
        moved = f", moved by {labels}" if self.labels else ""
        share = share_of_labels(self.labels)
        rest = f" A fit to the labels alone counts for {share:.0%} beside it." if share else ""
        yield (
            "What a check says of an answer is a prior assumption, taken from public logs of other "
            f"models and tasks{moved}.{rest}"
        )
        unlabelled = len(self.data.unlabelled)
        if unlabelled:
            also = "also " if self.labels else ""
            yield (
                f"How the findings of the check are distributed is {also}taken from "
                f"{pluralize(unlabelled, 'query', 'queries')} without a quality of every model."
            )
        if not self.labels:
            yield (
                "No query has a quality of every model, so nothing of this policy was tried: label "
                "some 50 queries, and fit again."
            )

    def candidates(
        self, cost_weight: float, abstain_value: float | None = None, *, most_complex: int = 3
    ) -> list[FittedCandidate]:
        """Return every candidate for a cost weight, the trivial ones first."""
        found = [self._trivial(j, cost_weight) for j in self.singles]
        more = self._of_more if most_complex >= _COMPLEX else []
        for name, complexity, pomdp, fold_pomdps in (*self._of_pairs, *more):
            if complexity > most_complex:
                continue
            solution = solve(pomdp, cost_weight, abstain_value=abstain_value)
            rule = self._rule(solution, name, cost_weight)
            hold_out = partial(self._hold_out, name, fold_pomdps, cost_weight, abstain_value)
            expected, judged = solution.opening[1], self.labels >= _FEWEST
            found.append(FittedCandidate(name, rule, complexity, expected, hold_out, judged))
        return found

    def _hold_out(
        self,
        name: str,
        fold_pomdps: list[RoutingPOMDP],
        cost_weight: float,
        abstain_value: float | None,
    ) -> Floats:
        held_out = np.empty(len(self.sample))
        parts = zip(fold_pomdps, self.folds, self._held_out, strict=True)
        for pomdp, (_, out), held in parts:
            solution = solve(pomdp, cost_weight, abstain_value=abstain_value)
            rule = self._rule(solution, name, cost_weight, whole=False)
            outcomes = replay_plan(rule, held)
            held_out[out] = outcomes.utility(cost_weight, abstain_value)
        return self._share * held_out

    def _trivial(self, model: int, cost_weight: float) -> FittedCandidate:
        utility = self.columns.quality[:, model] - cost_weight * self.columns.cost[:, model]
        cost = float(self.columns.mean(self.columns.cost[:, model]))
        plan = always(self.columns.models, model)
        return FittedCandidate(
            plan.name,
            plan,
            0,
            float(self.level[model]) - cost_weight * cost,
            lambda: self._share * utility[self.sample],
            self.labels >= _FEWEST,
        )

    def _rule(
        self, solution: Solution, name: str, cost_weight: float, *, whole: bool = True
    ) -> Plan | SolvedRule:
        names = self.columns.models
        return solved_rule(solution, names, label=name, cost_weight=cost_weight, whole=whole)

    def replay(self, plan: Rule) -> Outcomes:
        """Replay the fitted log through a plan."""
        return replay_plan(plan, self.columns)


def _levelled(pomdp: RoutingPOMDP, columns: LogArrays, level: Floats) -> RoutingPOMDP:
    """Shift a POMDP's qualities from their means on the labels to the expected means."""
    chosen = list(pomdp.models)
    return replace(pomdp, quality=pomdp.quality + (level - columns.mean(columns.quality))[chosen])
