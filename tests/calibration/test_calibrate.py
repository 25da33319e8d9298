"""A calibration over the real wire: what is asked, what is kept, and what the log says of it."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda

from langchain_automix import (
    AutoMixError,
    AutoMixRunnable,
    POMDPRouter,
    RoutingLog,
    SelfVerifier,
    Verification,
    acalibrate,
    calibrate,
)
from langchain_automix.calibration.budget import Progress
from langchain_automix.calibration.calibrate import run_calibration
from langchain_automix.calibration.cost_estimate import Estimate
from langchain_automix.calibration.graders.judges import LLMJudge
from langchain_automix.calibration.settings import CalibrationSettings
from tests.support.builders.scripted_replies import ACCEPT, REJECT, Body, Outcome
from tests.support.servers.openai_server import OpenAIServer, is_check

PRICES = {name: {"input": 1.0, "output": 2.0} for name in ("small", "judge")} | {
    "large": {"input": 10.0, "output": 20.0}
}


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        server.script = script
        yield server


def number_of(body: Body) -> int:
    """The question that a request is about: the last one in it, after any worked examples."""
    return int(re.findall(r"ship (\d+)", json.dumps(body["messages"]))[-1])


def script(body: Body) -> Outcome:
    """The small model knows even ships only, and half knows when it does not."""
    number, n = number_of(body), body.get("n") or 1
    if is_check(body):
        return [ACCEPT if (number % 2 == 0 or i == 0) else REJECT for i in range(n)]
    return ["Turku" if body["model"] == "large" or number % 2 == 0 else "Oslo"] * n


def questions(number: int, *, labelled: int | None = None) -> list[dict[str, Any]]:
    return [
        {
            "question": f"Where was ship {i} built?",
            "context": f"The ship {i} was built in Turku.",
            **({"reference": "Turku"} if labelled is None or i < labelled else {}),
        }
        for i in range(number)
    ]


def models(server: OpenAIServer, *names: str, **settings: Any) -> list[Any]:
    return [server.model(name, **settings) for name in names or ("small", "large")]


def entries(out: Path) -> list[dict[str, Any]]:
    lines = Path(f"{out}.journal").read_text().split("\n")[:-1]
    return [entry for line in lines if "call" in (entry := json.loads(line))]


def test_every_call_is_made_once_and_the_log_holds_it(server: OpenAIServer, tmp_path: Path) -> None:
    out = tmp_path / "log.jsonl"
    log = calibrate(questions(6), models(server), prices=PRICES, out=out)
    assert len(server.requests) == 6 * 3 == len(entries(out))
    assert (log.models, log.currency, len(log)) == (("small", "large"), "USD", 6)
    assert [q.answers[0].quality for q in log] == [1.0, 0.0] * 3
    assert [q.answers[1].quality for q in log] == [1.0] * 6
    for query, entry in zip(log, questions(6), strict=True):
        check = query.answers[0].verification
        assert check is not None
        assert check.verdicts is not None
        assert len(check.verdicts) == 8
        assert query.metadata is not None
        assert query.metadata["question"] == entry["question"]
        assert query.metadata["labels"] == "references"
        assert query.answers[1].verification is None
    answers = [answer for query in log for answer in query.answers]
    checks = [answer.verification for answer in answers if answer.verification]
    total = sum(a.cost or 0 for a in answers) + sum(check.total_cost for check in checks)
    billed = sum(
        bill["prompt_tokens"] * PRICES[bill["model"]]["input"]
        + bill["completion_tokens"] * PRICES[bill["model"]]["output"]
        for bill in server.billed
    )
    assert total == pytest.approx(billed / 1e6)
    POMDPRouter.fit(log)


def test_the_same_command_again_asks_nothing(server: OpenAIServer, tmp_path: Path) -> None:
    out = tmp_path / "log.jsonl"
    calibrate(questions(5), models(server), prices=PRICES, out=out)
    text, asked = out.read_bytes(), len(server.requests)
    calibrate(questions(5), models(server), prices=PRICES, out=out)
    assert (out.read_bytes(), len(server.requests)) == (text, asked)
    calibrate(questions(7), models(server), prices=PRICES, out=out)
    assert len(server.requests) == asked + 2 * 3
    calibrate(questions(7), models(server), prices=PRICES, out=out, quality="contains")
    assert len(server.requests) == asked + 2 * 3


async def test_async_makes_the_same_log(server: OpenAIServer, tmp_path: Path) -> None:
    given: dict[str, Any] = {"prices": PRICES, "concurrency": 4}
    log = await acalibrate(questions(9), models(server), out=tmp_path / "a.jsonl", **given)
    asked = len(server.requests)
    other = await asyncio.to_thread(
        calibrate, questions(9), models(server), out=tmp_path / "b.jsonl", **given
    )
    assert list(log.records()) == list(other.records())
    assert len(server.requests) == 2 * asked
    assert calibrate(questions(2), models(server), out=tmp_path / "c.jsonl", prices=PRICES)


def test_three_models_and_a_mix_of_ones_own(server: OpenAIServer, tmp_path: Path) -> None:
    mix = AutoMixRunnable(
        models=[server.model("small"), server.model("judge"), server.model("large")],
        verifier=SelfVerifier(samples=3, sampling="parallel"),
        prompt=ChatPromptTemplate.from_template("{history}{context} :: {question}"),
        prices=PRICES,
    )
    log = calibrate(questions(3), mix, out=tmp_path / "log.jsonl.gz")
    assert log.models == ("small", "judge", "large")
    assert len(server.requests) == 3 * (3 + 2 * 3) == len(entries(tmp_path / "log.jsonl.gz"))
    asked = [b["messages"][-1]["content"] for b in server.requests if not is_check(b)]
    assert all(" :: Where was ship" in text for text in asked)
    check = log[0].answers[1].verification
    assert check is not None
    assert check.fixed_cost == 0


def test_what_the_models_are_asked(server: OpenAIServer, tmp_path: Path) -> None:
    examples = [
        {"question": "Where was ship 0 built?"},
        {"question": "ship 1", "prompt": "The whole text about ship 1"},
        {"messages": [("human", "Hello"), ("ai", "Good day"), ("human", "And ship 2?")]},
    ]
    log = calibrate(examples, models(server), prices=PRICES, out=tmp_path / "log.jsonl")
    drafts = [b["messages"] for b in server.requests if not is_check(b) and b["model"] == "small"]
    drafts.sort(key=lambda messages: number_of({"messages": messages}))
    said = [[(m["role"], m["content"]) for m in messages] for messages in drafts]
    assert said[0] == [("user", "Where was ship 0 built?")]
    assert said[1] == [("user", "The whole text about ship 1")]
    assert said[2] == [("user", "Hello"), ("assistant", "Good day"), ("user", "And ship 2?")]
    assert log[0].metadata is not None
    assert log[0].metadata["labels"] == "agreement"


def test_a_changed_setting_is_noticed_and_only_its_calls_are_made_again(
    server: OpenAIServer, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}
    calibrate(questions(4), models(server), **given)
    asked = len(server.requests)
    warmer = [server.model("small"), server.model("large", temperature=0.3)]
    with pytest.raises(AutoMixError, match=r"changed: the model large\."):
        calibrate(questions(4), warmer, **given)
    assert len(server.requests) == asked
    seen: list[Estimate] = []

    def approve(found: Estimate) -> bool:
        seen.append(found)
        return True

    calibrate(questions(4), warmer, on_change="rerun", approve=approve, **given)
    assert len(server.requests) == asked + 4
    assert (seen[0].calls, list(seen[0].changed)) == (4, ["model large"])
    prompt = ChatPromptTemplate.from_template("{context} {question}")
    with pytest.raises(AutoMixError, match="the prompt"):
        calibrate(questions(4), warmer, prompt=prompt, **given)
    with pytest.raises(AutoMixError, match="the check, the verdicts|the verdicts"):
        calibrate(questions(4), warmer, verifier=SelfVerifier(samples=2), **given)


def test_a_server_on_another_port_is_the_same_model(server: OpenAIServer, tmp_path: Path) -> None:
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}
    calibrate(questions(3), models(server, max_retries=1), **given)
    with OpenAIServer() as other:
        calibrate(questions(3), models(other, max_retries=5, timeout=9), **given)
        assert not other.requests


def test_the_estimate_holds(server: OpenAIServer, tmp_path: Path) -> None:
    seen: list[Estimate] = []
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}

    def refuse(found: Estimate) -> bool:
        seen.append(found)
        return False

    with pytest.raises(AutoMixError, match="no call was made"):
        calibrate(questions(7), models(server), approve=refuse, **given)
    assert not server.requests
    [found] = seen
    assert (found.examples, found.finished, found.unlabelled, found.calls) == (7, 0, 0, 21)
    calibrate(questions(7), models(server), **given)
    assert found.cost is not None
    spent = sum(
        b["prompt_tokens"] * PRICES[b["model"]]["input"] / 1e6
        + b["completion_tokens"] * PRICES[b["model"]]["output"] / 1e6
        for b in server.billed
    )
    assert found.cost[0] <= spent * 1.5  # this server counts words, which are fewer than tokens
    assert spent <= found.cost[1]


def test_without_a_price_nothing_is_asked(server: OpenAIServer, tmp_path: Path) -> None:
    out = tmp_path / "log.jsonl"
    some = {"small": PRICES["small"]}
    with pytest.raises(AutoMixError, match="The price of large is not known"):
        calibrate(questions(2), models(server), prices=some, out=out)
    for how in ({"unit": "dollars"}, {"max_spend": 1.0}):
        with pytest.raises(AutoMixError, match="The price of small and large is not known"):
            calibrate(questions(2), models(server), out=out, **how)
    assert not server.requests
    with pytest.warns(UserWarning, match="No price is known for small and large"):
        log = calibrate(questions(2), models(server), out=out)
    assert log.currency == "second"
    assert all((a.cost or 0) > 0 for q in log for a in q.answers)


def test_examples_may_be_moved_renamed_and_doubled(server: OpenAIServer, tmp_path: Path) -> None:
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}
    calibrate(questions(6), models(server), **given)
    moved = questions(8)[::-1]
    twice = [*moved, {**moved[0], "id": "again"}]
    log = calibrate(twice, models(server), concurrency=1, **given)
    assert len(server.requests) == len(entries(tmp_path / "log.jsonl")) == 8 * 3
    assert [q.answers[0].quality for q in log] == [0.0, 1.0] * 4 + [0.0]
    assert [q.id for q in log][-2:] == ["q8", "again"]


def test_a_provider_that_tells_no_tokens_stops_at_once(
    server: OpenAIServer, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"out": tmp_path / "log.jsonl", "concurrency": 2}
    prices = {"small": PRICES["small"], "large": PRICES["large"]}
    with pytest.raises(AutoMixError, match="there is no price of"):
        calibrate(questions(20), _renaming(server), prices=prices, **given)
    asked = len(server.requests)
    assert asked <= 2 * 3
    more = {**prices, "small-of-another-name": PRICES["small"]}
    calibrate(questions(20), _renaming(server), prices=more, **given)
    assert len(server.requests) == 20 * 3


def _renaming(server: OpenAIServer) -> list[Any]:
    """A small model that the provider calls otherwise than it was asked for."""
    found = models(server)
    usual = server._whole

    def whole(body: Body, messages: Any, usage: Any) -> Any:
        other = {**body, "model": "small-of-another-name"} if body["model"] == "small" else body
        return usual(other, messages, usage)

    server._whole = whole  # type: ignore[method-assign]
    return found


def test_a_limit_of_spending(server: OpenAIServer, tmp_path: Path) -> None:
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}
    whole = run_calibration(
        CalibrationSettings(
            questions(40), models(server), prices=PRICES, out=tmp_path / "whole.jsonl"
        )
    )
    each = whole.progress.spent / 40
    server.requests.clear()
    limit = 10.5 * each
    found = run_calibration(
        CalibrationSettings(questions(40), models(server), max_spend=limit, concurrency=1, **given)
    )
    assert found.progress.stopped == "max_spend"
    assert (found.written.queries, found.progress.done) == (10, 10)
    assert found.progress.spent <= limit
    found = run_calibration(
        CalibrationSettings(
            questions(40), models(server), max_spend=2 * limit, concurrency=5, **given
        )
    )
    assert found.progress.spent <= 2 * limit + each
    assert found.written.queries >= 15
    found = run_calibration(CalibrationSettings(questions(40), models(server), **given))
    assert found.written.complete == 40
    assert len(server.requests) == 40 * 3
    assert found.progress.spent == pytest.approx(whole.progress.spent)


def test_one_bad_example_does_not_hold_up_the_rest(server: OpenAIServer, tmp_path: Path) -> None:
    def failing(body: Body) -> Outcome:
        return 400 if number_of(body) == 3 and body["model"] == "large" else script(body)

    server.script = failing
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}
    found = run_calibration(CalibrationSettings(questions(6), models(server), **given))
    assert (found.progress.failed, found.written.queries, found.written.complete) == (1, 6, 5)
    assert "scripted" in found.last_error
    log = RoutingLog.read(found.out)
    answer = log[3].answers[1]
    assert (answer.quality, answer.cost) == (None, None)
    assert log[3].metadata is not None
    assert "answer of large: OpenAIInvalidRequestError" in log[3].metadata["failed"]["large"]
    server.script, asked = script, len(server.requests)
    found = run_calibration(CalibrationSettings(questions(6), models(server), **given))
    assert (len(server.requests), found.written.complete) == (asked + 1, 6)


def test_where_nothing_works_it_ends_early(server: OpenAIServer, tmp_path: Path) -> None:
    server.script = lambda _: 401
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}
    with pytest.raises(AutoMixError, match=r"Nothing works any more: .*Authentication"):
        calibrate(questions(500), models(server), concurrency=2, **given)
    assert len(server.requests) < 60
    with pytest.raises(AutoMixError, match="needs 'colour', which example q1 does not have"):
        calibrate(
            questions(2),
            models(server),
            prompt=ChatPromptTemplate.from_template("{question} {colour}"),
            on_change="rerun",
            **given,
        )
    server.script = script
    assert len(calibrate(questions(20), models(server), **given)) == 20


def test_a_users_mistake_costs_nothing_twice(server: OpenAIServer, tmp_path: Path) -> None:
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}
    with pytest.raises(AutoMixError, match="returned 7"):
        calibrate(questions(4), models(server), quality=lambda answer, references: 7, **given)
    assert len(server.requests) == len(entries(tmp_path / "log.jsonl"))
    log = calibrate(questions(4), models(server), quality="f1", **given)
    assert len(server.requests) == len(entries(tmp_path / "log.jsonl")) == 12
    assert len(log) == 4


async def test_after_an_error_what_is_under_way_is_kept(
    server: OpenAIServer, tmp_path: Path
) -> None:
    server.delay = lambda body: 0.05 * number_of(body)

    def wrong(answer: str, references: Any) -> float:
        raise ZeroDivisionError

    with pytest.raises(AutoMixError, match="example q1 cannot be graded: ZeroDivisionError"):
        await acalibrate(
            questions(4),
            models(server),
            prices=PRICES,
            out=tmp_path / "log.jsonl",
            quality=wrong,
            concurrency=4,
        )
    assert 3 < len(server.requests) == len(entries(tmp_path / "log.jsonl")) < 12


def test_without_references_the_largest_model_is_the_reference(
    server: OpenAIServer, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}
    log = calibrate(questions(6, labelled=0), models(server), **given)
    assert [[a.quality for a in q.answers] for q in log] == [[1.0, 1.0], [0.0, 1.0]] * 3
    assert {q.metadata["labels"] for q in log if q.metadata} == {"agreement"}
    some = calibrate(questions(6, labelled=2), models(server), **given)
    assert len(server.requests) == 18
    assert {q.metadata["labels"] for q in some if q.metadata} == {"corrected"}
    assert [bool(q.metadata and q.metadata.get("labelled")) for q in some] == [True] * 2 + [
        False
    ] * 4


def test_a_judge_is_asked_once_for_each_answer(server: OpenAIServer, tmp_path: Path) -> None:
    def judged(body: Body) -> Outcome:
        return ["Same.\nGrade: 2"] if body["model"] == "judge" else script(body)

    server.script = judged
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}
    judge = LLMJudge(model=server.model("judge"))
    expected: list[int] = []

    def approve(found: Estimate) -> bool:
        expected.append(found.calls)
        return True

    log = calibrate(questions(3), models(server), quality=judge, approve=approve, **given)
    assert expected == [len(server.requests)]
    assert Counter(b["model"] for b in server.requests)["judge"] == 3 * 2 * 2
    assert [a.quality for q in log for a in q.answers] == [1.0] * 6
    calibrate(questions(3), models(server), quality=judge, **given)
    assert len(server.requests) == len(entries(tmp_path / "log.jsonl")) == 9 + 12
    without = tmp_path / "without.jsonl"
    log = calibrate(
        questions(3, labelled=0),
        models(server),
        quality=judge,
        approve=approve,
        prices=PRICES,
        out=without,
    )
    # Only one of three answers differs from the large model's; that was not to be foreseen.
    assert (len(entries(without)), expected[-1]) == (9 + 2, 9 + 6)
    assert [q.metadata["labels"] for q in log if q.metadata] == ["agreement"] * 3
    graded = calibrate(
        questions(3, labelled=0),
        models(server),
        quality=judge,
        unlabelled="grade",
        prices=PRICES,
        out=tmp_path / "graded.jsonl",
    )
    assert [q.metadata["labels"] for q in graded if q.metadata] == ["grade"] * 3
    assert {a.quality for q in graded for a in q.answers} == {0.25}  # a 2 of 5


def test_a_check_of_ones_own_and_an_empty_answer(server: OpenAIServer, tmp_path: Path) -> None:
    def empty(body: Body) -> Outcome:
        return [""] if number_of(body) == 1 and body["model"] == "small" else script(body)

    server.script = empty
    length: Runnable[Any, Any] = RunnableLambda(
        lambda asked: Verification(score=len(asked["question"]) / 100)
    )
    log = calibrate(
        questions(3), models(server), verifier=length, prices=PRICES, out=tmp_path / "log.jsonl"
    )
    checks = [q.answers[0].verification for q in log]
    assert checks[0] is not None
    assert checks[0].score == pytest.approx(0.23)
    assert checks[1] is None  # nothing could be checked, and a score has no word for that
    log = calibrate(questions(3), models(server), prices=PRICES, out=tmp_path / "verdicts.jsonl")
    [check] = [q.answers[0].verification for q in log[1:2]]
    assert check is not None
    assert (check.verdicts, check.total_cost) == ((None,) * 8, 0.0)


def test_a_server_that_ignores_n_pays_for_each_verdict(
    server: OpenAIServer, tmp_path: Path
) -> None:
    server.knows_n = False
    log = calibrate(questions(2), models(server), prices=PRICES, out=tmp_path / "log.jsonl")
    assert len(server.requests) == 2 * (2 + 8) == len(entries(tmp_path / "log.jsonl"))
    check = log[0].answers[0].verification
    assert check is not None
    assert check.fixed_cost == 0
    assert check.sample_cost > 0
    calibrate(questions(2), models(server), prices=PRICES, out=tmp_path / "log.jsonl")
    assert len(server.requests) == 20


def test_what_is_under_way_is_kept_when_cancelled(server: OpenAIServer, tmp_path: Path) -> None:
    server.delay = 0.1
    out = tmp_path / "log.jsonl"

    async def cut_short_and_resumed() -> None:
        given: dict[str, Any] = {"prices": PRICES, "out": out, "concurrency": 4}
        task = asyncio.create_task(acalibrate(questions(30), models(server), **given))
        while len(server.requests) < 8:  # noqa: ASYNC110  (the server is in a thread)
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert 0 < len(entries(out)) == len(server.requests) < 90
        await acalibrate(questions(30), models(server), **given)

    asyncio.run(cut_short_and_resumed())
    assert len(entries(out)) == len(server.requests) == 90


def test_progress_is_told(server: OpenAIServer, tmp_path: Path) -> None:
    seen: list[Progress] = []
    calibrate(
        questions(5),
        models(server),
        prices=PRICES,
        out=tmp_path / "log.jsonl",
        on_progress=seen.append,
    )
    assert [p.done for p in seen] == [1, 2, 3, 4, 5]
    assert seen[-1].seconds_left == 0
    assert seen[-1].calls == 15


CHILD = """
import sys
from tests.calibration.test_calibrate import *
from langchain_openai import ChatOpenAI

def model(name):
    return ChatOpenAI(model=name, base_url=sys.argv[1], api_key="test", max_retries=0)

calibrate(
    questions(40),
    AutoMixRunnable(
        models=[model("small"), model("large")],
        verifier=SelfVerifier(samples=3, sampling="parallel"),
        prices=PRICES,
    ),
    out=sys.argv[2],
    concurrency=6,
)
"""


def _kinds(found: list[dict[str, Any]]) -> Counter[tuple[str, int, bool]]:
    """Calls in the journal, by model, question and whether they are checks."""
    return Counter(
        (e["call"].split()[1], int(e["id"][1:]) - 1, e["call"].startswith("check")) for e in found
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_three_times_it_pays_for_each_finished_call_once(
    server: OpenAIServer, tmp_path: Path, seed: int
) -> None:
    """SIGKILL at random moments; the provider's own count says what was asked twice."""
    rng, out = random.Random(seed), tmp_path / "log.jsonl"
    server.delay = 0.02
    before: Counter[tuple[str, int, bool]] = Counter()
    for kill in (True, True, True, False):
        asked = len(server.requests)
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), server.base_url, str(out)],
            stderr=subprocess.PIPE,
            text=True,
        )
        if kill:
            wanted = asked + rng.randrange(20, 45)
            while len(server.requests) < wanted and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == (-signal.SIGKILL if kill else 0), errors
        time.sleep(0.1)  # those under way arrive at the server
        session = Counter((b["model"], number_of(b), is_check(b)) for b in server.requests[asked:])
        for call, number in session.items():
            assert number <= (3 if call[2] else 1) - before[call]
        before = _kinds(entries(out))
        if kill and seed == 2:  # a power failure, too
            journal = Path(f"{out}.journal")
            whole = journal.read_bytes()
            journal.write_bytes(whole[: whole.rfind(b"\n", 0, -1) + 1 + rng.randrange(60)])
            before = _kinds(entries(out))
    assert before == {
        (model, i, check): 3 if check else 1
        for i in range(40)
        for model, check in (("small", False), ("small", True), ("large", False))
    }
    lost = len(server.requests) - sum(before.values())
    assert lost <= 3 * (6 + (seed == 2))
    assert len(RoutingLog.read(out)) == 40


def test_it_stops_once_more_examples_would_change_nothing(
    server: OpenAIServer, tmp_path: Path
) -> None:
    """The large model is always right, and far too dear: that is soon plain."""
    even: Runnable[Any, Any] = RunnableLambda(
        lambda asked: Verification(score=0.9 if "Turku" in str(asked) else 0.1)
    )
    found = run_calibration(
        CalibrationSettings(
            questions(700),
            models(server),
            verifier=even,
            prices=PRICES,
            out=tmp_path / "log.jsonl",
            adaptive=True,
            goal={"cost_weight": 50_000.0},
        )
    )
    assert found.progress.stopped == "enough"
    assert 50 <= found.written.queries < 600
    assert len(server.requests) == 2 * found.written.queries
    assert "enough" in found.progress.words
    ids = [int(query.id[1:]) for query in RoutingLog.read(found.out)]
    assert ids == sorted(ids)  # in their own order, though taken at random
    assert max(ids) > found.written.queries


def test_the_estimate_knows_begun_examples_from_others(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a run that was cut short, all that is left is counted, not only what was begun."""
    monkeypatch.setattr("langchain_automix.calibration.cost_estimate._REHEARSED", 5)
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}
    calibrate(questions(10), models(server), **given)
    seen: list[Estimate] = []

    def approve(found: Estimate) -> bool:
        seen.append(found)
        return False

    with pytest.raises(AutoMixError, match="Not approved"):
        calibrate(questions(30), models(server), quality="f1", approve=approve, **given)
    assert (seen[0].finished, seen[0].calls) == (0, 20 * 3)


def test_a_limit_needs_the_price_of_a_judge_too(server: OpenAIServer, tmp_path: Path) -> None:
    server.script = lambda b: ["Grade: 2"] if b["model"] == "other" else script(b)
    with pytest.raises(AutoMixError, match="there is no price of other"):
        calibrate(
            questions(30),
            models(server),
            quality=LLMJudge(model=server.model("other")),
            prices=PRICES,
            max_spend=1.0,
            out=tmp_path / "log.jsonl",
            concurrency=1,
        )
    assert len([b for b in server.requests if b["model"] == "other"]) == 1


def test_a_last_line_that_was_cut_short_is_told(server: OpenAIServer, tmp_path: Path) -> None:
    given: dict[str, Any] = {"prices": PRICES, "out": tmp_path / "log.jsonl"}
    calibrate(questions(2), models(server), **given)
    journal = tmp_path / "log.jsonl.journal"
    journal.write_bytes(journal.read_bytes()[:-9])
    seen: list[Estimate] = []

    def approve(found: Estimate) -> bool:
        seen.append(found)
        return True

    calibrate(questions(2), models(server), approve=approve, **given)
    calibrate(questions(2), models(server), approve=approve, **given)
    assert "log.jsonl.journal was cut short" in seen[0].notes[0]
    assert seen[1].notes == ()
