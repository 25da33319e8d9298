"""The free check of a calibration: read from the answers, beside the check that was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import (
    AutoMixError,
    AutoMixRunnable,
    CombinedVerifier,
    FunctionVerifier,
    LogProbabilityVerifier,
    POMDPRouter,
    RoutingLog,
    SelfVerifier,
    calibrate,
)
from langchain_automix.calibration.cost_estimate import Estimate
from langchain_automix.models.refusals import LOGPROBS
from tests.calibration.test_calibrate import PRICES, models, number_of, questions, script
from tests.support.builders.scripted_replies import Body, Outcome
from tests.support.servers.openai_server import OpenAIServer, is_check, token


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    LOGPROBS.forget()
    yield
    LOGPROBS.forget()


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        server.script = sure
        yield server


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def sure(body: Body) -> Outcome:
    """The small model is surer of what it knows: even ships."""
    replies = script(body)
    if is_check(body) or not isinstance(replies, list):
        return replies
    even = body["model"] == "large" or number_of(body) % 2 == 0
    return [
        {"content": reply, "logprobs": [token(reply, 0.9 if even else 0.3)]} for reply in replies
    ]


def sends_none(body: Body) -> Outcome:
    replies = script(body)
    return [{"content": r, "logprobs": None} for r in replies] if isinstance(replies, list) else 400


def refuses(body: Body) -> Outcome:
    return 400 if body.get("logprobs") else script(body)


def run(server: OpenAIServer, out: Path, number: int = 6, **settings: Any) -> RoutingLog:
    given = {"prices": PRICES, "concurrency": 1, "verifier": SelfVerifier(samples=4), **settings}
    return calibrate(questions(number), models(server), out=out, **given)


def estimates(server: OpenAIServer, out: Path, **settings: Any) -> tuple[Estimate, RoutingLog]:
    seen: list[Estimate] = []

    def approve(expected: Estimate) -> bool:
        seen.append(expected)
        return True

    log = run(server, out, approve=approve, **settings)
    return seen[0], log


def test_it_comes_with_the_answers_and_costs_nothing(server: OpenAIServer, out: Path) -> None:
    log = run(server, out)
    assert log.checks == ("first", "tokens")
    assert len(server.requests) == 3 * 6, "no request more than without it"
    for place, query in enumerate(log):
        small, large = query.answers
        assert small.verification is not None
        assert small.checks["tokens"].score == pytest.approx(0.9 if place % 2 == 0 else 0.3)
        assert small.checks["tokens"].total_cost == 0
        assert not large.checks
    asked = [body for body in server.requests if body.get("logprobs")]
    assert {body["model"] for body in asked} == {"small"}, "the last answer is not checked"
    assert len(asked) == 6


def test_the_estimate_says_that_it_is_free(server: OpenAIServer, out: Path) -> None:
    expected, _ = estimates(server, out)
    (free,) = (stage for stage in expected.stages if stage.is_free)
    assert (free.stage, free.model, free.check, free.calls) == ("check", "small", "tokens", 0)
    assert free.cost == (0.0, 0.0)
    assert expected.calls == len(server.requests)


def test_a_fit_may_choose_it_and_the_mix_by_the_policy_reads_it(
    server: OpenAIServer, out: Path, tmp_path: Path
) -> None:
    log = run(server, out, 60)
    policy = tmp_path / "policy.json"
    POMDPRouter.fit(log, max_loss=0.01).save(policy)
    read = POMDPRouter.load(policy).policy
    assert any(plan.opening.check == "tokens" for plan in read.plans)
    server.requests.clear()
    for mix in (
        AutoMixRunnable.from_policy(policy, *models(server)),
        # The check that was asked for is known by the policy, the free one beside it.
        AutoMixRunnable(models=models(server), verifier=SelfVerifier(samples=4), router=policy),
    ):
        kept = [
            mix.invoke(f"Where was ship {i} built?").response_metadata["automix"]["model"]
            for i in (100, 101)
        ]
        assert kept == ["small", "large"]
    assert not any(map(is_check, server.requests))


def test_a_check_of_the_users_own(server: OpenAIServer, out: Path, tmp_path: Path) -> None:
    def is_long(answer: str) -> bool:
        return len(answer) > 4

    own = FunctionVerifier(function=is_long)
    log = run(server, out, 30, verifier=own)
    assert log.checks == ("first", "tokens")
    POMDPRouter.fit(log, max_loss=0.01).save(tmp_path / "policy.json")
    mix = AutoMixRunnable.from_policy(tmp_path / "policy.json", *models(server), verifier=own)
    assert isinstance(mix.verifier, CombinedVerifier)
    assert mix.verifier.fingerprint == log.verifier


@pytest.mark.parametrize("answers", [sends_none, refuses])
def test_where_none_come_the_log_has_none(server: OpenAIServer, out: Path, answers: Any) -> None:
    server.script = answers
    log = run(server, out)
    assert log.checks == ("first",)
    assert log.verifier == SelfVerifier().fingerprint
    assert log[0].metadata is not None
    assert "check" not in log[0].metadata
    assert "check_replies" not in log[0].metadata
    refused = 1 if answers is refuses else 0
    assert len(server.requests) == 3 * 6 + refused, "a refusal is remembered"
    server.requests.clear()
    assert list(run(server, out)) == list(log)
    assert not server.requests


def test_it_can_be_switched_off(server: OpenAIServer, out: Path) -> None:
    log = run(server, out, free_check=False)
    assert log.checks == ("first",)
    assert not any(body.get("logprobs") for body in server.requests)


def test_switched_off_later_nothing_is_asked_again(server: OpenAIServer, out: Path) -> None:
    run(server, out)
    server.requests.clear()
    assert run(server, out, free_check=False).checks == ("first",)
    assert not server.requests


def test_a_log_that_was_begun_without_it_goes_on_without(server: OpenAIServer, out: Path) -> None:
    run(server, out, 3, free_check=False)
    server.requests.clear()
    expected, log = estimates(server, out)
    assert log.checks == ("first",)
    assert len(server.requests) == 3 * 3
    assert not any(body.get("logprobs") for body in server.requests)
    assert any("begun without the log-probabilities" in note for note in expected.notes)


def test_a_killed_run_goes_on_with_it(server: OpenAIServer, out: Path) -> None:
    run(server, out, 3)
    kept = Path(f"{out}.journal").read_text().splitlines()
    lines = [line for line in kept if "row" not in json.loads(line)]
    Path(f"{out}.journal").write_text("\n".join(lines) + "\n")
    server.requests.clear()
    log = run(server, out)
    assert log.checks == ("first", "tokens")
    assert len(server.requests) == 3 * 3
    assert all(query.answers[0].checks["tokens"].score for query in log)


@pytest.mark.parametrize(
    "given",
    [
        CombinedVerifier(checks={"self": SelfVerifier(samples=2)}),
        LogProbabilityVerifier(statistic="min"),
    ],
)
def test_not_beside_several_checks_or_its_like(server: OpenAIServer, out: Path, given: Any) -> None:
    assert run(server, out, verifier=given).checks == ("first",)


@pytest.mark.parametrize("answers", [sends_none, refuses])
@pytest.mark.parametrize("number", [2, 12])
def test_a_check_of_log_probabilities_that_do_not_come(
    server: OpenAIServer, out: Path, answers: Any, number: int
) -> None:
    server.script = answers
    with pytest.raises(AutoMixError, match="come without log-probabilities.*--check agreement"):
        run(server, out, number, verifier=LogProbabilityVerifier())
    refusals = 2 if answers is refuses else 0
    assert len(server.requests) <= 2 * 3 + refusals, "it ends as soon as that is clear"
    assert not out.exists()
