"""A solved POMDP followed as it is does on every query what its plan does."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import pytest

from langchain_automix import RoutingLog
from langchain_automix.policy.data.arrays import LogArrays, to_arrays
from langchain_automix.policy.fitting.candidates import CandidateFitter
from langchain_automix.policy.fitting.selection import FittedCandidate
from langchain_automix.policy.pomdp import extract_plan as extracting
from langchain_automix.policy.pomdp.extract_plan import compact, extract_plan, solved_rule
from langchain_automix.policy.pomdp.solved_rule import SolvedRule
from langchain_automix.policy.replay import Outcomes, Trajectories, replay_plan
from tests.support.builders.logs_with_extra_checks import several
from tests.support.builders.synthetic_logs import ladder, scored, world


def with_invalid(log: RoutingLog, seed: int) -> RoutingLog:
    """Some verdicts are none."""
    rng, records = np.random.default_rng(seed), list(log.records())
    for record in records:
        check = record["answers"][0]["verification"]
        check["verdicts"] = [None if rng.random() < 0.2 else v for v in check["verdicts"]]
    return RoutingLog(records)


LOGS: dict[str, LogArrays] = {
    "verdicts": to_arrays(world(80, sample_cost=0.02)),
    "verdicts, some invalid": to_arrays(with_invalid(world(80), 1)),
    "scores": scored("peaked", 80, 1),
    "several checks": to_arrays(several(60)),
    "several checks, some invalid": to_arrays(with_invalid(several(60), 2)),
    "several checks, of the last answer too": to_arrays(several(60, of_last=True)),
    "three models": ladder(60, 1, models=3),
}


@cache
def rules(kind: str, weight: float, abstain_value: float | None) -> list[SolvedRule]:
    found: list[FittedCandidate] = CandidateFitter(LOGS[kind]).candidates(weight, abstain_value)
    return [each.rule for each in found if isinstance(each.rule, SolvedRule)]


def same(one: Outcomes, other: Outcomes) -> bool:
    assert one.paths is not None
    assert other.paths is not None
    pairs: list[tuple[Any, Any]] = [
        (getattr(one, each.name), getattr(other, each.name))
        for each in fields(Outcomes)
        if each.name != "paths"
    ]
    pairs += [
        (getattr(one.paths, each.name), getattr(other.paths, each.name))
        for each in fields(Trajectories)
    ]
    return all(np.array_equal(mine, theirs, equal_nan=True) for mine, theirs in pairs)


@pytest.mark.parametrize("kind", LOGS)
@pytest.mark.parametrize("own_costs", [False, True])
def test_it_does_what_its_plan_does(kind: str, own_costs: bool) -> None:
    log, count = LOGS[kind], 0
    means = log.mean(log.cost).tolist() if own_costs else None
    for weight, abstain_value in ((0.01, None), (0.05, 0.4)):
        for rule in rules(kind, weight, abstain_value):
            for whole in (True, False):
                followed = solved_rule(
                    rule.solution, rule.names, label="any", cost_weight=weight, whole=whole
                )
                plan = extract_plan(followed)
                assert same(replay_plan(followed, log, means), replay_plan(plan, log, means))
                # What has been read of a rule does not show in its plan.
                assert extract_plan(followed) == plan
                count += 1
    assert count


def test_a_rule_of_a_large_tree_is_kept_as_its_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    rule, *_ = rules("verdicts", 0.01, None)
    assert compact(rule) is rule
    monkeypatch.setattr(extracting, "_LARGE_TREE", rule.states - 1)
    assert compact(rule) == extract_plan(rule)
