"""What a table says where a score is only known to be so much at most."""

from __future__ import annotations

import pytest

from langchain_automix.policy.decision.interpreter import mixture
from langchain_automix.policy.decision.table import DecisionRow
from langchain_automix.routers.evidence import read
from langchain_automix.types import Verification
from tests.support.builders.score_policies import ANSWER, ESCALATE, score_router


def row(chance: float, small: float, answer: float) -> DecisionRow:
    values = {"answer": answer, "escalate:large": 0.9}
    quality = (small, 0.8)
    return DecisionRow(seen=(0,), step=ESCALATE, chance=chance, quality=quality, values=values)


class TestMixture:
    def test_the_means_by_the_chances(self) -> None:
        found = mixture([row(0.3, 0.1, 0.2), row(0.1, 0.5, 0.6)])
        assert found is not None
        assert found.quality == pytest.approx((0.2, 0.8))
        assert found.values == pytest.approx({"answer": 0.3, "escalate:large": 0.9})
        assert found.chance == pytest.approx(0.4)

    def test_without_chances_all_count_alike(self) -> None:
        found = mixture([row(0.0, 0.1, 0.2), row(0.0, 0.5, 0.6)])
        assert found is not None
        assert found.quality == pytest.approx((0.3, 0.8))

    def test_one_row_is_itself(self) -> None:
        only = row(0.3, 0.1, 0.2)
        assert mixture([only]) is only
        assert mixture([None]) is None


@pytest.mark.parametrize(("most", "chance"), [(0.05, 0.25), (0.2, 0.5), (0.4, 0.75), (0.9, 1.0)])
def test_all_bins_below_count(most: float, chance: float) -> None:
    [plan] = score_router([0.1, 0.3, 0.6], [ESCALATE, ESCALATE, ESCALATE, ANSWER]).policy.plans
    bound = Verification(score=most, is_upper_bound=True)
    found = read(plan, plan.tables[0], bound, {0}, ("small", "large"))
    assert found is not None
    assert found.chance == pytest.approx(chance)
    exact = read(plan, plan.tables[0], Verification(score=most), {0}, ("small", "large"))
    assert exact is not None
    assert exact.chance == pytest.approx(0.25)
