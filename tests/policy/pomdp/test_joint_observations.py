"""Several checks of one answer: the solver against brute force, and what must always hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_automix.policy.pomdp.backward_induction import Solution, solve
from langchain_automix.policy.pomdp.combined_observations import (
    JointObservationModel,
    ObservationSize,
    Resolution,
    choose_resolution,
    combine,
)
from langchain_automix.policy.pomdp.extract_plan import extract_plan, solved_rule
from langchain_automix.policy.pomdp.model import RoutingPOMDP
from langchain_automix.policy.pomdp.observation_model import (
    CheckAction,
    ObservationModel,
    score_observation_model,
    verdict_observation_model,
)

Checks = Sequence[tuple[str | None, ObservationModel]]
shares = st.floats(0, 1)


@dataclass
class Brute:
    """The best adaptive policy by trying all, on the checks as they are.

    What is known: which models have answered, and a state of each of their checks. It never
    looks at the product of the checks, nor at its draws.
    """

    world: RoutingPOMDP
    checks: Sequence[Checks]
    price: float

    def chances(self, seen: Any) -> Any:
        found = self.world.weight
        for model, states in seen:
            for (_, evidence), state in zip(self.checks[model], states, strict=True):
                found = found * evidence.likelihood[state]
        return found

    def buy(self, seen: Any, which: int, draw: CheckAction) -> float:
        model, states = seen[-1]
        if states[which] not in draw.sources:
            return -np.inf
        row = list(draw.sources).index(states[which])
        before, total = self.chances(seen).sum(), -self.price * draw.price
        for target, ways in zip(draw.targets[row], draw.ways, strict=True):
            now = (*seen[:-1], (model, (*states[:which], int(target), *states[which + 1 :])))
            chance = ways * self.chances(now).sum() / before
            if chance > 0:
                total += chance * self.value(now)
        return float(total)

    def bought(self, seen: Any) -> list[float]:
        return [
            self.buy(seen, which, draw)
            for which, (_, evidence) in enumerate(self.checks[seen[-1][0]])
            for draw in evidence.draws
        ]

    def ask(self, seen: Any, model: int) -> float:
        mass = self.chances(seen)
        alone = float(mass @ self.world.quality[:, model] / mass.sum())
        nothing = (model, (0,) * len(self.checks[model]))
        worth: float = max([alone, *self.bought((*seen, nothing))])
        return worth - self.price * float(self.world.cost[model])

    def value(self, seen: Any) -> float:
        mass = self.chances(seen)
        means = mass @ self.world.quality / mass.sum()
        later = range(seen[-1][0] + 1, len(self.world.models))
        keep = float(max(means[model] for model, _ in seen))
        return max([keep, *self.bought(seen), *(self.ask(seen, j) for j in later)])

    def best(self) -> float:
        return max(self.ask((), j) for j in range(len(self.world.models)))


def score(draw: Any, particles: int, price: float) -> ObservationModel:
    kernel = np.array(draw(st.lists(shares, min_size=2 * particles, max_size=2 * particles)))
    kernel = kernel.reshape(2, particles) + 0.05
    return score_observation_model(kernel / kernel.sum(axis=0), np.array([0.5]), price)


def verdicts(draw: Any, particles: int, price: float) -> ObservationModel:
    counts = st.tuples(st.integers(0, 3), st.integers(0, 3), st.just(0))
    counts = counts.filter(lambda pair: sum(pair) > 1)  # as many as are drawn
    logged = np.array(draw(st.lists(counts, min_size=particles, max_size=particles)))
    return verdict_observation_model(
        logged,
        np.ones(particles),
        max_verdicts=2,
        prices=(0.02, price),
        batches=(1, 2),
        coarse=True,
    )


@st.composite
def worlds(draw: Any, models: int = 2, last: bool = False) -> tuple[RoutingPOMDP, list[Checks]]:
    """Two checks of the first answer; where `last`, one of the last model's, too."""
    particles = draw(st.integers(1, 4))

    def numbers(*shape: int) -> Any:
        size = int(np.prod(shape))
        return np.array(draw(st.lists(shares, min_size=size, max_size=size))).reshape(shape)

    prices = st.floats(0, 0.3)
    second = draw(st.sampled_from([score, verdicts]))
    checks: list[Checks] = [
        [(None, score(draw, particles, draw(prices))), ("b", second(draw, particles, draw(prices)))]
    ]
    checks += [[] for _ in range(models - 1)]
    if last:
        checks[-1] = [("c", score(draw, particles, draw(prices)))]
    weight = numbers(particles) + 0.1
    world = RoutingPOMDP(
        tuple(range(models)),
        weight / weight.sum(),
        numbers(particles, models),
        numbers(models),
        tuple(combine(own) if own else None for own in checks),
    )
    return world, checks


class TestBruteForce:
    @settings(max_examples=50, deadline=None)
    @given(worlds(), st.floats(0, 2))
    def test_two_checks_of_one_answer(self, made: Any, price: float) -> None:
        world, checks = made
        best = Brute(world, checks, price).best()
        assert solve(world, price).opening[1] == pytest.approx(best, abs=1e-9)

    @settings(max_examples=30, deadline=None)
    @given(worlds(last=True), st.floats(0, 2))
    def test_and_one_of_the_last_answer(self, made: Any, price: float) -> None:
        world, checks = made
        best = Brute(world, checks, price).best()
        assert solve(world, price).opening[1] == pytest.approx(best, abs=1e-9)


def evidence_of(world: RoutingPOMDP) -> JointObservationModel:
    found = world.evidence[0]
    assert isinstance(found, JointObservationModel)
    return found


def findings_of(evidence: JointObservationModel) -> list[tuple[int, ...]]:
    """Return what all checks found, in each state, one after the other."""
    return [tuple(chain.from_iterable(found)) for found in evidence.observations]


def bought_by(solution: Solution) -> set[str | None]:
    """Return the checks that the best policy buys in any state that it comes to."""
    plan = extract_plan(
        solved_rule(solution, tuple("ab"), label="any", cost_weight=1.0, whole=False)
    )
    steps = [plan.opening]
    for table in plan.tables:
        steps += [row.step for row in table.rows if row.chance > 0]
    return {step.check for step in steps if step.then is not None}


class TestAlways:
    @settings(max_examples=50, deadline=None)
    @given(worlds(), st.floats(0, 2))
    def test_a_check_more_never_lowers_the_value(self, made: Any, price: float) -> None:
        world, checks = made
        both = solve(world, price).opening[1]
        for one in checks[0]:
            alone = replace(world, evidence=(combine([one]), None))
            assert solve(alone, price).opening[1] <= both + 1e-9

    @settings(max_examples=50, deadline=None)
    @given(worlds(), st.floats(0.01, 2), st.floats(0.001, 0.3))
    def test_a_check_that_tells_nothing_is_never_bought(
        self, made: Any, price: float, own: float
    ) -> None:
        world, checks = made
        flat = np.full((2, len(world.weight)), 0.5)
        noise = score_observation_model(flat, np.array([0.5]), own)
        more = replace(world, evidence=(combine([*checks[0], ("noise", noise)]), None))
        solution = solve(more, price)
        assert solution.opening[1] == pytest.approx(solve(world, price).opening[1], abs=1e-9)
        assert "noise" not in bought_by(solution)

    @settings(max_examples=50, deadline=None)
    @given(worlds(), st.floats(0.01, 2), st.floats(0.001, 0.3))
    def test_the_dearer_of_two_copies_is_never_bought_first(
        self, made: Any, price: float, more: float
    ) -> None:
        """In no state where neither was bought.

        Where both are bought whatever they find, their order makes no difference: a tie.
        """
        world, checks = made
        name, cheap = checks[0][0]
        [draw] = cheap.draws
        dear = replace(cheap, draws=(replace(draw, price=draw.price + more),))
        three = replace(
            world, evidence=(combine([(name, cheap), *checks[0][1:], ("dear", dear)]), None)
        )
        level = solve(three, price).levels[0,]
        findings = findings_of(evidence_of(three))
        bought = {
            option.draw.check: index
            for index, option in enumerate(level.options)
            if option.action == "verify" and option.draw and option.draw.check in (name, "dear")
        }
        neither = [i for i, seen in enumerate(findings) if not seen[0] and not seen[-1]]
        assert not (level.chosen[neither] == bought["dear"]).any()
        worth = {check: level.values[index][neither] for check, index in bought.items()}
        assert (worth["dear"] <= worth[name] + 1e-12).all()

    @settings(max_examples=50, deadline=None)
    @given(worlds(), st.floats(0, 2))
    def test_one_check_alone_is_what_it_was(self, made: Any, price: float) -> None:
        world, checks = made
        for _, evidence in checks[0]:
            plain = replace(world, evidence=(evidence, None))
            alone = replace(world, evidence=(combine([(None, evidence)]), None))
            one, other = solve(plain, price), solve(alone, price)
            assert one.opening[1] == pytest.approx(other.opening[1], abs=1e-12)
            if one.opening[0].draw is None:
                continue
            plans = [
                extract_plan(solved_rule(s, ("a", "b"), label="any", cost_weight=price))
                for s in (one, other)
            ]
            old, new = (plan.tables[0] for plan in plans)
            assert not old.checks
            found = {row.seen: row for row in new.rows}
            for row in old.rows:
                seen = (row.seen[0] + 1,) if evidence.counts is None else row.seen
                same = found[seen]
                assert (same.step, same.quality, same.values) == (row.step, row.quality, row.values)
                assert same.chance == row.chance


class TestOrder:
    """A weak check for little, a strong one for much."""

    def world(self, dear: float) -> RoutingPOMDP:
        right = np.array([1.0] * 6 + [0.0] * 4)
        quality = np.stack([right, np.full(10, 0.9)], axis=1)
        # Of three values: surely wrong, undecided, surely right.
        weak = np.where(right > 0, [[0.05], [0.45], [0.5]], [[0.5], [0.45], [0.05]])
        strong = np.where(right > 0, [[0.02], [0.98]], [[0.98], [0.02]])
        checks: Checks = [
            (None, score_observation_model(strong, np.array([0.5]), dear)),
            ("weak", score_observation_model(weak, np.array([0.3, 0.7]), 0.01)),
        ]
        weight = np.full(10, 0.1)
        return RoutingPOMDP((0, 1), weight, quality, np.array([0.0, 0.5]), (combine(checks), None))

    def test_the_cheap_one_first_and_the_dear_one_where_it_is_undecided(self) -> None:
        plan = extract_plan(
            solved_rule(solve(self.world(0.1), 1.0), ("a", "b"), label="any", cost_weight=1.0)
        )
        assert plan.opening.check == "weak"
        [table] = plan.tables
        steps = {row.seen: row.step for row in table.rows}
        assert (steps[0, 2].action, steps[0, 2].check) == ("verify", None)
        assert steps[0, 3].action == "answer"
        assert steps[0, 1].action == "escalate"
        assert (steps[1, 2].action, steps[2, 2].action) == ("escalate", "answer")

    def test_the_strong_one_alone_where_it_is_cheap(self) -> None:
        plan = extract_plan(
            solved_rule(solve(self.world(0.005), 1.0), ("a", "b"), label="any", cost_weight=1.0)
        )
        assert plan.opening.check is None
        assert plan.opening.then == 0

    def test_names_of_options(self) -> None:
        plan = extract_plan(
            solved_rule(solve(self.world(0.1), 1.0), ("a", "b"), label="any", cost_weight=1.0)
        )
        nothing = plan.tables[0].row_for([(0,), (0,)])
        assert nothing is not None
        assert set(nothing.values) == {"answer", "escalate:b", "verify", "verify:weak"}


class TestProduct:
    @settings(max_examples=40, deadline=None)
    @given(worlds())
    def test_the_outcomes_of_every_draw_are_all_there_is(self, made: Any) -> None:
        evidence = evidence_of(made[0])
        for draw in evidence.draws:
            assert (np.diff(draw.sources) > 0).all()
            after = np.einsum("sop,o->sp", evidence.likelihood[draw.targets], draw.ways)
            assert after == pytest.approx(evidence.likelihood[draw.sources])
            totals = evidence.totals
            assert (totals[draw.targets] > totals[draw.sources][:, None]).all()
            assert (draw.targets > draw.sources[:, None]).all()
        assert len(findings_of(evidence)) == len(evidence.likelihood)
        assert not any(findings_of(evidence)[0])

    def test_errors_that_two_checks_share_are_known(self) -> None:
        """Two checks that err on the same queries say no more than one of them."""
        right = np.array([1.0, 1.0, 1.0, 0.0])
        fooled = np.array([0, 0, 1, 1])  # the third query looks wrong to both
        likelihood = np.stack([fooled == 1, fooled == 0]) * 1.0
        one = score_observation_model(likelihood, np.array([0.5]), 0.0)
        both = combine([(None, one), ("same", one)])
        belief = both.likelihood @ (np.stack([right, np.ones(4)], axis=1) / 4)
        states = {seen: state for state, seen in enumerate(findings_of(both))}
        mean = belief[:, 0] / np.maximum(belief[:, 1], 1e-300)
        assert mean[states[1, 1]] == mean[states[1, 0]] == pytest.approx(0.5)

    def test_the_grain_keeps_the_states_few(self) -> None:
        verdict, levels = ObservationSize(8, is_score=False), ObservationSize(400, is_score=True)
        assert choose_resolution([levels], 100) == Resolution(16, 24)
        found = choose_resolution([verdict, levels, levels], 2500)
        assert found == Resolution(8, 6)
        assert verdict.states(found) * levels.states(found) ** 2 == 45 * 49
        assert ObservationSize(2, is_score=True).states(found) == 3
        assert choose_resolution([levels] * 30, 2500) == Resolution(1, 2)
