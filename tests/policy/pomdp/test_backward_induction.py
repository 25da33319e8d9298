"""The solver against brute force over all policies, and the belief against integrals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_automix.policy.pomdp.backward_induction import solve
from langchain_automix.policy.pomdp.extract_plan import extract_plan, solved_rule
from langchain_automix.policy.pomdp.likelihood import (
    beta_prior,
    out_of_fold_bandwidth,
    predictive_likelihood,
    rank_kernel,
)
from langchain_automix.policy.pomdp.model import RoutingPOMDP
from langchain_automix.policy.pomdp.observation_model import (
    ObservationModel,
    score_observation_model,
    verdict_observation_model,
)
from langchain_automix.policy.statistics import bin_edges, in_bins, isotonic, ranks

shares = st.floats(0, 1)


def expected(world: RoutingPOMDP, seen: Any) -> tuple[float, Any]:
    """Return the chance of findings, and the mean qualities given them, by definition."""
    weight = world.weight.copy()
    for model, state in seen:
        evidence = world.evidence[model]
        assert evidence is not None
        weight = weight * evidence.likelihood[state]
    return weight.sum(), weight @ world.quality / max(weight.sum(), 1e-300)


def brute(world: RoutingPOMDP, weight: float, abstain: float | None) -> float:
    """Return the value of the best policy by walking the whole tree of findings, slowly."""

    def start(seen: Any, model: int) -> float:
        """Ask a model, and check it or not."""
        price = weight * world.cost[model]
        unchecked = expected(world, seen)[1][model] - price
        evidence = world.evidence[model]
        if evidence is None:
            return float(unchecked)
        drawn = [draws(seen, model, 0, d) for d in range(len(evidence.draws))]
        return float(max(unchecked, *(value - price for value in drawn)))

    def draws(seen: Any, model: int, state: int, place: int) -> float:
        evidence = world.evidence[model]
        assert evidence is not None
        draw = evidence.draws[place]
        if state not in draw.sources:
            return -np.inf
        row = list(draw.sources).index(state)
        before = expected(world, [*seen, (model, state)])[0]
        total = -weight * draw.price
        for target, ways in zip(draw.targets[row], draw.ways, strict=True):
            chance = ways * expected(world, [*seen, (model, target)])[0] / before
            if chance > 0:
                total += chance * value(seen, model, int(target))
        return float(total)

    def value(seen: Any, model: int, state: int) -> float:
        now = [*seen, (model, state)]
        quality = expected(world, now)[1]
        options = [max(quality[m] for m, _ in now)]
        if abstain is not None:
            options.append(abstain)
        options += [start(now, j) for j in range(model + 1, len(world.models))]
        evidence = world.evidence[model]
        assert evidence is not None
        options += [draws(seen, model, state, d) for d in range(len(evidence.draws))]
        return float(max(options))

    return max(start([], j) for j in range(len(world.models)))


@st.composite
def small_worlds(draw: Any) -> RoutingPOMDP:
    models = draw(st.integers(2, 3))
    particles = draw(st.integers(1, 4))

    def numbers(*shape: int) -> Any:
        size = int(np.prod(shape))
        return np.array(draw(st.lists(shares, min_size=size, max_size=size))).reshape(shape)

    weight = numbers(particles) + 0.1
    evidence: list[ObservationModel | None] = []
    for j in range(models - 1):
        price = draw(st.floats(0, 0.5))
        if j == 0 and draw(st.booleans()):
            counts = np.array(
                draw(
                    st.lists(
                        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 1)),
                        min_size=particles,
                        max_size=particles,
                    )
                )
            )
            evidence.append(
                verdict_observation_model(
                    counts, weight, max_verdicts=2, prices=(0.1, price), batches=(1, 2)
                )
            )
        else:
            kernel = numbers(2, particles) + 0.05
            evidence.append(
                score_observation_model(kernel / kernel.sum(axis=0), np.array([0.5]), price)
            )
    return RoutingPOMDP(
        tuple(range(models)),
        weight / weight.sum(),
        numbers(particles, models),
        numbers(models),
        (*evidence, None),
    )


@settings(max_examples=60, deadline=None)
@given(small_worlds(), st.floats(0, 2), st.none() | st.floats(0, 1))
def test_brute_force_agrees(world: RoutingPOMDP, weight: float, abstain: float | None) -> None:
    solution = solve(world, weight, abstain_value=abstain)
    assert solution.opening[1] == pytest.approx(brute(world, weight, abstain), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(small_worlds(), st.floats(0, 1))
def test_a_cut_tree_is_worth_no_more_and_a_plan_is_written(
    world: RoutingPOMDP, weight: float
) -> None:
    exact, cut = solve(world, weight), solve(world, weight, limit=1)
    assert cut.depth == 1
    assert cut.opening[1] <= exact.opening[1] + 1e-12
    names = tuple(f"m{j}" for j in world.models)
    plan = extract_plan(solved_rule(exact, names, label="any", cost_weight=weight))
    assert plan.opening.action == "escalate"


def test_the_cut_tree_loses_little_where_checks_are_honest() -> None:
    """The documented loss of checking at most two of three answers, on 20 random worlds."""
    rng = np.random.default_rng(3)
    losses = []
    for _ in range(20):
        quality = np.sort(rng.random((40, 4)), axis=1) > 0.5
        kernels = [np.where(quality[:, j], 0.8, 0.3) for j in range(3)]
        evidence = tuple(
            score_observation_model(np.stack([1 - k, k]), np.array([0.5]), 0.005 * 2**j)
            for j, k in enumerate(kernels)
        )
        cost = np.array([0.01, 0.05, 0.2, 0.8])
        world = RoutingPOMDP(
            (0, 1, 2, 3), np.full(40, 1 / 40), quality * 1.0, cost, (*evidence, None)
        )
        exact, cut = solve(world, 0.5), solve(world, 0.5, limit=9)
        assert (exact.depth, cut.depth) == (3, 2)
        losses.append(exact.opening[1] - cut.opening[1])
    assert max(losses) < 0.01


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.3, 5),
    st.floats(0.3, 5),
    st.tuples(*[st.integers(0, 6)] * 4),
)
def test_the_likelihood_is_the_integral_over_the_accept_rate(
    alpha: float, beta: float, counts: tuple[int, int, int, int]
) -> None:
    accepts, rejects, logged_accepts, logged_rejects = counts
    # Equal steps of t with rate = t^4 / (t^4 + (1 - t)^4): the density's ends may be infinite.
    t = (np.arange(4000) + 0.5) / 4000
    rate = t**4 / (t**4 + (1 - t) ** 4)
    width = 4 * (t * (1 - t)) ** 3 / (t**4 + (1 - t) ** 4) ** 2
    density = (
        width * rate ** (alpha + logged_accepts - 1) * (1 - rate) ** (beta + logged_rejects - 1)
    )
    integral = (density * rate**accepts * (1 - rate) ** rejects).sum() / density.sum()
    found = predictive_likelihood(
        (np.array([accepts]), np.array([rejects])),
        (np.array([logged_accepts]), np.array([logged_rejects])),
        (alpha, beta),
    )
    assert found[0, 0] == pytest.approx(integral, rel=1e-2)


def test_the_prior_is_found() -> None:
    """Verdicts drawn from Beta(3, 2) rates: the empirical-Bayes mean is near 0.6."""
    rng = np.random.default_rng(5)
    accepts = rng.binomial(8, rng.beta(3, 2, 3000))
    alpha, beta = beta_prior(accepts, 8 - accepts, np.ones(3000))
    assert alpha / (alpha + beta) == pytest.approx(0.6, abs=0.02)
    assert alpha + beta == pytest.approx(5, rel=0.25)


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3).filter(any), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_chances_of_all_outcomes_of_a_draw_sum_to_one(counts: Any) -> None:
    logged = np.array(counts)
    most = int(logged.sum(axis=1).min())
    evidence = verdict_observation_model(
        logged, np.ones(len(logged)), max_verdicts=most, prices=(0, 0), batches=(1, 2, 3)
    )
    for draw in evidence.draws:
        after = np.einsum("sop,o->sp", evidence.likelihood[draw.targets], draw.ways)
        assert after == pytest.approx(evidence.likelihood[draw.sources])
    # Checks that are longer than the log's are read, too: they follow from the shorter ones.
    totals = evidence.totals
    assert evidence.counts is not None
    for total in range(int(totals.max()) + 1):
        here = np.flatnonzero(totals == total)
        ways = [_orders(state) for state in evidence.counts[here].tolist()]
        assert np.array(ways) @ evidence.likelihood[here] == pytest.approx(np.ones(len(logged)))


def _orders(state: list[int]) -> float:
    return math.factorial(sum(state)) / math.prod(math.factorial(x) for x in state)


def test_heads_of_logged_checks_have_no_bias() -> None:
    """The belief after two verdicts is the mean over all pairs of each query's verdicts."""
    logged = np.array([[3, 1, 0], [1, 3, 0]])
    evidence = verdict_observation_model(
        logged, np.ones(2), max_verdicts=4, prices=(0, 0), batches=(1,)
    )
    assert evidence.counts is not None
    both = evidence.counts.tolist().index([2, 0, 0])
    pairs = [
        len([p for p in itertools.combinations(range(4), 2) if max(p) < a]) / 6 for a in (3, 1)
    ]
    assert evidence.likelihood[both] == pytest.approx(np.array(pairs), abs=0.05)


def test_rank_kernel_and_its_bandwidth() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(400)
    place = ranks(score, np.ones(400))
    edges = bin_edges(score, 10)
    kernel = rank_kernel(place, in_bins(score, edges), len(edges) + 1, 0.05)
    assert kernel.sum(axis=0) == pytest.approx(np.ones(400))
    sharp = out_of_fold_bandwidth(place, (score > 0.5)[:, None] * 1.0, np.ones(400))
    blunt = out_of_fold_bandwidth(place, rng.random((400, 1)), np.ones(400))
    assert sharp < 0.1 < blunt
    assert out_of_fold_bandwidth(place[:2], score[:2, None], np.ones(2)) == 0.64


@given(st.lists(st.tuples(shares, st.floats(0.1, 5)), min_size=1, max_size=8))
def test_isotonic_is_the_closest_rising_sequence(pairs: list[tuple[float, float]]) -> None:
    values, weights = (np.array(column) for column in zip(*pairs, strict=True))
    fitted = isotonic(values, weights)
    assert (np.diff(fitted) >= -1e-12).all()
    assert weights @ fitted == pytest.approx(weights @ values)
    mean = np.average(values, weights=weights)
    assert weights @ (fitted - values) ** 2 <= weights @ (mean - values) ** 2 + 1e-9


def test_a_later_draw_is_never_worth_a_negative_price() -> None:
    """With free verdicts more evidence never hurts (Blackwell)."""
    logged = np.array([[8, 0, 0], [0, 8, 0], [4, 4, 0]])
    quality = np.array([[1.0, 1.0], [0.0, 1.0], [0.5, 0.6]])
    worth = []
    for most in (1, 2, 4, 8):
        evidence = verdict_observation_model(
            logged, np.ones(3), max_verdicts=most, prices=(0, 0), batches=(1, 2)
        )
        world = RoutingPOMDP(
            (0, 1), np.full(3, 1 / 3), quality, np.array([0.1, 1.0]), (evidence, None)
        )
        worth.append(solve(world, 0.4).opening[1])
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(worth))
