"""Checks bought one by one: never where they could not pay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_automix import Decision, POMDPRouter, RoutingState, Verification, Visit
from langchain_automix.policy.decision.check_values import (
    prospect_of_agreement,
    prospect_of_tokens,
    prospect_of_verdicts,
    unchecked_belief,
)
from langchain_automix.routers.buying import _RATES
from langchain_automix.utils.default_checks import AGREEMENT, SELF, TOKENS, VERDICT_ONLY, ZERO_SHOT
from langchain_automix.verifiers.default import VERDICTS

pytestmark = pytest.mark.filterwarnings("ignore::langchain_automix.UncalibratedWarning")

prices = st.floats(0.001, 200.0)


def state(
    costs: dict[str, float], *checks: tuple[str, Verification], **fields: Any
) -> RoutingState:
    found = Verification(checks=dict(checks))
    visits = (Visit(model_index=0, verification=found),)
    return RoutingState(visits=visits, expected_costs=costs, **fields)


def answers(ratio: float) -> dict[str, float]:
    return {"escalate:small": 1.0, "escalate:large": ratio}


def verdicts(name: str, cost: float) -> dict[str, float]:
    return {f"verify:{name}:{number}": cost * (1 + number / 10) for number in VERDICTS}


def opening(costs: dict[str, float], **fields: Any) -> Decision:
    return POMDPRouter().opening_by_cost(RoutingState(expected_costs=costs, **fields))


NO_TOKENS = (TOKENS, Verification(problem="the answer has no log-probabilities"))


class TestNeverDearerByConstruction:
    @given(prices, prices, prices, prices, st.booleans())
    def test_no_draft_that_is_expected_to_cost_more_than_the_largest(
        self, ratio: float, self_check: float, zero_shot: float, again: float, tokens: bool
    ) -> None:
        costs = {**answers(ratio), **verdicts(SELF, self_check), **verdicts(ZERO_SHOT, zero_shot)}
        costs |= {"verify:tokens:0": 0.0} if tokens else {"verify:agreement:2": again}
        found = opening(costs)
        if found.model_index == 1:
            assert found.samples == 0
            assert "asked at once" in found.why
            return
        ways = [
            1.0 + costs[f"verify:{name}:{n}"] + (1 - kept) * ratio
            for name in (SELF, ZERO_SHOT)
            for n in VERDICTS
            for kept in [prospect_of_verdicts(unchecked_belief(), 0, 0, n, _RATES[name]).kept]
        ]
        ways.append(
            1.0 + (1 - prospect_of_tokens().kept) * ratio
            if tokens
            else 1.0 + again + (1 - prospect_of_agreement(2).kept) * ratio
        )
        assert min(ways) < ratio

    @given(prices, prices, prices, st.sampled_from([None, 0.1, 0.5, 0.8, 0.85, 0.95]))
    def test_no_check_that_could_not_pay(
        self, ratio: float, cost: float, again: float, score: float | None
    ) -> None:
        costs = {**answers(ratio), **verdicts(SELF, cost), "verify:agreement:2": again}
        read = NO_TOKENS if score is None else (TOKENS, Verification(score=score))
        found = POMDPRouter().decide(state(costs, read))
        if found.action == "verify":
            assert found.samples is not None
            name = found.check or SELF
            bought = costs[f"verify:{name}:{found.samples}"]
            assert bought < ratio, "its best outcome would not be cheaper than the largest now"
            assert found.values[f"verify:{name}"] > found.values["answer"]
        else:
            assert found.action in ("answer", "escalate")

    def test_it_gains_more_than_it_costs_in_proportion_to_the_largest(self) -> None:
        gain = prospect_of_agreement(2).gain
        for ratio, expected in ((5.0, "answer"), (100.0, "verify")):
            costs = {**answers(ratio), "verify:agreement:2": 1.2}
            assert POMDPRouter().decide(state(costs, NO_TOKENS)).action == expected
            assert (gain > 0.25 * 1.2 / ratio) == (expected == "verify")

    @pytest.mark.parametrize(("ratio", "first"), [(1.5, 1), (2.0, 1), (5.0, 0), (60.0, 0)])
    def test_where_the_ratio_is_too_small_the_largest_is_asked_at_once(
        self, ratio: float, first: int
    ) -> None:
        assert opening({**answers(ratio), "verify:tokens:0": 0.0}).model_index == first

    def test_a_blind_draft_is_not_made(self) -> None:
        found = opening({**answers(10.0), **verdicts(SELF, 9.0)})
        assert (found.model_index, found.samples) == (1, 0)


class TestWhereMoneyIsShort:
    def test_the_cheapest_is_asked_and_not_the_largest(self) -> None:
        weight = 4 * POMDPRouter().policy.cost_weight
        for costs in ({"verify:tokens:0": 0.0}, verdicts(SELF, 9.0), verdicts(ZERO_SHOT, 0.1)):
            found = opening({**answers(10.0), **costs}, cost_weight=weight)
            assert found.model_index == 0
            kept = POMDPRouter().decide(
                state({**answers(10.0), **costs}, NO_TOKENS, cost_weight=weight)
            )
            assert kept.action == "answer"

    def test_a_low_weight_asks_the_largest(self) -> None:
        weight = POMDPRouter().policy.cost_weight / 10
        costs = {**answers(10.0), "verify:tokens:0": 0.0}
        assert opening(costs, cost_weight=weight).model_index == 1


class TestWhatIsBought:
    def test_tokens_that_say_enough_are_all_that_is_read(self) -> None:
        costs = {**answers(60.0), **verdicts(SELF, 1.0), "verify:tokens:0": 0.0}
        sure = POMDPRouter().decide(state(costs, (TOKENS, Verification(score=0.99))))
        assert (sure.action, sure.model_index) == ("answer", 0)
        unsure = POMDPRouter().decide(state(costs, (TOKENS, Verification(score=0.4))))
        assert (unsure.action, unsure.model_index) == ("escalate", 1)

    def test_a_verdict_where_the_tokens_leave_it_open(self) -> None:
        costs = {**answers(60.0), **verdicts(SELF, 1.0), "verify:tokens:0": 0.0}
        found = POMDPRouter().decide(state(costs, (TOKENS, Verification(score=0.81))))
        assert (found.action, found.check) == ("verify", None), "the check that leads"

    def test_the_examples_are_left_out_where_they_cost_more_than_they_tell(self) -> None:
        for ratio, name in ((1000.0, SELF), (30.0, ZERO_SHOT)):
            costs = {**answers(ratio), **verdicts(SELF, 2.0), **verdicts(ZERO_SHOT, 0.8)}
            found = POMDPRouter().decide(state(costs, NO_TOKENS))
            assert (found.action, found.check or SELF) == ("verify", name)
            assert repr(name) in found.why

    def test_one_self_check_of_an_answer_and_no_more_than_eight_verdicts(self) -> None:
        costs = {**answers(1e6), **verdicts(SELF, 1.0), **verdicts(ZERO_SHOT, 0.1)}
        drawn = 1
        while drawn < 8:
            mixed = tuple(i % 2 == 0 for i in range(drawn))
            made = (ZERO_SHOT, Verification(verdicts=mixed))
            found = POMDPRouter().decide(state(costs, NO_TOKENS, made))
            if found.action != "verify":
                break
            assert found.check == ZERO_SHOT
            assert found.samples is not None
            drawn += found.samples
        assert drawn <= 8
        full = (ZERO_SHOT, Verification(verdicts=(True, False) * 4))
        assert POMDPRouter().decide(state(costs, NO_TOKENS, full)).action != "verify"

    def test_agreement_is_asked_for_once(self) -> None:
        costs = {**answers(1e6), "verify:agreement:2": 1.0, "verify:agreement:4": 2.0}
        assert POMDPRouter().decide(state(costs, NO_TOKENS)).check == AGREEMENT
        made = (AGREEMENT, Verification(verdicts=(True, False)))
        assert POMDPRouter().decide(state(costs, NO_TOKENS, made)).action != "verify"
        failed = (AGREEMENT, Verification(problem="the check failed"))
        assert POMDPRouter().decide(state(costs, NO_TOKENS, failed)).action != "verify"

    def test_what_does_not_end_in_time_is_not_bought(self) -> None:
        costs = {**answers(1e6), **verdicts(VERDICT_ONLY, 1.0)}
        asked = state(costs, NO_TOKENS)
        assert POMDPRouter().decide(asked).action == "verify"
        late = asked.model_copy(update={"time_left": 1.0, "seconds": {"verify": 2.0}})
        assert POMDPRouter().decide(late).action == "answer"

    def test_a_higher_cost_weight_keeps_more(self) -> None:
        costs = {**answers(10.0), "verify:tokens:0": 0.0}
        read = (TOKENS, Verification(score=0.6))
        assert POMDPRouter().decide(state(costs, read)).action == "escalate"
        weight = 3 * POMDPRouter().policy.cost_weight
        assert POMDPRouter().decide(state(costs, read, cost_weight=weight)).action == "answer"

    def test_without_prices_that_is_said(self) -> None:
        costs = {**answers(10.0), "verify:tokens:0": 0.0}
        read = (TOKENS, Verification(score=0.6))
        found = POMDPRouter().decide(state(costs, read, costs_are_nominal=True))
        assert "no price is known" in found.why
        assert "no price" not in POMDPRouter().decide(state(costs, read)).why


@given(st.floats(0, 1), st.floats(0, 1), prices, prices, st.floats(0.1, 4.0))
def test_a_lower_score_never_keeps_what_a_higher_one_does_not(
    one: float, other: float, ratio: float, self_check: float, weight: float
) -> None:
    lower, higher = sorted((one, other))
    costs = {**answers(ratio), **verdicts(SELF, self_check)}
    cost_weight = weight * POMDPRouter().policy.cost_weight
    found = [
        POMDPRouter().decide(
            state(costs, (TOKENS, Verification(score=score)), cost_weight=cost_weight)
        )
        for score in (lower, higher)
    ]
    gains = [each.values["answer"] - each.values["escalate:large"] for each in found]
    assert gains[0] <= gains[1] + 1e-5
    if found[1].action == "escalate":
        assert found[0].action != "answer"


class TestThreeModels:
    def costs(self, middle: float) -> dict[str, float]:
        return {
            "escalate:small": 1.0,
            "escalate:middle": middle,
            "escalate:large": 10.0,
            "verify:tokens:0": 0.0,
        }

    @pytest.mark.parametrize(("middle", "asked"), [(2.0, 1), (9.0, 2)])
    def test_the_next_one_unless_the_largest_is_cheaper(self, middle: float, asked: int) -> None:
        read = (TOKENS, Verification(score=0.4))
        names = ("small", "middle", "large")
        found = POMDPRouter().decide(state(self.costs(middle), read, models=names))
        assert (found.action, found.model_index) == ("escalate", asked)
        assert (found.check, found.samples) == ((TOKENS, None) if asked == 1 else (None, 0))
