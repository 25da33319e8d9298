"""A calibration with several checks: each is made, priced and kept by itself."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from langchain_automix import (
    AutoMixError,
    CombinedVerifier,
    LogProbabilityVerifier,
    RoutingLog,
    SelfVerifier,
    TokenProbabilityVerifier,
    Verification,
    acalibrate,
    calibrate,
)
from langchain_automix.calibration.cost_estimate import Estimate
from tests.calibration.test_calibrate import PRICES, models, number_of, questions, script
from tests.support.builders.scripted_replies import Body, Outcome
from tests.support.servers.openai_server import OpenAIServer, is_check, token


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        server.script = told
        yield server


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def told(body: Body) -> Outcome:
    """As in `test_calibrate`; one token says Yes of an even ship at 0.9, of an odd one at 0.2."""
    if body.get("top_logprobs"):
        yes = 0.9 if number_of(body) % 2 == 0 else 0.2
        return [
            {"role": "assistant", "content": "Yes", "logprobs": [token("Yes", yes, No=1 - yes)]}
        ]
    return script(body)


def kind(body: Body) -> str:
    """Which call it is: of an answer, or of a check."""
    if body.get("top_logprobs"):
        return f"word of {body['model']}"
    return f"{'check' if is_check(body) else 'answer'} of {body['model']}"


def asked(server: OpenAIServer) -> Counter[str]:
    return Counter(map(kind, server.requests))


def verifier(large: Any, **more: Any) -> CombinedVerifier:
    checks = {
        "few-shot": SelfVerifier(samples=4),
        "word by large": TokenProbabilityVerifier(model=large),
        **more,
    }
    return CombinedVerifier(checks=checks)


def run(server: OpenAIServer, out: Path, number: int = 6, **settings: Any) -> RoutingLog:
    small, large = models(server)
    given = {"verifier": verifier(large), "prices": PRICES, "concurrency": 1, **settings}
    return calibrate(questions(number), [small, large], out=out, **given)


class TestRows:
    def test_the_log_holds_each_check(self, server: OpenAIServer, out: Path) -> None:
        log = run(server, out)
        assert log.checks == ("first", "word by large")
        for place, query in enumerate(log):
            small, large = query.answers
            assert small.verification is not None
            even = place % 2 == 0
            assert small.verification.verdicts == (True, even, even, even)
            assert small.checks["word by large"].score == pytest.approx(0.9 if even else 0.2)
            assert large.verification is None
            assert not large.checks
            assert query.metadata is not None
            assert query.metadata["check"] == "few-shot"
            assert query.metadata["check_replies"]["word by large"] == [["Yes"], []]
        assert asked(server) == {
            "answer of small": 6,
            "answer of large": 6,
            "check of small": 6,
            "word of large": 6,
        }

    def test_each_is_priced_by_its_own_requests(self, server: OpenAIServer, out: Path) -> None:
        log = run(server, out)
        paid: Counter[str] = Counter()
        for body, bill in zip(server.requests, server.billed, strict=True):
            price = PRICES[body["model"]]
            paid[kind(body)] += (
                bill["prompt_tokens"] * price["input"] + bill["completion_tokens"] * price["output"]
            ) / 1e6
        first = [query.answers[0].verification for query in log]
        words = [query.answers[0].checks["word by large"] for query in log]
        assert sum(check.total_cost for check in first if check) == pytest.approx(
            paid["check of small"]
        )
        assert sum(check.total_cost for check in words) == pytest.approx(paid["word of large"])

    def test_in_seconds_each_by_its_own_time(self, server: OpenAIServer, out: Path) -> None:
        server.delay = lambda body: 0.2 if body.get("top_logprobs") else 0.0
        log = run(server, out, 2, unit="seconds", prices=None)
        for query in log:
            small = query.answers[0]
            assert small.verification is not None
            assert small.checks["word by large"].total_cost > 0.2 > small.verification.total_cost

    def test_a_check_is_told_the_request_and_the_earlier_answers(
        self, server: OpenAIServer, out: Path
    ) -> None:
        heard: list[dict[str, Any]] = []

        def listen(given: dict[str, Any]) -> Verification:
            heard.append(given)
            return Verification(score=0.5)

        three = models(server, "small", "middle", "large")
        prices = {**PRICES, "middle": PRICES["large"]}
        check = CombinedVerifier(checks={"ear": RunnableLambda(listen)})
        calibrate(questions(1), three, out=out, verifier=check, prices=prices)
        first, second = heard
        assert [m.text for m in first["request"]] == [
            m["content"] for m in server.requests[0]["messages"]
        ]
        assert first["earlier"] == []
        assert [m.text for m in second["earlier"]] == [first["answer"].text]

    def test_log_probabilities_are_asked_for_and_kept(
        self, server: OpenAIServer, out: Path
    ) -> None:
        _, large = models(server)
        check = verifier(large, sure=LogProbabilityVerifier())
        log = run(server, out, 3, verifier=check)
        assert [q.answers[0].checks["sure"].score for q in log] == [pytest.approx(0.9)] * 3
        assert [q.answers[0].checks["sure"].cost for q in log] == [0.0] * 3
        number = len(server.requests)
        # Another way to read the same answers asks nobody.
        more = verifier(
            large, sure=LogProbabilityVerifier(), least=LogProbabilityVerifier(statistic="min")
        )
        again = run(server, out, 3, verifier=more)
        assert len(server.requests) == number
        assert [q.answers[0].checks["least"].score for q in again] == [pytest.approx(0.9)] * 3

    async def test_asynchronously(self, server: OpenAIServer, out: Path) -> None:
        small, large = models(server)
        log = await acalibrate(
            questions(3), [small, large], out=out, verifier=verifier(large), prices=PRICES
        )
        assert log.checks == ("first", "word by large")

    def test_parquet(self, server: OpenAIServer, tmp_path: Path) -> None:
        pytest.importorskip("pyarrow")
        log = run(server, tmp_path / "log.parquet", 2)
        assert log.checks == ("first", "word by large")


class TestUnknown:
    def test_an_empty_answer_is_asked_nothing(self, server: OpenAIServer, out: Path) -> None:
        server.script = lambda body: (
            [""] if body["model"] == "small" and not is_check(body) else told(body)
        )
        log = run(server, out, 2)
        assert asked(server) == {"answer of small": 2, "answer of large": 2}
        for query in log:
            check = query.answers[0].verification
            assert check is not None
            assert (check.verdicts, check.total_cost) == ((None,) * 4, 0)
            assert not query.answers[0].checks

    def test_a_check_that_finds_nothing_has_its_price(
        self, server: OpenAIServer, out: Path
    ) -> None:
        server.script = lambda body: (
            [{"role": "assistant", "content": "?", "logprobs": [token("?", 1.0)]}]
            if body.get("top_logprobs")
            else told(body)
        )
        log = run(server, out, 2)
        assert log.checks == ("first", "word by large")
        for query in log:
            check = query.answers[0].checks["word by large"]
            assert check.confidence is None
            assert check.total_cost > 0

    def test_one_that_fails_leaves_the_others(self, server: OpenAIServer, out: Path) -> None:
        server.script = lambda body: 400 if is_check(body) and body.get("n") else told(body)
        _, large = models(server)
        checks = {
            "word by large": TokenProbabilityVerifier(model=large),
            "few-shot": SelfVerifier(samples=4, sampling="n"),
            "again": TokenProbabilityVerifier(),
        }
        with pytest.warns(UserWarning, match="2 of 2 examples failed"):
            log = run(server, out, 2, verifier=CombinedVerifier(checks=checks))
        assert log.checks == ("first", "again")
        assert log[0].metadata is not None
        assert "check 'few-shot' of small" in log[0].metadata["failed"]["small"]
        server.script = told
        server.requests.clear()
        log = run(server, out, 2, verifier=CombinedVerifier(checks=checks))
        assert log.checks == ("first", "few-shot", "again")
        assert asked(server) == {"check of small": 2}, "what was found is not asked again"


class TestAgain:
    def test_one_more_check_asks_that_check_only(self, server: OpenAIServer, out: Path) -> None:
        run(server, out)
        server.requests.clear()
        _, large = models(server)
        more = verifier(large, word=TokenProbabilityVerifier())
        seen: list[Estimate] = []

        def approve(expected: Estimate) -> bool:
            seen.append(expected)
            return True

        log = run(server, out, verifier=more, approve=approve)
        assert asked(server) == {"word of small": 6}
        assert log.checks == ("first", "word by large", "word")
        assert {(s.stage, s.check): s.calls for s in seen[0].stages if s.calls} == {
            ("check", "word"): 6
        }
        assert not seen[0].changed

    def test_from_one_check_to_several(self, server: OpenAIServer, out: Path) -> None:
        run(server, out, verifier=SelfVerifier(samples=4))
        server.requests.clear()
        run(server, out)
        assert asked(server) == {"word of large": 6}
        server.requests.clear()
        one = run(server, out, verifier=SelfVerifier(samples=4))
        assert not server.requests
        assert one.checks == ("first",)

    def test_another_name_and_another_order_ask_nothing(
        self, server: OpenAIServer, out: Path
    ) -> None:
        run(server, out)
        server.requests.clear()
        _, large = models(server)
        checks = {"judge": TokenProbabilityVerifier(model=large), "k4": SelfVerifier(samples=4)}
        log = run(server, out, verifier=CombinedVerifier(checks=checks))
        assert not server.requests
        assert log[0].answers[0].verification is not None
        assert log[0].answers[0].verification.score is not None
        assert log.checks == ("first", "k4")

    def test_a_changed_check_is_said_to_have_changed(self, server: OpenAIServer, out: Path) -> None:
        run(server, out)
        _, large = models(server)
        changed = verifier(large, **{"few-shot": SelfVerifier(samples=4, layout="zero_shot")})
        with pytest.raises(AutoMixError, match="this has changed: the check few-shot"):
            run(server, out, verifier=changed)
        server.requests.clear()
        run(server, out, verifier=changed, on_change="rerun")
        assert asked(server) == {"check of small": 6}

    def test_the_estimate_has_every_check(self, server: OpenAIServer, out: Path) -> None:
        seen: list[Estimate] = []

        def approve(expected: Estimate) -> bool:
            seen.append(expected)
            return True

        run(server, out, approve=approve)
        (expected,) = seen
        assert [(s.stage, s.model, s.check, s.calls) for s in expected.stages] == [
            ("answer", "small", None, 6),
            ("check", "small", "few-shot", 6),
            ("check", "small", "word by large", 6),
            ("answer", "large", None, 6),
        ]
        few, word = expected.stages[1:3]
        assert few.cost is not None
        assert word.cost is not None
        assert word.tokens_out[1] < few.tokens_out[1]
        assert expected.calls == len(server.requests)


class TestStops:
    CODE = """
        import sys
        from langchain_automix import calibrate
        from tests.support.servers.openai_server import OpenAIServer
        from tests.calibration.test_extra_checks import PRICES, questions, verifier

        def model(name):
            return OpenAIServer.model(Address, name)

        class Address:
            base_url = sys.argv[1]

        small, large = model("small"), model("large")
        calibrate(questions(40), [small, large], out=sys.argv[2], verifier=verifier(large),
                  prices=PRICES, concurrency=3)
    """

    def test_a_kill_loses_the_calls_under_way_at_most(
        self, server: OpenAIServer, out: Path
    ) -> None:
        server.delay = 0.05
        command = [sys.executable, "-c", textwrap.dedent(self.CODE), server.base_url, str(out)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 60
            while len(server.requests) < 50:
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.kill()
            process.wait()
        server.delay = 0.0
        log = run(server, out, 40, concurrency=8)
        assert len(log) == 40
        assert 160 <= len(server.requests) <= 160 + 3
        assert all(q.answers[0].verification and q.answers[0].checks for q in log)
        kept = [json.loads(line) for line in Path(f"{out}.journal").read_text().splitlines()]
        calls = [entry["call"] for entry in kept if "call" in entry]
        assert len(calls) == len({(e["example"], e["call"]) for e in kept if "call" in e}) == 160


class TestRefusals:
    def test_several_checks_under_one_wrapper(self, server: OpenAIServer, out: Path) -> None:
        _, large = models(server)
        with pytest.raises(AutoMixError, match="pass it without retries"):
            run(server, out, verifier=verifier(large).with_retry())
        assert not server.requests
        assert not out.with_name("log.jsonl.journal").exists()

    def test_a_name_that_a_log_has_no_place_for(self, server: OpenAIServer, out: Path) -> None:
        _, large = models(server)
        with pytest.raises(AutoMixError, match="cannot be logged"):
            run(server, out, verifier=verifier(large, **{"a, b": SelfVerifier()}))
        assert not server.requests
