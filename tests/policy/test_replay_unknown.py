"""A check that was made and paid for, and found nothing: it costs, and it is no evidence."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import (
    POMDPRouter,
    RoutingLog,
    ThresholdRouter,
    TokenProbabilityVerifier,
    calibrate,
    compare_verifiers,
    evaluate,
)
from langchain_automix.calibration.log_writer import ModelTally
from langchain_automix.policy.data.arrays import to_arrays
from langchain_automix.policy.replay import replay_policy
from langchain_automix.routers.base import Router
from tests.calibration.test_calibrate import PRICES, models, questions, script
from tests.support.servers.openai_server import OpenAIServer

PRICE = 0.004


@pytest.fixture(scope="module")
def log() -> RoutingLog:
    """300 queries; on 4 in 10 the check of the small model's answer found nothing."""
    draw, queries = random.Random(1), []
    for i in range(300):
        right = draw.random() < 0.6
        score = min(1.0, max(0.0, draw.gauss(0.75 if right else 0.25, 0.15)))
        check = {"score": None if draw.random() < 0.4 else score, "cost": PRICE}
        small = {"model": "small", "quality": float(right), "cost": 0.001, "verification": check}
        large = {"model": "large", "quality": float(draw.random() < 0.95), "cost": 0.02}
        queries.append({"id": f"q{i}", "answers": [small, large]})
    return RoutingLog(queries)


@pytest.fixture(scope="module")
def fitted(log: RoutingLog) -> POMDPRouter:
    return POMDPRouter.fit(log, cost_weight=15)


def test_it_is_paid_for(log: RoutingLog, fitted: POMDPRouter) -> None:
    columns = to_arrays(log)
    outcomes = replay_policy(fitted.policy, columns, [query.id for query in log])
    assert outcomes.paths is not None
    assert (outcomes.paths.check_cost[:, 0] == PRICE).all()
    assert outcomes.paths.checked[:, 0].all()
    row = compare_verifiers(log, cost_weight=15).rows[0]
    assert row.use == 1.0
    assert row.unknown is not None
    assert row.unknown > 0.3
    assert "lack a check" in " ".join(fitted.policy.fit.notes)


@pytest.mark.parametrize("kind", ["threshold", "prior", "escalate"])
def test_a_router_takes_it_for_unknown(log: RoutingLog, fitted: POMDPRouter, kind: str) -> None:
    router: Router = ThresholdRouter(threshold=0.5)
    if kind != "threshold":
        router = POMDPRouter(policy=fitted.policy, on_unknown=kind)
    found = evaluate(router, log)
    assert found.cost > 0.001 + PRICE


def test_the_log_of_a_calibration_has_its_cost(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        server.script = script
        small, large = models(server)
        log = calibrate(
            questions(2),
            [small, large],
            verifier=TokenProbabilityVerifier(model=large),  # served without log-probabilities
            prices=PRICES,
            out=tmp_path / "log.jsonl",
        )
    for query in log:
        check = query.answers[0].verification
        assert check is not None
        assert check.confidence is None
        assert check.total_cost > 0
    assert list(RoutingLog.read(tmp_path / "log.jsonl")) == list(log)


def test_the_running_mean_counts_every_check() -> None:
    tally = ModelTally("small")
    judged: dict[str, Any] = {"quality": 1.0, "cost": 0.001}
    tally.add(judged | {"checks": {"judge": {"score": 0.5, "cost": 0.01}}})
    tally.add(judged | {"verification": {"score": None, "cost": 0.02}})
    tally.add(judged)
    figures = tally.figures()
    assert figures.checks == 2
    assert figures.check_cost == pytest.approx(0.015)
