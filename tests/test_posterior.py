"""The two-model posterior: against integrals done by brute force, and as a file."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_automix import AutoMixError, POMDPRouter, RoutingLog, RoutingState, Verification
from langchain_automix.evaluation import auroc, replay
from langchain_automix.policy.belief import VerdictBelief, VerdictCell, fit_scores, fit_verdicts
from langchain_automix.policy.posterior import PosteriorPolicy, fit_posterior, prior_policy


def query(
    id: int, small: float, large: float, verdicts: list[bool | None] | float, cost: float = 10.0
) -> dict[str, Any]:
    check = {"score": verdicts} if isinstance(verdicts, float) else {"verdicts": verdicts}
    return {
        "id": str(id),
        "answers": [
            {"model": "small", "quality": small, "cost": 1.0, "verification": check},
            {"model": "large", "quality": large, "cost": cost},
        ],
    }


def world(n: int, seed: int = 1, k: int = 8) -> RoutingLog:
    """Half the answers are right; right ones are accepted at 0.8, wrong ones at 0.3."""
    draw = random.Random(seed)
    queries = []
    for i in range(n):
        right = draw.random() < 0.5
        rate = 0.8 if right else 0.3
        verdicts: list[bool | None] = [draw.random() < rate for _ in range(k)]
        queries.append(query(i, float(right), float(right or draw.random() < 0.8), verdicts))
    return RoutingLog(queries)


cells = st.lists(
    st.tuples(
        st.integers(0, 8), st.integers(0, 8), st.integers(1, 5), st.floats(0, 1), st.floats(0, 1)
    ),
    min_size=1,
    max_size=6,
)


class TestBelief:
    @settings(max_examples=50, deadline=None)
    @given(cells, st.floats(0.3, 5), st.floats(0.3, 5), st.integers(0, 6), st.integers(0, 6))
    def test_it_is_the_posterior_mean(
        self, found: Any, alpha: float, beta: float, accepts: int, rejects: int
    ) -> None:
        """Integrate over the accept rate of each logged query by a sum over a fine grid."""
        belief = VerdictBelief(
            alpha=alpha,
            beta=beta,
            cells=tuple(
                VerdictCell(accepts=a, rejects=r, count=n, quality=(s, b))
                for a, r, n, s, b in found
            ),
        )
        # The middle of equal steps of t, with p = t^4-like ends, where the density may be infinite.
        steps = 4000
        rates = [(i + 0.5) / steps for i in range(steps)]
        rates, widths = (
            [p**4 / (p**4 + (1 - p) ** 4) for p in rates],
            [4 * (p * (1 - p)) ** 3 / (p**4 + (1 - p) ** 4) ** 2 / steps for p in rates],
        )
        weights = []
        for a, r, n, _, _ in found:
            density = [
                w * math.exp((alpha + a - 1) * math.log(p) + (beta + r - 1) * math.log1p(-p))
                for p, w in zip(rates, widths, strict=True)
                if 0 < p < 1
            ]
            inside = [(p, d) for p, d in zip((p for p in rates if 0 < p < 1), density, strict=True)]
            likelihood = sum(d * p**accepts * (1 - p) ** rejects for p, d in inside) / sum(density)
            weights.append(n * likelihood)
        expected = [
            sum(w * cell[3 + j] for w, cell in zip(weights, found, strict=True)) / sum(weights)
            for j in range(2)
        ]
        assert belief.expected_quality(accepts, rejects) == pytest.approx(expected, abs=1e-3)

    def test_no_evidence_gives_the_means_of_the_log(self) -> None:
        belief = fit_verdicts([(8, 0), (0, 8), (4, 4)], [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)])
        assert belief.expected_quality(0, 0) == pytest.approx((1 / 3, 2 / 3))

    def test_more_accepts_raise_the_belief_in_a_checker_that_knows(self) -> None:
        policy = fit_posterior(world(400))
        small = [policy.expected_quality(s, 8 - s)[0] for s in range(9)]
        assert small == sorted(small)
        assert small[0] < 0.1
        assert small[8] > 0.9

    def test_another_number_of_verdicts_than_the_logs(self) -> None:
        policy = fit_posterior(world(400))
        more = policy.expected_quality(20, 4)[0]
        fewer = policy.expected_quality(5, 1)[0]
        assert policy.expected_quality()[0] < fewer < more

    def test_a_checker_at_chance_moves_nothing_much(self) -> None:
        draw = random.Random(3)
        queries = [
            query(i, float(i % 2), 1.0, [draw.random() < 0.6 for _ in range(8)])
            for i in range(2000)
        ]
        policy = fit_posterior(RoutingLog(queries))
        believed = [policy.expected_quality(s, 8 - s)[0] for s in range(2, 8)]
        assert max(believed) - min(believed) < 0.15

    def test_the_fit_finds_the_accept_rates(self) -> None:
        """Verdicts drawn from Beta(3, 2) rates: the empirical-Bayes mean is near 0.6."""
        draw = random.Random(5)
        counts = []
        for _ in range(3000):
            rate = draw.betavariate(3, 2)
            accepts = sum(draw.random() < rate for _ in range(8))
            counts.append((accepts, 8 - accepts))
        belief = fit_verdicts(counts, [(0.0, 1.0)] * len(counts))
        assert belief.alpha / (belief.alpha + belief.beta) == pytest.approx(0.6, abs=0.02)
        assert belief.alpha + belief.beta == pytest.approx(5, rel=0.25)

    def test_scores(self) -> None:
        draw = random.Random(7)
        scores = [draw.random() for _ in range(600)]
        qualities = [(float(draw.random() < s), 0.7) for s in scores]
        belief = fit_scores(scores, qualities)
        for score in (0.1, 0.5, 0.9):
            assert belief.expected_quality(score)[0] == pytest.approx(score, abs=0.12)
        assert belief.expected_quality(0.0)[1] == pytest.approx(0.7)

    @given(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=1, max_size=8), st.floats(0, 1))
    def test_scores_with_ties_and_few_points(self, scores: list[float], asked: float) -> None:
        belief = fit_scores(scores, [(s, 1 - s) for s in scores])
        small, large = belief.expected_quality(asked)
        assert small + large == pytest.approx(1)


class TestFit:
    def test_the_default_weight_is_the_slope_of_random_mixing(self) -> None:
        log = world(300)
        policy = fit_posterior(log)
        small, large = policy.fit.quality
        assert policy.cost_weight == pytest.approx((large - small) / 9.0)

    def test_escalation_is_where_the_benefit_pays(self) -> None:
        policy = fit_posterior(world(300), cost_weight=0.02)
        for row in policy.table:
            quality = policy.expected_quality(row.accepts, row.rejects)
            pays = quality[1] - quality[0] > 0.02 * policy.answer_cost[1]
            assert (row.action == "escalate") == pays

    def test_an_extreme_weight_never_or_always_escalates(self) -> None:
        log = world(200)
        never, always = (POMDPRouter.fit(log, cost_weight=w) for w in (10.0, 0.0))
        assert not any(outcome.escalated for outcome in replay(never, log))
        assert sum(outcome.escalated for outcome in replay(always, log)) > 100

    def test_routing_beats_mixing_at_random_on_new_queries(self) -> None:
        test = world(2000, seed=9)
        outcomes = replay(POMDPRouter.fit(world(300)), test)
        quality = sum(outcome.quality for outcome in outcomes) / len(outcomes)
        rate = sum(outcome.escalated for outcome in outcomes) / len(outcomes)
        small, large = (sum(q.answers[j].quality or 0 for q in test) / len(test) for j in range(2))
        assert quality > small + rate * (large - small) + 0.05

    def test_deterministic(self) -> None:
        assert fit_posterior(world(100)) == fit_posterior(world(100))

    @pytest.mark.parametrize(
        ("queries", "message"),
        [
            ([], "two models; this one has 0"),
            ([{"id": "a", "answers": [{"model": "m", "quality": 1, "cost": 1}]}], "has 1"),
            ([query(1, 0, 1, [True], cost=0.5)], "costs no more than the small one"),
            (
                [{"id": "a", "answers": [{"model": m, "quality": 1, "cost": 1} for m in "sl"]}],
                "nothing to fit",
            ),
            ([query(1, 0, 1, [True]), query(2, 0, 1, 0.5)], "mixes checks"),
        ],
    )
    def test_a_log_that_cannot_be_fitted(self, queries: Any, message: str) -> None:
        with pytest.raises(AutoMixError, match=message):
            fit_posterior(RoutingLog(queries))

    def test_three_queries_are_enough_to_say_something(self) -> None:
        log = RoutingLog([query(i, float(i), 1.0, [bool(i)] * 8) for i in range(2)])
        assert POMDPRouter.fit(log).is_calibrated

    def test_a_large_model_that_is_no_better_is_not_asked(self) -> None:
        log = RoutingLog([query(i, 1.0, 0.0, [True] * 8) for i in range(20)])
        assert not any(outcome.escalated for outcome in replay(POMDPRouter.fit(log), log))


class TestFile:
    def test_it_comes_back_as_saved(self, tmp_path: Path) -> None:
        router = POMDPRouter.fit(world(50), verifier="abc")
        router.save(tmp_path / "policy.json")
        assert POMDPRouter.load(tmp_path / "policy.json") == router
        assert json.loads((tmp_path / "policy.json").read_text())["schema"] == (
            "langchain-automix/policy"
        )

    def test_scores_too(self, tmp_path: Path) -> None:
        log = RoutingLog([query(i, float(i > 5), 1.0, i / 10) for i in range(10)])
        router = POMDPRouter.fit(log)
        router.save(tmp_path / "policy.json")
        again = POMDPRouter.load(tmp_path / "policy.json")
        state = RoutingState.after(Verification(score=0.2), models=("small", "large"))
        assert again.invoke(state) == router.invoke(state)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "not a policy file: it is not JSON"),
            ("{}", "does not say 'langchain-automix/policy'"),
            ("[1]", "does not say"),
            ("[" * 100_000, "not JSON"),
        ],
    )
    def test_not_a_policy_file(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "policy.json").write_text(text)
        with pytest.raises(AutoMixError, match=message):
            POMDPRouter.load(tmp_path / "policy.json")

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(AutoMixError, match="cannot be read"):
            POMDPRouter.load(tmp_path / "policy.json")

    def test_a_table_that_was_edited(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.json"
        POMDPRouter.fit(world(50)).save(path)
        found = json.loads(path.read_text())
        found["table"][0]["action"] = "answer"
        path.write_text(json.dumps(found))
        with pytest.raises(AutoMixError, match="field table"):
            POMDPRouter.load(path)

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_a_damaged_file_is_one_clear_error(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        path = tmp_path_factory.mktemp("p") / "policy.json"
        prior_policy().save(path)
        whole = path.read_text()
        cut = data.draw(st.integers(0, len(whole) - 3))
        junk = data.draw(st.text(max_size=3))
        path.write_text(whole[:cut] + junk + whole[cut + 2 :])
        try:
            again = PosteriorPolicy.load(path)
        except AutoMixError as error:
            assert "\n" not in str(error)
        else:
            assert again.table == again.with_table().table


class TestAuroc:
    @given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30))
    def test_it_is_the_chance_to_rank_right(self, found: list[tuple[float, bool]]) -> None:
        scores, outcomes = [s for s, _ in found], [o for _, o in found]
        pairs = [(g, b) for g, yes in found if yes for b, no in found if not no]
        expected = None
        if pairs:
            expected = sum(1.0 if g > b else 0.5 if g == b else 0.0 for g, b in pairs) / len(pairs)
        assert auroc(scores, outcomes) == (
            expected if expected is None else pytest.approx(expected)
        )

    def test_unknown_scores_are_left_out(self) -> None:
        assert auroc([None, 0.2, 0.8], [True, False, True]) == 1.0


class TestReplay:
    def test_costs_and_verdicts(self) -> None:
        check = {"verdicts": [False, True], "fixed_cost": 2.0, "sample_cost": 0.5}
        found = query(1, 0.0, 1.0, [True])
        found["answers"][0]["verification"] = check
        log = RoutingLog([found])
        [outcome] = replay(POMDPRouter.fit(log, cost_weight=0.0), log)
        assert outcome.escalated
        assert (outcome.quality, outcome.samples) == (1.0, 2)
        assert outcome.cost == pytest.approx(1 + 2 + 2 * 0.5 + 10)

    def test_what_was_not_recorded(self) -> None:
        log = world(20)
        found = query(1, 0.0, 1.0, [True])
        del found["answers"][0]["verification"]
        with pytest.raises(AutoMixError, match="no check of small's answer to query '1'"):
            replay(POMDPRouter.fit(log), RoutingLog([found]))
