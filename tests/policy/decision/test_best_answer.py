"""What is kept where a later answer's check cannot go on: the best answer, not the latest."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_automix import POMDPRouter, RoutingLog, RoutingState, Verification, Visit
from langchain_automix.policy.data.arrays import to_arrays
from langchain_automix.policy.decision.observation import CheckEncoding
from langchain_automix.policy.decision.plan import Plan
from langchain_automix.policy.decision.policy import FitStatistics, Policy
from langchain_automix.policy.decision.table import DecisionRow, DecisionTable, PlannedAction
from langchain_automix.policy.replay import replay_plan

ACCEPTS, REJECTS = (True, True), (False, False)


def plan(quality: tuple[float, float, float], *, several: bool) -> Plan:
    """Return a plan that checks a, then b, and wants to check b again."""
    check = "judge" if several else None
    again = PlannedAction(action="verify", model=1, samples=2, then=1, check=check)
    other = PlannedAction(action="escalate", model=1, samples=2, then=1, check=check)
    values = {"answer": max(quality[:2]), "escalate:c": 0.2}
    more = "verify:judge:2" if several else "verify:2"
    row = DecisionRow(seen=(0, 2, 0), step=again, quality=quality, values=values | {more: 0.97})
    shape: dict[str, Any] = {"kind": "verdicts"}
    rows: tuple[DecisionRow, ...] = (row,)
    if several:
        readings = (CheckEncoding(name="judge", kind="verdicts", most=4),)
        shape = {"kind": "several", "checks": readings}
        rows = (row.model_copy(update={"seen": (0, 0, 0)}), row)
    return Plan(
        name="chain",
        opening=PlannedAction(action="escalate", model=0, samples=2, then=0),
        plays=(0, 1, 2),
        tables=(
            DecisionTable(
                model=0, kind="verdicts", rows=(DecisionRow(seen=(2, 0, 0), step=other),)
            ),
            DecisionTable(model=1, rows=rows, **shape),
        ),
    )


def found_on_b(several: bool, *, failed: bool) -> Verification:
    check = Verification(verdicts=REJECTS)
    if failed:
        check = check.and_then(Verification(problem="the check failed"))
    return Verification(checks={"judge": check}) if several else check


def state_after(check_of_b: Verification) -> RoutingState:
    visits = (
        Visit(model_index=0, verification=Verification(verdicts=ACCEPTS)),
        Visit(model_index=1, verification=check_of_b),
    )
    return RoutingState(models=("a", "b", "c"), visits=visits)


def router_of(plan: Plan, quality: tuple[float, float, float]) -> POMDPRouter:
    policy = Policy(
        version=2 if any(table.checks for table in plan.tables) else 1,
        models=("a", "b", "c"),
        cost_weight=1.0,
        plans=(plan,),
        fit=FitStatistics(queries=9, quality=quality, cost=(0.0, 0.0, 0.1)),
    )
    return POMDPRouter(policy=policy)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("way", ["failed", "deadline", "log"])
@pytest.mark.parametrize("quality", [(0.9, 0.3, 0.95), (0.3, 0.9, 0.95)])
def test_the_best_answer_is_kept(
    several: bool, way: str, quality: tuple[float, float, float]
) -> None:
    best = 0 if quality[0] > quality[1] else 1
    chosen = plan(quality, several=several)
    if way == "log":
        verification: dict[str, Any] = {"verdicts": list(REJECTS)}
        on_b: dict[str, Any] = (
            {"checks": {"judge": verification}} if several else {"verification": verification}
        )
        answers = [
            {"model": "a", "quality": 1.0, "cost": 1.0, "verification": {"verdicts": [*ACCEPTS]}},
            {"model": "b", "quality": 0.0, "cost": 1.0} | on_b,
            {"model": "c", "quality": 1.0, "cost": 9.0},
        ]
        outcomes = replay_plan(chosen, to_arrays(RoutingLog([{"id": "q", "answers": answers}])))
        assert (outcomes.model[0], outcomes.expected[0]) == (best, 0.9)
        return
    state = state_after(found_on_b(several, failed=way == "failed"))
    if way == "deadline":
        state = state.model_copy(update={"time_left": 1.0, "seconds": {"verify": 2.0}})
    decision = router_of(chosen, quality).invoke(state)
    assert (decision.action, decision.model_index) == ("answer", best)
    assert f"keeping {'ab'[best]}'s answer" in decision.why


@pytest.mark.parametrize("several", [False, True])
def test_after_a_failed_check_the_values_are_by_the_cost_weight_of_the_query(several: bool) -> None:
    quality = (0.3, 0.9, 0.95)
    state = state_after(found_on_b(several, failed=True))
    state = state.model_copy(update={"cost_weight": 2.0})
    decision = router_of(plan(quality, several=several), quality).invoke(state)
    assert (decision.action, decision.model_index) == ("answer", 1)
    assert decision.values == pytest.approx({"answer": 0.9, "escalate:c": 0.2 - 2.0 * 0.1})
