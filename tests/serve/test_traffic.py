"""What queries come to, since the start and in the last minutes."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_automix.serve import ServedQuery
from langchain_automix.serve.traffic import Latencies, Traffic

NOW = 1_000_000 * 60.0


def query(minutes_ago: float = 0.0, **fields: Any) -> ServedQuery:
    known = {"mix": "mix", "outcome": "kept", "cost": Decimal("0.25"), "largest_alone": Decimal(1)}
    return ServedQuery(at=NOW - 60 * minutes_ago, id="chatcmpl-1", **{**known, **fields})


def told(*queries: ServedQuery) -> dict[str, Any]:
    traffic = Traffic()
    for each in queries:
        traffic.add(each)
    return traffic.to_json(NOW)


def test_unknown_costs_are_in_no_sum() -> None:
    total = told(
        query(is_estimate=True),
        query(outcome="escalated", cost=Decimal(2)),
        query(cost=None),
        query(largest_alone=None),
        query(outcome="failed", cost=Decimal(3), largest_alone=None),
    )["windows"]["start"]
    assert total["outcomes"] == {"kept": 3, "escalated": 1, "failed": 1}
    assert (total["queries"], total["unpriced"]) == (5, 1)
    assert total["cost"] == 0.25 + 2 + 0.25 + 3  # what failed was paid, too
    assert (total["compared"], total["compared_cost"], total["alone"]) == (2, 2.25, 2.0)
    assert total["estimated"] == 1


def test_windows_hold_what_is_as_old_at_most() -> None:
    ages = (70, 59, 20, 14, 6, 4, 0)
    windows = told(*(query(age) for age in ages))["windows"]
    assert {name: window["queries"] for name, window in windows.items()} == {
        "5": 2,
        "15": 4,
        "60": 6,
        "start": 7,
    }


def test_memory_is_bounded_however_long_it_runs() -> None:
    traffic = Traffic()
    for age in range(5_000, 0, -1):
        traffic.add(query(age))
    found = traffic.to_json(NOW)
    assert len(found["minutes"]) < 60
    assert found["windows"]["start"]["queries"] == 5_000


def test_a_clock_that_is_set_back_leaves_the_windows_as_they_are() -> None:
    traffic = Traffic()
    for minutes_ago in (-600, -599, 61, 30, 0):  # the clock was ten hours ahead at first
        traffic.add(query(minutes_ago))
    found = traffic.to_json(NOW)["windows"]
    assert [found[each]["queries"] for each in ("5", "15", "60", "start")] == [1, 1, 2, 5]


def test_a_query_that_is_told_a_little_late_stays_in_its_time() -> None:
    traffic = Traffic()
    for minutes_ago in (1, 0, 1):
        traffic.add(query(minutes_ago))
    assert [each["queries"] for each in traffic.to_json(NOW)["minutes"]] == [1, 2]


def test_each_mix_by_itself() -> None:
    total = told(query(), query(mix="other", outcome="escalated"))["windows"]["start"]
    assert total["mixes"]["mix"]["outcomes"] == {"kept": 1}
    assert total["mixes"]["other"]["outcomes"] == {"escalated": 1}


def test_stages_have_times_of_their_own() -> None:
    seconds = ({"draft": 1.0}, {"draft": 3.0, "escalate": 9.0})
    latency = told(*(query(seconds=each, duration=10.0) for each in seconds))["windows"]["5"]
    assert latency["latency"]["draft"]["queries"] == 2
    assert latency["latency"]["escalate"]["median"] == pytest.approx(9.0, rel=0.05)
    assert latency["latency"]["whole"]["p95"] == pytest.approx(10.0, rel=0.05)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_quantile_is_known_to_5_percent(times: list[float], share: float) -> None:
    parts = Latencies(), Latencies()
    for time in times:
        parts[random.random() < 0.5].add(time)
    parts[0].update(parts[1])
    exact = sorted(times)[max(1, -int(-share * len(times) // 1)) - 1]
    assert parts[0].quantile(share) == pytest.approx(exact, rel=0.05)


def test_no_query_has_no_time() -> None:
    assert Latencies().to_json() == {"queries": 0, "median": None, "p95": None}
