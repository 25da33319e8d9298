"""Alarms come soon after a change, and not without one."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("river", reason="the extra `learning` is not installed")

from langchain_automix.learning.drift import Alarm, DriftMonitor, Signals


def _alarms(signals: list[Signals]) -> list[tuple[int, Alarm]]:
    monitor = DriftMonitor()
    found = [(i, monitor.update(each)) for i, each in enumerate(signals)]
    return [(i, alarm) for i, alarm in found if alarm is not None]


def _quiet(
    n: int, seed: int, *, level: float = 0.6, cost: float = 1.0, at: int = 0
) -> list[Signals]:
    rng = np.random.default_rng(seed)
    return [
        Signals(
            version=1,
            at=float(at + i),
            confidence=float(np.clip(rng.normal(level, 0.2), 0, 1)),
            escalated=bool(rng.random() < 1 - level),
            agreement=float(rng.random() < level) if rng.random() < 0.1 else None,
            cost=float(cost * np.exp(rng.normal(0, 0.5))),
        )
        for i in range(n)
    ]


def test_nothing_changes_and_nothing_is_said() -> None:
    alarms = sum(len(_alarms(_quiet(5_000, seed))) for seed in range(4))
    assert alarms <= 2  # at most one in 10,000 queries


def test_a_change_of_confidence_is_noticed() -> None:
    [(when, alarm), *_] = _alarms([*_quiet(1_000, 1), *_quiet(1_000, 2, level=0.3)])
    assert 1_000 <= when < 1_300
    assert alarm.signal in ("confidence", "escalations")
    assert alarm.after < alarm.before or alarm.signal == "escalations"
    assert "has changed from" in str(alarm)


def test_a_small_change_is_noticed() -> None:
    [(when, alarm), *_] = _alarms([*_quiet(1_000, 3), *_quiet(1_000, 4, level=0.52)])
    assert 1_000 <= when < 1_500
    assert alarm.after < alarm.before or alarm.signal == "escalations"


def test_an_alarm_says_when_the_change_began_and_what_it_was() -> None:
    shifted = _quiet(1_000, 2, level=0.3, at=1_000)
    [(when, alarm), *_] = _alarms([*_quiet(1_000, 1), *shifted])
    assert alarm.unchanged_to < when  # it is noticed later
    assert alarm.unchanged_to == pytest.approx(999, abs=20)
    by_confidence = {"confidence": (0.6, 0.3), "escalations": (0.4, 0.7)}[alarm.signal]
    assert (alarm.before, alarm.after) == pytest.approx(by_confidence, abs=0.08)


def test_doubled_prices_are_noticed() -> None:
    [(when, alarm), *_] = _alarms([*_quiet(1_000, 1), *_quiet(1_000, 2, cost=2.0)])
    assert 1_000 <= when < 1_300
    assert alarm.signal == "cost"
    assert alarm.after == pytest.approx(2 * alarm.before, rel=0.3)


def test_costs_that_are_all_the_same_are_watched_too() -> None:
    [(when, alarm), *_] = _alarms([Signals(1, cost=1.0)] * 500 + [Signals(1, cost=2.0)] * 100)
    assert 500 <= when < 550
    assert (alarm.before, alarm.after) == pytest.approx((1.0, 2.0))


def test_a_query_without_a_cost_tells_nothing_of_costs() -> None:
    costs = [Signals(1, cost=cost) for cost in (None, 0.0, 1.0) * 200]
    assert _alarms(costs) == []


def test_another_version_may_escalate_and_cost_otherwise() -> None:
    before = _quiet(1_000, 1)
    after = [
        Signals(version=2, confidence=each.confidence, escalated=True, cost=9 * (each.cost or 0))
        for each in _quiet(1_000, 2)
    ]
    assert _alarms([*before, *after]) == []
