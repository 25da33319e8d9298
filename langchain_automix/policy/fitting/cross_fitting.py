"""Judge fits on their own log, each query by a fit that has not seen it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import get_args

import numpy as np

from langchain_automix.errors import AutoMixError, OutOfReachError
from langchain_automix.policy.data.arrays import Floats, Ints, LogArrays, Mask
from langchain_automix.policy.decision.interpreter import Rule
from langchain_automix.policy.decision.policy import Policy
from langchain_automix.policy.fitting.baselines import Family
from langchain_automix.policy.fitting.candidates import FOLDS, CandidateFitter
from langchain_automix.policy.fitting.fit import fit_policy
from langchain_automix.policy.fitting.goal import TARGETS, Goal
from langchain_automix.policy.fitting.selection import FittedCandidate, select_candidate
from langchain_automix.policy.pomdp.extract_plan import compact
from langchain_automix.policy.replay import Outcomes, concatenate, replay_plan, replay_policy

_BOUNDS = (*TARGETS, "max_risk")


@dataclass(frozen=True)
class Fold:
    """The queries held out, and the others."""

    train: LogArrays
    held_out: LogArrays
    places: Ints
    """Indices of the held-out queries in the whole log."""

    seed: int
    """Seed for the inner folds."""

    @cached_property
    def learner(self) -> CandidateFitter:
        """Fits the other queries; caches what does not depend on the cost weight."""
        return CandidateFitter(self.train, seed=self.seed)


@dataclass
class CrossFit:
    """A log in folds, on which anything can be fitted and judged fairly.

    Args:
        data: Complete queries, at least two.
        ids: Ids of the queries.
        cost_weight: Cost weight at which each fold judges, once, whether more than two models or
            several checks pay, since their trees take most of the time.
        seed: Seed for the folds.
    """

    data: LogArrays
    ids: Sequence[str]
    cost_weight: float
    seed: int = 0
    _plans: dict[float, list[Rule]] = field(default_factory=dict)

    @cached_property
    def folds(self) -> list[Fold]:
        """Five folds, or one per query if there are fewer queries."""
        n = len(self.data)
        number = min(FOLDS, n)
        fold = np.random.default_rng([self.seed, n]).permutation(n) % number
        found = []
        for f in range(number):
            train = self.data.rows(fold != f)
            places = np.flatnonzero(fold == f)
            found.append(Fold(train, self.data.rows(places), places, self.seed))
        return found

    def plans(self, cost_weight: float) -> list[Rule]:
        """Return the plan that each fold's fit chooses at a cost weight."""
        chains = self._chains  # this also caches the plans at its own cost weight
        if cost_weight not in self._plans:
            self._plans[cost_weight] = [
                compact(_fitted(fold.learner, cost_weight, 3 if chain else 2).rule)
                for fold, chain in zip(self.folds, chains, strict=True)
            ]
        return self._plans[cost_weight]

    @cached_property
    def _chains(self) -> list[bool]:
        """Whether each fold's fit chooses a policy of more than two models or several checks."""
        if len(self.data.models) == 2 and not any(fold.learner.several for fold in self.folds):  # noqa: PLR2004
            return [False for _ in self.folds]
        chosen: list[bool] = []
        plans: list[Rule] = []
        for fold in self.folds:
            fitted = _fitted(fold.learner, self.cost_weight)
            chosen.append(fitted.complexity == 3)  # noqa: PLR2004
            plans.append(compact(fitted.rule))
            if not chosen[-1]:
                fold.learner.forget()
        self._plans[self.cost_weight] = plans
        return chosen

    def at(self, cost_weight: float) -> Outcomes:
        """Return the outcome of each query under the plan fitted without its fold."""
        plans = self.plans(cost_weight)
        return concatenate(
            [
                (fold.places, replay_plan(plan, fold.held_out))
                for fold, plan in zip(self.folds, plans, strict=True)
            ]
        )

    def uses_checks(self, cost_weight: float) -> Mask:
        """Return, for each query, whether the plan fitted without its fold makes any check."""
        uses = np.zeros(len(self.data), dtype=bool)
        for fold, plan in zip(self.folds, self.plans(cost_weight), strict=True):
            uses[fold.places] = bool(plan.tables)
        return uses

    def name(self, cost_weight: float) -> str:
        """Return the rules that the folds choose at a cost weight, the most frequent first."""
        names = Counter(plan.name for plan in self.plans(cost_weight))
        return " or ".join(name for name, _ in names.most_common())

    def like(self, policy: Policy) -> tuple[Outcomes, tuple[str, ...]]:
        """Return the outcomes of policies fitted for the same goal without each fold.

        If the goal is out of reach on a fold, the nearest goal within reach is used there.

        Returns:
            The outcomes, and notes on how they were obtained.
        """
        goal, notes = _goal_of(policy)
        family, parts, moved = _family_of(policy), [], Counter[str]()
        for fold in self.folds:
            fitted, name = _nearest(fold.train, goal, family, policy)
            moved.update([name] if name else [])
            ids = [self.ids[place] for place in fold.places.tolist()]
            parts.append((fold.places, replay_policy(fitted, fold.held_out, ids)))
        for name, times in moved.items():
            notes.append(
                f"The goal {name} was out of reach on {times} of the {len(self.folds)} folds; the "
                "nearest goal within reach was fitted for there."
            )
        return concatenate(parts), tuple(notes)

    def with_data(self, change: Callable[[LogArrays], LogArrays], cost_weight: float) -> Floats:
        """Return the cross-fitted utility of each query if the log were changed.

        Args:
            change: Returns the changed log for queries of this one, row by row.
            cost_weight: Cost weight to fit and judge with.
        """
        utility = np.empty(len(self.data))
        for fold in self.folds:
            learner = CandidateFitter(change(fold.train), seed=self.seed, chain=any(self._chains))
            plan = _fitted(learner, cost_weight).rule
            outcomes = replay_plan(plan, change(fold.held_out))
            utility[fold.places] = outcomes.utility(cost_weight)
        return utility

    def with_half(self, cost_weight: float, times: int) -> Floats:
        """Return the utility of each query under fits to random halves of their training queries.

        Args:
            cost_weight: Cost weight to fit and judge with.
            times: How often each fold's training queries are split; both halves are used.

        Returns:
            (n,): means over the halves.
        """
        utility = np.zeros(len(self.data))
        for number, fold in enumerate(self.folds):
            halves = list(_halves(len(fold.train), times, self.seed + number))
            for half in halves:
                rows = fold.train.rows(half)
                learner = CandidateFitter(rows, seed=self.seed, chain=any(self._chains))
                plan = _fitted(learner, cost_weight).rule
                outcomes = replay_plan(plan, fold.held_out)
                utility[fold.places] += outcomes.utility(cost_weight) / len(halves)
        return utility


def _fitted(learner: CandidateFitter, cost_weight: float, most_complex: int = 3) -> FittedCandidate:
    return select_candidate(learner.candidates(cost_weight, most_complex=most_complex))[0]


def _halves(n: int, times: int, seed: int) -> Iterator[Ints]:
    rng = np.random.default_rng(seed)
    for _ in range(times):
        order = rng.permutation(n)
        yield from (half for half in (order[: n // 2], order[n // 2 :]) if len(half))


def _goal_of(policy: Policy) -> tuple[Goal, list[str]]:
    """Return the goal that a policy was fitted for, and a note if the file does not say.

    Without a goal, each fit finds its own indifferent cost weight, as the policy's fit did. With
    the weight of a different set of queries, one single model would beat the other.
    """
    try:
        return Goal.of_record(dict(policy.goal)), []
    except AutoMixError as error:
        note = f"The goal in the policy file cannot be used ({error}); its cost weight was used."
        return Goal(cost_weight=policy.cost_weight), [note]


def _family_of(policy: Policy) -> Family:
    """Return the family that a policy was fitted from, judging by the names of its plans."""
    families = {plan.name.partition(":")[0] for plan in policy.plans} - {"always"}
    known: tuple[Family, ...] = get_args(Family)
    return next((family for family in known if family in families), "automix")


def _nearest(train: LogArrays, goal: Goal, family: Family, policy: Policy) -> tuple[Policy, str]:
    """Fit for a goal, or for the nearest one within reach.

    Returns:
        The policy, and the name of the goal that was out of reach, or an empty text.
    """
    fit = partial(
        fit_policy, train, family=family, seed=policy.seed, foretell=False, own_cost=policy.own_cost
    )
    name = next((n for n in _BOUNDS if getattr(goal, n) is not None), "")
    plain = Goal(cost_weight=policy.cost_weight, abstain_value=goal.abstain_value)
    instead = [plain]
    try:
        return fit(goal), ""
    except OutOfReachError as error:
        # A risk of 1 would be no limit.
        near = min(error.nearest, 1 - 1e-6) if name == "max_risk" else error.nearest
        instead.insert(0, replace(goal, **{name: near}))
    except AutoMixError:  # too few queries are left for the goal or the rule
        pass
    for other in instead:
        with contextlib.suppress(AutoMixError):
            return fit(other), name
    return fit_policy(train, Goal(cost_weight=policy.cost_weight), family="always"), name
