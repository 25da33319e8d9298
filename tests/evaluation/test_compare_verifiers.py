"""Checks compared on logs of which the truth is known, and against slow oracles."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_automix import AutoMixError, Comparison, RoutingLog, compare_verifiers
from langchain_automix.evaluation.comparison import cells
from langchain_automix.evaluation.router_replay import replay_router
from langchain_automix.policy.data.arrays import to_arrays
from langchain_automix.policy.fitting.cross_fitting import CrossFit
from langchain_automix.policy.fitting.fit import indifferent_weight
from langchain_automix.policy.statistics import auroc, auroc_interval
from langchain_automix.routers.pomdp import POMDPRouter

WEIGHT = 0.05


def checked(n: int, seed: int = 3, *, blind: bool = True, **names: Any) -> RoutingLog:
    """60 % are right; verdicts tell 0.8 from 0.4, `sharp` tells nearly all, `blind` nothing."""
    draw = random.Random(seed)
    queries = []
    for i in range(n):
        right = draw.random() < 0.6
        verdicts = [draw.random() < (0.8 if right else 0.4) for _ in range(8)]
        sharp = min(1.0, max(0.0, draw.gauss(0.8 if right else 0.3, 0.15)))
        first = {"verdicts": verdicts, "fixed_cost": 0.1, "sample_cost": 0.05}
        small: dict[str, Any] = {
            "model": "small",
            "quality": float(right),
            "cost": 1.0,
            "verification": first,
            "checks": {
                "sharp": {"score": sharp, "cost": 0.3},
                "blind": {"score": draw.random(), "cost": 0.3},
            },
        }
        if not blind:
            del small["checks"]["blind"]
        large = {"model": "large", "quality": float(right or draw.random() < 0.8), "cost": 10.0}
        queries.append({"id": str(i), "answers": [small, large], **names})
    return RoutingLog(queries)


@pytest.fixture(scope="module", name="log")
def log_fixture() -> RoutingLog:
    return checked(150, metadata={"check": "few-shot"})


@pytest.fixture(scope="module", name="found")
def found_fixture(log: RoutingLog) -> Comparison:
    return compare_verifiers(log, cost_weight=WEIGHT, samples=(2, 8, 99))


class TestSignal:
    def test_a_row_a_check_and_a_row_a_number_of_verdicts(self, found: Comparison) -> None:
        assert [(row.name, row.samples) for row in found.rows] == [
            ("few-shot", 2),
            ("few-shot", 8),
            ("sharp", None),
            ("blind", None),
        ]
        assert {row.answers for row in found.rows} == {150}
        assert {row.unknown for row in found.rows} == {0.0}

    def test_against_a_count_of_pairs(self, log: RoutingLog, found: Comparison) -> None:
        for row, confidence in (
            (found.rows[0], [share(q.answers[0].verification.verdicts[:2]) for q in log]),  # type: ignore[union-attr,index]
            (found.rows[1], [share(q.answers[0].verification.verdicts) for q in log]),  # type: ignore[union-attr]
            (found.rows[2], [q.answers[0].checks["sharp"].score for q in log]),
        ):
            small = [q.answers[0].quality or 0 for q in log]
            large = [q.answers[1].quality or 0 for q in log]
            assert row.auroc == pytest.approx(pairs(confidence, [q > 0.5 for q in small]))
            benefit = [b > a for a, b in zip(small, large, strict=True)]
            assert row.benefit_auroc == pytest.approx(1 - (pairs(confidence, benefit) or 0))

    def test_the_truth_is_found(self, found: Comparison) -> None:
        two, eight, sharp, blind = found.rows
        for row in found.rows:
            assert row.auroc is not None
            assert row.auroc_interval is not None
            assert row.auroc_interval[0] < row.auroc < row.auroc_interval[1]
        assert blind.auroc_interval is not None
        assert blind.auroc_interval[0] < 0.5 < blind.auroc_interval[1]
        assert sharp.auroc_interval is not None
        assert sharp.auroc_interval[0] > 0.9
        assert (two.auroc or 0) < (eight.auroc or 0) < (sharp.auroc or 0)
        assert (blind.explained or 0) < 0.05 < (two.explained or 0) < (sharp.explained or 0)

    def test_prices(self, found: Comparison) -> None:
        assert [row.price for row in found.rows] == pytest.approx([0.2, 0.5, 0.3, 0.3])
        assert [row.price_ratio for row in found.rows] == pytest.approx([0.2, 0.5, 0.3, 0.3])


def share(verdicts: Any) -> float:
    return float(sum(verdicts) / len(verdicts))


def pairs(confidence: list[Any], good: list[bool]) -> float | None:
    """The chance that a good one has more confidence than a bad one, pair by pair."""
    goods = [c for c, g in zip(confidence, good, strict=True) if g]
    bads = [c for c, g in zip(confidence, good, strict=True) if not g]
    wins = [(a > b) + (a == b) / 2 for a in goods for b in bads]
    return sum(wins) / len(wins) if wins else None


class TestUtility:
    def test_against_a_replay_with_routers_fitted_without_each_fold(
        self, log: RoutingLog, found: Comparison
    ) -> None:
        columns = to_arrays(log)
        ids = [query.id for query in log]
        folds = CrossFit(columns, ids, WEIGHT).folds
        for name, row in (("first", found.rows[1]), ("sharp", found.rows[2])):
            alone = log.select(check=name)
            utility = []
            for fold in folds:
                out = set(fold.places.tolist())
                train = alone.select(where=lambda q, out=out: int(q.id) not in out)  # type: ignore[misc]
                router = POMDPRouter.fit(train, cost_weight=WEIGHT)
                utility += [
                    replayed.quality - WEIGHT * replayed.cost
                    for replayed in replay_router(
                        router,
                        alone.select(where=lambda q, out=out: int(q.id) in out),  # type: ignore[misc]
                    )
                ]
            assert row.utility == pytest.approx(np.mean(utility))

    def test_gains_are_over_the_best_single_model(self, log: RoutingLog, found: Comparison) -> None:
        singles = [
            float(np.mean([(q.answers[j].quality or 0) - WEIGHT * (1, 10)[j] for q in log]))
            for j in (0, 1)
        ]
        assert found.without == pytest.approx(max(singles))
        for row in found.rows:
            assert row.gain == pytest.approx(row.utility - found.without)
            assert row.gain_interval[0] <= row.gain <= row.gain_interval[1]
        assert found.rows[2].gain_interval[0] > 0
        assert found.best is found.rows[2]
        assert found.rows[3].gain == 0
        assert found.rows[3].use == 0
        assert found.rows[2].use > 0.9

    def test_all_checks_together(self, found: Comparison) -> None:
        assert found.together is not None
        assert found.together.auroc is None
        best = found.best
        assert best is not None
        assert found.together.utility > found.without

    def test_a_check_that_costs_too_much_is_not_made(self, log: RoutingLog) -> None:
        dear = compare_verifiers(log, cost_weight=5.0, samples=())
        assert [row.use for row in dear.rows] == [0, 0, 0]
        assert dear.best is None
        assert "No check gains anything here" in dear.notes[0]

    def test_the_same_seed_gives_the_same_figures(self) -> None:
        log = checked(60)
        first, second = (
            compare_verifiers(log, cost_weight=WEIGHT, samples=(), seed=5).to_dict()
            for _ in range(2)
        )
        assert first == second


COINS = 200
FACTORS = (0.0, 0.5, 0.9, 1.0, 1.1, 2.0, 4.0)
"""Cost weights as multiples of the indifferent one, where both models are worth the same."""


def coin_log(seed: int, n: int = 40) -> RoutingLog:
    """Draw a log whose check is a free coin: a score, or two verdicts."""
    draw = random.Random(seed)
    small_right, large_right = draw.uniform(0.3, 0.7), draw.uniform(0.4, 0.8)
    queries = []
    for i in range(n):
        coin: dict[str, Any] = {"verdicts": [draw.random() < 0.5 for _ in range(2)]}
        coin |= {"fixed_cost": 0.0, "sample_cost": 0.0}
        if seed % 2:
            coin = {"score": draw.random(), "cost": 0.0}
        qualities = [float(draw.random() < chance) for chance in (small_right, large_right)]
        small = {"model": "small", "quality": qualities[0], "cost": 1.0, "verification": coin}
        large = {"model": "large", "quality": qualities[1], "cost": 10.0}
        queries.append({"id": str(i), "answers": [small, large]})
    return RoutingLog(queries)


class TestACoin:
    """A check that is a coin tells nothing, so it must not seem to gain anything."""

    def test_its_gain_is_not_told_from_0_at_any_cost_weight(self) -> None:
        gains, above, below = [], 0, 0
        for seed in range(COINS):
            log = coin_log(seed)
            weight = FACTORS[seed % len(FACTORS)] * indifferent_weight(to_arrays(log))
            [row] = compare_verifiers(log, cost_weight=weight, samples=()).rows
            gains.append(row.gain)
            above += row.gain_interval[0] > 1e-12
            below += row.gain_interval[1] < -1e-12
        error = np.std(gains) / np.sqrt(COINS)
        assert np.mean(gains) <= 2 * error
        # By chance alone 2.5 % of the intervals lie above 0, and as many below: of 200 at most 10
        # each, but in one of a hundred such tests. A coin that is used loses a little besides.
        assert above <= 10
        assert above + below <= 20

    @pytest.mark.parametrize("seed", range(4))
    def test_at_the_indifferent_weight_no_check_is_worth_what_both_models_are(
        self, seed: int
    ) -> None:
        log = coin_log(seed)
        arrays = to_arrays(log)
        found = compare_verifiers(log, samples=())
        utility = arrays.quality - found.cost_weight * arrays.cost
        assert found.without == pytest.approx(utility.mean(axis=0).max())
        assert found.without == pytest.approx(utility.mean())


class TestWhatIsSaid:
    def test_json_and_markdown(self, found: Comparison) -> None:
        told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert told["best"] == "sharp"
        assert [row["label"] for row in told["rows"]] == [
            "few-shot k=2",
            "few-shot k=8",
            "sharp",
            "blind",
        ]
        text = found.to_markdown()
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        assert len({line.count(" | ") for line in rows}) == 1
        assert any(line.startswith("| **sharp** |") for line in rows)
        assert "all together" in text

    def test_names_are_no_markup(self) -> None:
        log = checked(20, metadata={"check": "a|b [x](http://e)"})
        text = compare_verifiers(log, cost_weight=WEIGHT, samples=()).to_markdown()
        assert r"a\|b \[x\](http://e)" in text

    @pytest.mark.parametrize("check", [["a"], {"a": 1}, 5])
    def test_a_name_that_is_none(self, check: Any) -> None:
        log = checked(20, metadata={"check": check})
        found = compare_verifiers(log, cost_weight=WEIGHT, samples=())
        assert "first" in {row.name for row in found.rows}

    def test_large_gains_are_shown_as_they_are(self, log: RoutingLog) -> None:
        found = compare_verifiers(log, cost_weight=WEIGHT, samples=())
        row = replace(found.rows[0], gain_interval=(-10.25, 20.5), auroc_interval=(0.5, 1.0))
        shown = cells(replace(found, rows=(row,), together=None))[0]
        assert shown[-1] == "-10.250 +20.500"
        assert shown[3] == ".50 1.00"

    def test_a_line_fits_a_terminal(self, found: Comparison) -> None:
        table = str(found).split("\n\n")[1]
        assert max(map(len, table.splitlines())) <= 80

    def test_a_small_log_is_said_to_be_small(self) -> None:
        found = compare_verifiers(checked(12), cost_weight=WEIGHT)
        assert "too small to tell one check from another" in found.notes[0]

    def test_unknown_answers_and_prices(self, log: RoutingLog) -> None:
        records = list(log.records())
        for record in records[:50]:
            del record["answers"][0]["checks"]["sharp"]
        for record in records:
            del record["answers"][0]["checks"]["blind"]["cost"]
            record["metadata"]["check_replies"] = {"sharp": [], "mute": []}
        records.append({**records[0], "id": "new"})
        records[-1]["answers"] = [records[0]["answers"][0], {"model": "large", "quality": None}]
        found = compare_verifiers(RoutingLog(records), cost_weight=WEIGHT, samples=())
        rows = {row.name: row for row in found.rows}
        assert rows["sharp"].answers == 100
        assert rows["sharp"].unknown == pytest.approx(1 / 3)
        assert rows["blind"].price is None
        assert found.left_out == 1
        notes = " ".join(found.notes)
        assert "'sharp' was made of 100 of the 150 answers" in notes
        assert "does not say what the check 'blind' of small's answers cost" in notes
        assert "1 query was left out" in notes
        assert "'mute' found nothing on any answer" in notes

    def test_invalid_verdicts(self) -> None:
        records = list(checked(40).records())
        for record in records:
            check = record["answers"][0]["verification"]
            check["verdicts"] = [None, None, *check["verdicts"][2:]]
        found = compare_verifiers(RoutingLog(records), cost_weight=WEIGHT, samples=(2,))
        two, eight = found.rows[:2]
        assert (two.invalid, two.unknown, two.auroc, two.ece) == (1.0, 1.0, None, None)
        assert (eight.invalid, eight.unknown) == (0.25, 0.0)


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"cost_weight": -1.0}, "cost_weight must be a number of at least 0"),
            ({"cost_weight": float("nan")}, "cost_weight must be a number of at least 0"),
            ({"samples": (0,)}, "draws at least 1 verdict"),
            ({"model": "large"}, "give one of"),
            ({"model": "other"}, "give one of"),
        ],
    )
    def test_arguments(self, log: RoutingLog, settings: Any, said: str) -> None:
        with pytest.raises(AutoMixError, match=said):
            compare_verifiers(log, **settings)

    def test_a_log_without_a_check(self, log: RoutingLog) -> None:
        records = list(log.records())
        for record in records:
            record["answers"][0].update(verification=None, checks={})
        with pytest.raises(AutoMixError, match="no check of small's answers"):
            compare_verifiers(RoutingLog(records), cost_weight=WEIGHT)

    def test_a_log_without_queries(self, log: RoutingLog) -> None:
        with pytest.raises(AutoMixError, match="has 1 such queries"):
            compare_verifiers(log[:1])


class TestArea:
    @given(
        st.lists(
            st.tuples(st.one_of(st.none(), st.integers(0, 4)), st.booleans()),
            min_size=1,
            max_size=30,
        )
    )
    def test_against_a_count_of_pairs(self, drawn: list[tuple[int | None, bool]]) -> None:
        confidence = np.array([np.nan if c is None else c for c, _ in drawn], dtype=float)
        good = np.array([g for _, g in drawn])
        known = [(c, g) for c, g in drawn if c is not None]
        expected = pairs([c for c, _ in known], [g for _, g in known])
        assert auroc(confidence, good) == (None if expected is None else pytest.approx(expected))

    def test_an_interval_holds_what_resampling_by_hand_holds(self) -> None:
        rng = np.random.default_rng(1)
        good = rng.random(80) < 0.5
        confidence = np.round(rng.normal(good * 0.6, 1.0), 1)
        areas = [
            pairs(confidence[draw].tolist(), good[draw].tolist())
            for draw in (rng.integers(80, size=80) for _ in range(400))
        ]
        low, high = np.quantile(np.array(areas, dtype=float), [0.025, 0.975])
        found = auroc_interval(confidence, good)
        assert found is not None
        assert list(found) == pytest.approx([low, high], abs=0.03)

    def test_no_interval_where_there_is_no_area(self) -> None:
        assert auroc_interval(np.array([0.1, 0.2]), np.array([True, True])) is None
        assert auroc_interval(np.array([np.nan]), np.array([True])) is None
