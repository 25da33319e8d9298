"""What a calibration says it has spent is never less than what was billed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import AutoMixRunnable, SelfVerifier, acalibrate, calibrate
from langchain_automix.calibration.budget import CalibrationRun, Progress
from langchain_automix.calibration.cost_estimate import Estimate
from langchain_automix.calibration.journal import Journal
from tests.support.builders.scripted_replies import ACCEPT, Body, Cut, Outcome, is_check
from tests.support.builders.waiting import wait_for, wait_until_taken
from tests.support.servers.openai_server import OpenAIServer

PRICES = {"small": {"input": 1.0, "output": 2.0}, "large": {"input": 10.0, "output": 20.0}}


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        server.script = answers
        yield server


def answers(body: Body) -> Outcome:
    said = ACCEPT if is_check(body) else "Turku"
    return [said] * (body.get("n") or 1)


def questions(number: int) -> list[dict[str, str]]:
    return [{"question": f"Where was ship {i} built?", "answer": "Turku"} for i in range(number)]


def mix(server: OpenAIServer, **settings: Any) -> AutoMixRunnable:
    models = [server.model(name, **settings) for name in ("small", "large")]
    return AutoMixRunnable.from_models(*models, verifier=SelfVerifier(samples=2), prices=PRICES)


def price(bill: dict[str, Any]) -> float:
    of = PRICES[bill["model"]]
    whole = bill["prompt_tokens"] * of["input"] + bill["completion_tokens"] * of["output"]
    return float(whole) / 1e6


def billed(server: OpenAIServer) -> float:
    return sum(map(price, server.billed))


def least(server: OpenAIServer) -> float:
    """Return what was billed, less what another order of the sum may round away."""
    return billed(server) * (1 - 1e-9)


def dearest(server: OpenAIServer) -> float:
    return max(map(price, server.billed))


def run(server: OpenAIServer, folder: Path, number: int = 12, **fields: Any) -> Progress:
    """Calibrate; return the last progress."""
    seen: list[Progress] = []
    settings = fields.pop("model", {})
    calibrate(
        fields.pop("examples", None) or questions(number),
        mix(server, **settings),
        out=folder / "log.jsonl",
        on_progress=seen.append,
        **fields,
    )
    return seen[-1]


def expected(server: OpenAIServer, folder: Path, number: int = 60) -> Estimate:
    """What the next run would be told before it makes a call."""
    seen: list[Estimate] = []

    def approve(estimate: Estimate) -> bool:
        seen.append(estimate)
        return False

    with pytest.raises(ValueError, match="Not approved"):
        run(server, folder, number, approve=approve)
    return seen[0]


SCRIPT = """
    import asyncio, sys
    from langchain_openai import ChatOpenAI
    from langchain_automix import AutoMixRunnable, SelfVerifier, acalibrate, calibrate

    url, how = sys.argv[1:]
    models = [
        ChatOpenAI(model=name, base_url=url, api_key="test", max_retries=0)
        for name in ("small", "large")
    ]
    prices = {"small": {"input": 1.0, "output": 2.0}, "large": {"input": 10.0, "output": 20.0}}
    mix = AutoMixRunnable.from_models(*models, verifier=SelfVerifier(samples=2), prices=prices)
    questions = [
        {"question": f"Where was ship {i} built?", "answer": "Turku"} for i in range(60)
    ]
    given = dict(out="log.jsonl", concurrency=8)
    if how == "calibrate":
        calibrate(questions, mix, **given)
    else:
        asyncio.run(acalibrate(questions, mix, **given))
"""


class Gate:
    """Lets so many requests through, and holds the others until it is opened."""

    def __init__(self, passing: int, server: OpenAIServer) -> None:
        self._left = passing
        self._lock = threading.Lock()
        self._opened = threading.Event()
        self._server = server

    def __call__(self, body: Body) -> float:
        with self._lock:
            self._left -= 1
            waits = self._left < 0
        if waits:
            self._opened.wait(60)
        return 0.0

    def open(self) -> None:
        self._opened.set()
        self._server.delay = 0.0

    def wait_until_full(self, under_way: int) -> None:
        wait_for(lambda: self._left <= -under_way)


class TestAKilledProcess:
    @pytest.fixture
    def how(self) -> str:
        return "calibrate"

    @pytest.fixture
    def started(
        self, how: str, server: OpenAIServer, tmp_path: Path
    ) -> Iterator[tuple[subprocess.Popen[str], Gate]]:
        """A run with eight calls under way, which the server holds."""
        gate = Gate(30, server)
        server.delay = gate
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), server.base_url, how]
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            gate.wait_until_full(8)
            yield process, gate
            gate.open()
            process.kill()

    @pytest.mark.parametrize("how", ["calibrate", "acalibrate"])
    def test_kill_minus_nine(
        self, started: tuple[subprocess.Popen[str], Gate], server: OpenAIServer, tmp_path: Path
    ) -> None:
        process, gate = started
        process.kill()
        process.communicate(timeout=60)
        gate.open()
        wait_for(lambda: len(server.billed) == 38)
        estimate = expected(server, tmp_path)
        assert estimate.lost == 8
        assert estimate.spent >= least(server)
        assert any("8 calls were under way" in note for note in estimate.notes)
        last = run(server, tmp_path, 60)
        assert last.lost == 8
        assert last.spent >= least(server)
        assert last.spent < billed(server) + 8 * dearest(server)
        again = expected(server, tmp_path)
        assert again.lost == 8, "a call that was made again does not take back the lost one"
        assert again.spent == pytest.approx(last.spent)

    @pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
    @pytest.mark.parametrize(
        ("how", "number"), [("calibrate", signal.SIGTERM), ("acalibrate", signal.SIGHUP)]
    )
    def test_calls_under_way_are_kept(
        self,
        started: tuple[subprocess.Popen[str], Gate],
        server: OpenAIServer,
        tmp_path: Path,
        number: signal.Signals,
    ) -> None:
        process, gate = started
        process.send_signal(number)
        wait_until_taken(process, number)
        gate.open()
        process.communicate(timeout=60)
        assert process.returncode == -number, "as if nobody had handled it"
        with Journal(tmp_path / "log.jsonl.journal") as journal:
            assert journal.calls == len(server.billed) < 180
        assert expected(server, tmp_path).lost == 0
        assert (tmp_path / "log.jsonl").exists(), "the log of what was finished is written"

    @pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
    def test_a_second_signal_ends_it_at_once(
        self, started: tuple[subprocess.Popen[str], Gate], server: OpenAIServer, tmp_path: Path
    ) -> None:
        process, _ = started
        for _ in range(200):  # two that arrive together are one
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.3)
                break
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGTERM
        assert expected(server, tmp_path).lost == 8


class TestACallOfUnknownCost:
    def test_a_time_out_counts_as_the_dearest_of_its_kind(
        self, server: OpenAIServer, tmp_path: Path
    ) -> None:
        """The provider answers and bills what the client has given up."""
        event = threading.Event()

        def delay(body: Body) -> float:
            if body["model"] == "large" and "ship 3 " in json.dumps(body):
                event.wait(30)
            return 0.0

        server.delay = delay
        with pytest.warns(UserWarning, match="1 of 12 examples failed"):
            last = run(server, tmp_path, model={"timeout": 1.0}, concurrency=1)
        event.set()
        wait_for(lambda: len(server.billed) == 36)
        assert last.lost == 1
        assert least(server) <= last.spent < billed(server) + dearest(server)
        estimate = expected(server, tmp_path, 12)
        assert estimate.lost == 1
        assert estimate.spent == pytest.approx(last.spent)

    def test_a_call_that_is_cut(self, server: OpenAIServer, tmp_path: Path) -> None:
        outcomes = iter(range(100))

        def script(body: Body) -> Outcome:
            if is_check(body) and next(outcomes) in (4, 7):
                return Cut("Half of")
            return answers(body)

        server.script = script
        with pytest.warns(UserWarning, match="examples failed"):
            last = run(server, tmp_path, concurrency=1)
        assert last.lost == 2
        assert least(server) <= last.spent < billed(server) + 2 * dearest(server)

    def test_a_refusal_costs_nothing(self, server: OpenAIServer, tmp_path: Path) -> None:
        server.script = lambda body: 429 if "ship 3 " in json.dumps(body) else answers(body)
        with pytest.warns(UserWarning, match="1 of 12 examples failed"):
            last = run(server, tmp_path, concurrency=1)
        assert last.lost == 0
        assert last.spent == pytest.approx(billed(server))

    def test_beneath_a_fallback(self, server: OpenAIServer, tmp_path: Path) -> None:
        """The row has what was heard; the cut request is counted beside it."""
        server.script = lambda body: (
            Cut("Half of") if body["model"] == "small" and not is_check(body) else answers(body)
        )
        first = server.model("small").with_fallbacks([server.model("large")])
        mixed = AutoMixRunnable.from_models(
            first, server.model("large"), verifier=SelfVerifier(samples=2), prices=PRICES
        )
        seen: list[Progress] = []
        log = calibrate(
            questions(4), mixed, out=tmp_path / "log.jsonl", on_progress=seen.append, concurrency=1
        )
        assert all(query.answers[0].cost for query in log)
        assert seen[-1].lost == 4


class TestMaxSpend:
    @pytest.mark.parametrize("how", ["sync", "async"])
    @pytest.mark.parametrize("concurrency", [1, 16])
    @pytest.mark.filterwarnings("ignore:Stopped at max_spend")
    @pytest.mark.filterwarnings("ignore:The quality of")
    async def test_it_is_passed_by_one_call_at_most(
        self, server: OpenAIServer, tmp_path: Path, concurrency: int, how: str
    ) -> None:
        """Answers differ in length, and no estimate knows that."""
        words = iter([1, 900, 20, 400, 700, 3] * 100)

        def script(body: Body) -> Outcome:
            if is_check(body):
                return answers(body)
            return ["word " * next(words)]

        server.script = script
        server.delay = 0.01
        given: dict[str, Any] = {"max_spend": 0.15, "concurrency": concurrency}
        given |= {"out": tmp_path / "log.jsonl"}
        if how == "sync":
            await asyncio.to_thread(calibrate, questions(60), mix(server), **given)
        else:
            await acalibrate(questions(60), mix(server), **given)
        assert len(server.requests) < 180
        assert 0.075 < billed(server) <= 0.15 + dearest(server)

    def test_enough_money_is_no_limit(self, server: OpenAIServer, tmp_path: Path) -> None:
        server.delay = 0.05
        last = run(server, tmp_path, 24, max_spend=10.0, concurrency=8)
        assert (last.done, last.stopped) == (24, None)
        assert server.most_at_once > 4

    def test_a_lost_call_takes_its_place(self) -> None:
        course = CalibrationRun(examples=9, currency="USD", max_spend=1.0)
        kind = ("answer", "small", None)
        for cost in (0.2, 0.1, None):
            reserved = course.reserve(kind)
            assert reserved is not None
            course.settle(kind, reserved, cost, lost=int(cost is None))
        assert course.spent == pytest.approx(0.5)
        assert course.progress().lost == 1


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_one_question_many_times_is_asked_once(
    server: OpenAIServer, tmp_path: Path, how: str
) -> None:
    """Its calls are the same; the examples differ by their ids and references."""
    server.delay = 0.02
    examples = [
        {"id": f"q{i}", "question": "Where was ship 1 built?", "answer": "Turku"} for i in range(16)
    ]
    given: dict[str, Any] = {"out": tmp_path / "log.jsonl", "concurrency": 16}
    if how == "sync":
        log = await asyncio.to_thread(calibrate, examples, mix(server), **given)
    else:
        log = await acalibrate(examples, mix(server), **given)
    assert len(log) == 16
    assert len(server.requests) == 3


def test_journals_of_before_say_what_they_cannot_tell(server: OpenAIServer, tmp_path: Path) -> None:
    """They do not have the beginnings of calls; whether the run ended properly they have."""
    run(server, tmp_path)
    path = tmp_path / "log.jsonl.journal"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(x for x in lines if b'"begun"' not in x and b'"ended"' not in x))
    estimate = expected(server, tmp_path, 24)
    assert estimate.lost == 0
    assert any("was killed" in note for note in estimate.notes)


def test_a_long_context_is_calibrated(server: OpenAIServer, tmp_path: Path) -> None:
    """What a check reads of it in a thread is no call, and is not kept."""
    long = "The Halcyon was built in Turku. " * 2000
    asked = [{"question": "Where was it built?", "answer": "Turku", "context": long}]
    last = run(server, tmp_path, examples=asked)
    assert (last.done, last.failed, last.calls) == (1, 0, 3)
    assert len(server.requests) == 3
