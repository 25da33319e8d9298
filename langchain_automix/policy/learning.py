"""Fit every family that a policy may come from, and judge each by cross-fitting.

The families: one model and no check (trivial), a pair of models whose benefit falls with the
confidence (monotone), a pair whose benefit may have any smooth shape (free), and all models
with all checks (chain).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from langchain_automix.errors import AutoMixError
from langchain_automix.policy.belief import BATCHES
from langchain_automix.policy.columns import NOT_DRAWN, Columns, Floats, Ints
from langchain_automix.policy.plan import Candidate, Plan, Step
from langchain_automix.policy.replaying import Outcomes, replay_plan
from langchain_automix.policy.solver import World, solve
from langchain_automix.policy.tables import plan_of
from langchain_automix.policy.worlds import Shape, chain_world, pair_worlds

FOLDS = 5
_FEWEST = 5
"""Queries below which only the trivial policies are candidates: nothing can be held out."""

_LEAST_GAIN = 1e-4
"""Expected gain in utility below which the simplest policy is as good."""

CROSS_FIT_ROWS = 20_000
"""More queries than these do not make the choice among families any surer."""


@dataclass
class Fitted:
    """One candidate, fitted."""

    name: str
    plan: Plan
    complexity: int
    """0 trivial, 1 monotone, 2 free, 3 chain."""

    expected: float
    """Mean utility that its own POMDP expects."""

    hold_out: Callable[[], Floats]
    """Replays each fold with the plan that was fitted without it; only done when needed."""

    @cached_property
    def held_out(self) -> Floats:
        """(n,): utility of each query, times its weight, under the plan fitted without its fold."""
        return self.hold_out()

    @property
    def cross_fitted(self) -> float:
        """Mean of the held-out utilities."""
        return float(self.held_out.mean())

    def record(self, trivial: Fitted) -> Candidate:
        """Return what spoke for this candidate, against the best trivial one."""
        if "held_out" not in self.__dict__:
            return Candidate(name=self.name, expected=self.expected)
        error = _error(self.held_out - trivial.held_out)
        return Candidate(
            name=self.name, expected=self.expected, cross_fitted=self.cross_fitted, error=error
        )


def always(models: tuple[str, ...], index: int) -> Plan:
    """Return the plan that asks one model and checks nothing."""
    opening = Step(action="escalate", model=index, samples=0)
    return Plan(name=f"always:{models[index]}", opening=opening, plays=(index,))


def complete(columns: Columns) -> Columns:
    """Return the queries that a fit can use: every model ran, every checked one was checked.

    Raises:
        AutoMixError: There is none, or there are fewer than two models.
    """
    if len(columns.models) < 2:  # noqa: PLR2004
        raise AutoMixError(
            f"A policy is fitted to a log of two or more models; this one has "
            f"{len(columns.models)}: {list(columns.models)}."
        )
    known = columns.complete
    if not known.any():
        raise AutoMixError(
            "The routing log has no query that all models answered, with quality and cost: there "
            "is nothing to fit."
        )
    rows = columns.rows(known)
    for model in range(len(columns.models) - 1):
        checked = rows.checked(model)
        if checked.mean() >= 0.5:  # noqa: PLR2004  (a check that mostly failed is no evidence)
            rows = rows.rows(checked)
            # A few checks that were cut short must not hold all others down to their length.
            drawn = (rows.verdicts[:, model] != NOT_DRAWN).sum(axis=1)
            rows = rows.rows(drawn >= np.quantile(drawn, 0.1, method="lower"))
    return rows.rows(rows.weight > 0)


class Learner:
    """Fits candidates to one log, for any cost weight; what does not depend on it is kept.

    Args:
        columns: The log; only complete queries are used.
        seed: For the folds.
        shapes: Shapes of the benefit to try.
        chain: Whether to try the policies of more than two models.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        seed: int = 0,
        shapes: tuple[Shape, ...] = ("monotone", "free"),
        chain: bool = True,
    ) -> None:
        self.columns = complete(columns)
        self.seed, self.shapes, self.chain = seed, shapes, chain
        last = len(self.columns.models) - 1
        self.checkable = [
            j for j in range(last) if len(self.columns) and bool(self.columns.checked(j).all())
        ]
        for j in self.checkable:
            self.columns.is_score(j)  # complains about a mixture
        if len(self.columns) < _FEWEST:
            self.checkable = []

    @cached_property
    def sample(self) -> Ints:
        """Queries that are held out in turn, in random order."""
        order = np.random.default_rng(self.seed).permutation(len(self.columns))
        return np.sort(order[:CROSS_FIT_ROWS])

    @cached_property
    def _share(self) -> Floats:
        """Weight of each held-out query, 1 in the mean."""
        weight = self.columns.weight[self.sample]
        return weight / max(float(weight.mean()), 1e-300)

    @cached_property
    def folds(self) -> list[tuple[Columns, Ints]]:
        """Queries to fit on, and places in `sample` of those held out, of each fold."""
        number = min(FOLDS, len(self.sample))
        fold = np.random.default_rng(self.seed + 1).permutation(len(self.sample)) % number
        return [
            (self.columns.rows(self.sample[fold != f]), np.flatnonzero(fold == f))
            for f in range(number)
        ]

    @cached_property
    def most(self) -> dict[int, int]:
        """Verdicts that may be drawn on each model's answer: what every query has, up to 32."""
        drawn = (self.columns.verdicts != NOT_DRAWN).sum(axis=2)
        return {j: min(int(drawn[:, j].min()), BATCHES[-1]) for j in self.checkable}

    @cached_property
    def _worlds(self) -> list[tuple[str, int, World, list[World]]]:
        """Each family's name and complexity, its POMDP, and those without each fold."""
        families = []
        for small in self.checkable:
            for large in range(small + 1, len(self.columns.models)):
                args = (small, large, self.shapes, self.most[small])
                full = pair_worlds(self.columns, *args)
                folds = [pair_worlds(train, *args) for train, _ in self.folds]
                names = f"{self.columns.models[small]}->{self.columns.models[large]}"
                for shape in self.shapes:
                    complexity = 1 if shape == "monotone" else 2
                    worlds = [fold[shape] for fold in folds]
                    families.append((f"{shape}:{names}", complexity, full[shape], worlds))
        if self.chain and len(self.checkable) > 1:
            most = min(self.most.values())
            worlds = [chain_world(train, most, self.seed) for train, _ in self.folds]
            families.append(("chain", 3, chain_world(self.columns, most, self.seed), worlds))
        return families

    def candidates(
        self, cost_weight: float, abstain_value: float | None = None, *, most_complex: int = 3
    ) -> list[Fitted]:
        """Return every candidate for a cost weight, the trivial ones first."""
        found = [self._trivial(j, cost_weight) for j in range(len(self.columns.models))]
        for name, complexity, world, worlds in self._worlds:
            if complexity > most_complex:
                continue
            plan, expected = self._solve(world, name, cost_weight, abstain_value)
            hold_out = partial(self._hold_out, name, worlds, cost_weight, abstain_value)
            found.append(Fitted(name, plan, complexity, expected, hold_out))
        return found

    def _hold_out(
        self, name: str, worlds: list[World], cost_weight: float, abstain_value: float | None
    ) -> Floats:
        held_out = np.empty(len(self.sample))
        for world, (_, out) in zip(worlds, self.folds, strict=True):
            plan, _ = self._solve(world, name, cost_weight, abstain_value)
            outcomes = replay_plan(plan, self.columns.rows(self.sample[out]))
            held_out[out] = outcomes.utility(cost_weight, abstain_value)
        return self._share * held_out

    def _trivial(self, model: int, cost_weight: float) -> Fitted:
        utility = self.columns.quality[:, model] - cost_weight * self.columns.cost[:, model]
        plan = always(self.columns.models, model)
        return Fitted(
            plan.name,
            plan,
            0,
            float(self.columns.mean(utility)),
            lambda: self._share * utility[self.sample],
        )

    def _solve(
        self, world: World, name: str, cost_weight: float, abstain_value: float | None
    ) -> tuple[Plan, float]:
        solution = solve(world, cost_weight, abstain_value=abstain_value)
        plan = plan_of(solution, self.columns.models, label=name, cost_weight=cost_weight)
        return plan, solution.opening[1]

    def replay(self, plan: Plan) -> Outcomes:
        """Send the log that was fitted to through a plan."""
        return replay_plan(plan, self.columns)


def choose(candidates: list[Fitted]) -> tuple[Fitted, list[Candidate]]:
    """Return the candidate to use, and the record of the choice.

    The trivial policies and the monotone pairs compete by the utility that is expected of them:
    their benefit is shrunk towards its mean, so a pair that is no better than one model alone is
    not expected to be. A free shape or a chain must gain a standard error on the folds over
    that winner. And a winner against which the folds speak gives way to the best single model:
    by two standard errors for two models; by one for more, where many pairs were tried.

    On halves of the train splits of the benchmark's logs, the plain rule of one standard error
    over the best single model was too timid: with 50 queries it lost 0.003 where this one
    gained 0.002.
    """
    trivial = max((c for c in candidates if c.complexity == 0), key=lambda c: c.expected)
    simple = [c for c in candidates if c.complexity <= 1]
    best = max(simple, key=lambda c: (c.expected > trivial.expected, c.expected, -c.complexity))
    if best.expected <= trivial.expected + _LEAST_GAIN:
        best = trivial
    bold = [
        (c.cross_fitted, place, c)
        for place, c in enumerate(candidates)
        if c.complexity > 1
        and c.expected > best.expected
        and c.cross_fitted - best.cross_fitted > _error(c.held_out - best.held_out)
    ]
    if bold:
        best = max(bold)[2]
    models = sum(c.complexity == 0 for c in candidates)
    patience = 2.0 if models == 2 else 1.0  # noqa: PLR2004
    doubt = _error(best.held_out - trivial.held_out)
    if best.cross_fitted - trivial.cross_fitted < -patience * doubt:
        best = trivial
    records = [candidate.record(trivial) for candidate in candidates]
    return best, records


def _error(differences: Floats) -> float:
    return float(differences.std() / np.sqrt(max(len(differences), 1)))
