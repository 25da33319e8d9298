"""A calibration at its edges: what changed unseen, what was asked twice, what was no money."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import ConfigurableField, Runnable, RunnableLambda
from pydantic import SecretStr, ValidationError

from langchain_automix import (
    AutoMixError,
    AutoMixRunnable,
    ChatAutoMix,
    SelfVerifier,
    Verification,
    acalibrate,
    calibrate,
)
from langchain_automix.calibration.budget import Progress
from langchain_automix.calibration.calibrate import run_calibration
from langchain_automix.calibration.cost_estimate import Estimate
from langchain_automix.calibration.graders.custom import grader_name
from langchain_automix.calibration.graders.judges import EmbeddingSimilarity, LLMJudge
from langchain_automix.calibration.settings import CalibrationSettings
from tests.calibration.test_calibrate import PRICES, entries, models, number_of, questions, script
from tests.support.builders.scripted_replies import Body, Error, Outcome
from tests.support.builders.waiting import wait_for
from tests.support.servers.openai_server import OpenAIServer, is_check

TOOL = {"type": "function", "function": {"name": "find_ship", "parameters": {"type": "object"}}}


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        server.script = judged
        yield server


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    return {"prices": PRICES, "out": tmp_path / "log.jsonl"}


def judged(body: Body) -> Outcome:
    return ["Same.\nGrade: 2"] if body["model"] == "judge" else script(body)


def test_a_model_that_only_checks_or_grades_is_noticed_to_change(
    server: OpenAIServer, given: dict[str, Any]
) -> None:
    def run(check: str, effort: str, **more: Any) -> None:
        calibrate(
            questions(2),
            models(server),
            verifier=SelfVerifier(model=server.model(check)),
            quality=LLMJudge(model=server.model("judge", reasoning_effort=effort)),
            **given,
            **more,
        )

    run("small", "low")
    asked = len(server.requests)
    with pytest.raises(AutoMixError, match=r"changed: the grader model\."):
        run("small", "high")
    with pytest.raises(AutoMixError, match=r"changed: the check, the check model\."):
        run("large", "low")
    assert len(server.requests) == asked
    run("large", "low", on_change="rerun")
    assert len(server.requests) == asked + 2


def test_how_a_check_is_asked_is_noticed_to_change(
    server: OpenAIServer, given: dict[str, Any]
) -> None:
    calibrate(questions(2), models(server), **given)
    for change in ({"sampling": "parallel"}, {"max_input_tokens": 3_000}):
        with pytest.raises(AutoMixError, match=f"the check {next(iter(change))}"):
            calibrate(questions(2), models(server), verifier=SelfVerifier(**change), **given)


def test_what_is_behind_a_model_is_noticed_to_change(
    server: OpenAIServer, given: dict[str, Any]
) -> None:
    def small(warmth: float, effort: str) -> Runnable[Any, Any]:
        field = ConfigurableField(id="effort")
        spare = server.model("judge").configurable_fields(reasoning_effort=field)
        return server.model("small").with_fallbacks(
            [
                server.model("large", temperature=warmth),
                spare.with_config({"configurable": {"effort": effort}}),
            ]
        )

    calibrate(questions(2), [small(0, "low"), server.model("large")], **given)
    calibrate(questions(2), [small(0, "low"), server.model("large")], **given)
    for other in (small(1, "low"), small(0, "high")):
        with pytest.raises(AutoMixError, match=r"changed: the model small\."):
            calibrate(questions(2), [other, server.model("large")], **given)


def test_the_models_in_another_order_are_another_calibration(
    server: OpenAIServer, given: dict[str, Any]
) -> None:
    server.script = script
    calibrate(questions(2), models(server, "small", "judge"), **given)
    with pytest.raises(AutoMixError, match="the order of the models"):
        calibrate(questions(2), models(server, "judge", "small"), **given)
    log = calibrate(questions(2), models(server, "judge", "small"), on_change="rerun", **given)
    assert log.models == ("judge", "small")
    assert len(server.requests) == 2 * 3 + 2  # only the other model's checks are new


def test_an_edited_grader_grades_anew(server: OpenAIServer, given: dict[str, Any]) -> None:
    def graded(code: str) -> list[float | None]:
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(code, space)  # as a cell of a notebook is
        log = calibrate(questions(2), models(server), quality=space["grade"], **given)
        return [query.answers[0].quality for query in log]

    assert graded("def grade(answer, references): return 1.0") == [1.0, 1.0]
    assert graded("def grade(answer, references): return 0.5") == [0.5, 0.5]
    inner = "def grade(answer, references): return float(any(r {} answer for r in references))"
    assert graded(inner.format("==")) == [1.0, 0.0]
    assert graded(inner.format("!=")) == [0.0, 1.0]
    assert len(server.requests) == 2 * 3


def test_a_name_is_the_same_in_every_process() -> None:
    code = """
        from langchain_core.prompts import ChatPromptTemplate
        from langchain_automix.calibration.graders.custom import grader_name
        from langchain_automix.calibration.fingerprints import json_hash, to_json
        words = {"yes", "true", "right"}
        def made(inside):
            return lambda answer, references: answer in {"a", "b", "c"} or answer in inside
        template = ChatPromptTemplate.from_template("{day} {question}")
        print(grader_name(made(words)), json_hash(to_json(template.partial(day=lambda: "Monday"))))
    """
    found = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(3)
    }
    assert len(found) == 1


def test_a_function_that_knows_what_is_not_there_yet_has_a_name() -> None:
    def made() -> str:
        def grade(answer: str, references: list[str]) -> float:
            return worth if answer else grade("x", references)

        found = grader_name(grade)  # one of its cells is empty
        worth: float = len(found)
        return found

    assert "made.<locals>.grade(" in made()


def test_nothing_of_the_users_is_called_before_it_is_approved(
    server: OpenAIServer, given: dict[str, Any]
) -> None:
    seen: list[str] = []

    def grade(answer: str, references: list[str]) -> float:
        seen.append(answer)
        return 1.0

    with pytest.raises(AutoMixError, match="Not approved"):
        calibrate(questions(3), models(server), quality=grade, approve=lambda _: False, **given)
    assert not seen


def test_one_comparison_is_not_paid_for_twice_in_an_example(
    server: OpenAIServer, given: dict[str, Any]
) -> None:
    """The reference is word for word the largest model's answer, to which all are compared."""
    judge = LLMJudge(model=server.model("judge"))
    calibrate(questions(4, labelled=2), models(server), quality=judge, **given)
    made = Counter((entry["example"], entry["call"]) for entry in entries(given["out"]))
    assert set(made.values()) == {1}


def test_an_empty_answer_of_the_largest_model_is_no_reference(
    server: OpenAIServer, given: dict[str, Any]
) -> None:
    def silent(body: Body) -> Outcome:
        return [" \n"] if number_of(body) == 1 and not is_check(body) else script(body)

    server.script = silent
    log = calibrate(questions(3, labelled=0), models(server), **given)
    found = [[answer.quality for answer in query.answers] for query in log]
    assert found == [[1.0, 1.0], [None, None], [1.0, 1.0]]
    log = calibrate(questions(3, labelled=1), models(server), **given)
    assert [answer.quality for answer in log[1].answers] == [None, None]


def test_a_text_that_no_encoding_holds_is_kept(server: OpenAIServer, given: dict[str, Any]) -> None:
    """Half of an emoji, as a model that is cut short sends it."""

    def cut(body: Body) -> Outcome:
        return ["Turku \ud83d"] if body["model"] == "large" else script(body)

    server.script = cut
    log = calibrate(questions(2), models(server), quality="contains", **given)
    assert [query.answers[1].quality for query in log] == [1.0, 1.0]
    asked = len(server.requests)
    log = calibrate(questions(2), models(server), quality="exact_match", **given)
    assert len(server.requests) == asked
    assert log[0].metadata is not None
    assert log[0].metadata["answers"][1] == "Turku \ud83d"


def test_a_grade_of_numpys_is_the_same_number_later(
    server: OpenAIServer, given: dict[str, Any]
) -> None:
    grader: Runnable[Any, Any] = RunnableLambda(lambda _: np.float32(0.5))
    calibrate(questions(1), models(server), quality=grader, **given)
    log = calibrate(questions(1), models(server), quality=grader, unit="seconds", **given)
    assert [answer.quality for answer in log[0].answers] == [0.5, 0.5]


def test_a_users_own_field_is_not_taken_for_a_note_of_ours(
    server: OpenAIServer, given: dict[str, Any]
) -> None:
    rows = [{**row, "failed": "no", "labelled": False, "colour": "red"} for row in questions(2)]
    found = run_calibration(CalibrationSettings(rows, models(server), **given))
    assert (found.progress.failed, found.written.failed) == (0, 0)
    found = run_calibration(CalibrationSettings(rows, models(server), **given))
    assert found.progress.reused == 2
    assert json.loads(found.out.read_text().splitlines()[0])["metadata"]["colour"] == "red"


def test_a_log_that_cannot_be_written_costs_nothing(server: OpenAIServer, tmp_path: Path) -> None:
    mine = tmp_path / "examples.jsonl"
    mine.write_text("".join(json.dumps(row) + "\n" for row in questions(2)))
    text = mine.read_text()
    with pytest.raises(AutoMixError, match="exists, and was not written by a calibration"):
        calibrate(mine, models(server), prices=PRICES, out=mine)
    assert mine.read_text() == text
    with pytest.raises(AutoMixError, match="it is a folder"):
        calibrate(mine, models(server), prices=PRICES, out=tmp_path)
    assert not server.requests


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_change": "ask"},
        {"unlabelled": "none"},
        {"unit": "euro"},
        {"concurrency": 0},
        {"max_spend": -1},
        {"max_spend": float("nan")},
        {"goal": {"max_cost": 1.0}},
        {"goal": {"cost": 1.0}, "adaptive": True},
    ],
    ids=str,
)
def test_a_setting_that_is_none_is_refused(
    server: OpenAIServer, given: dict[str, Any], wrong: dict[str, Any]
) -> None:
    with pytest.raises(AutoMixError, match=next(iter(wrong))):
        calibrate(questions(2), models(server), **given, **wrong)
    mix = AutoMixRunnable(models=models(server))
    with pytest.raises(ValidationError, match="prompt"):
        calibrate(questions(2), mix, prompt="{question}", **given)  # type: ignore[arg-type]
    assert not server.requests


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_listener_that_fails_stops_all(
    server: OpenAIServer, given: dict[str, Any], is_async: bool
) -> None:
    def listener(progress: Progress) -> None:
        if progress.done == 3:
            raise ZeroDivisionError

    about: dict[str, Any] = {**given, "on_progress": listener, "concurrency": 2}
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        if is_async:
            await acalibrate(questions(60), models(server), **about)
        else:
            calibrate(questions(60), models(server), **about)
    assert len(server.requests) == len(entries(given["out"])) < 60


def test_a_check_sees_the_tools_as_in_the_mix(server: OpenAIServer, tmp_path: Path) -> None:
    for name, mix in (
        ("mix", AutoMixRunnable(models=models(server), prices=PRICES).bind_tools([TOOL])),
        ("models", [model.bind_tools([TOOL]) for model in models(server)]),
    ):
        server.requests.clear()
        calibrate(questions(1), mix, prices=PRICES, out=tmp_path / f"{name}.jsonl")
        assert all("tools" in body for body in server.requests if not is_check(body))
        [check] = [json.dumps(body) for body in server.requests if is_check(body)]
        assert "find_ship" in check


def test_a_mix_as_a_model_tells_its_own_cost(server: OpenAIServer, given: dict[str, Any]) -> None:
    inner = ChatAutoMix(models=models(server, "small", "judge"), prices=PRICES)
    log = calibrate(questions(2), [inner, server.model("large")], **given)
    answers = [answer for query in log for answer in query.answers]
    checks = [answer.verification for answer in answers if answer.verification]
    counted = sum(a.cost or 0 for a in answers) + sum(check.total_cost for check in checks)
    billed = sum(
        bill["prompt_tokens"] * PRICES[bill["model"]]["input"]
        + bill["completion_tokens"] * PRICES[bill["model"]]["output"]
        for bill in server.billed
    )
    assert counted == pytest.approx(billed / 1e6)


def test_a_key_that_a_provider_repeats_is_kept_nowhere(
    server: OpenAIServer, given: dict[str, Any]
) -> None:
    key = "sk-of-the-user-0123"
    refused = Error(401, {"error": {"message": f"Incorrect API key: {key}", "type": "test"}})
    server.script = lambda body: refused if body["model"] == "large" else script(body)
    small, large = server.model("small"), server.model("large", api_key=SecretStr(key))
    found = run_calibration(CalibrationSettings(questions(2), [small, large], **given))
    journal = Path(f"{given['out']}.journal")
    for text in (found.last_error, found.out.read_text(), journal.read_text()):
        assert "Incorrect API key: ****" in text
        assert key not in text


def test_what_the_estimate_cannot_know_is_said(server: OpenAIServer, given: dict[str, Any]) -> None:
    seen: list[Estimate] = []

    def refuse(found: Estimate) -> bool:
        seen.append(found)
        return False

    own: Runnable[Any, Any] = RunnableLambda(lambda _: Verification(score=0.5))
    similar = EmbeddingSimilarity(embeddings=DeterministicFakeEmbedding(size=4))
    settings: list[dict[str, Any]] = [{}, {"verifier": own, "quality": similar}]
    for about in settings:
        with pytest.raises(AutoMixError, match="Not approved"):
            calibrate(questions(2), models(server), approve=refuse, **given, **about)
    assert seen[0].notes == ()
    assert [note.split()[:3] for note in seen[1].notes] == [
        ["Model", "calls", "of"],
        ["Embeddings", "report", "no"],
    ]


def test_what_fails_each_time_does_not_stop_the_next_run(
    server: OpenAIServer, given: dict[str, Any]
) -> None:
    """Some examples that a provider refuses, and always will: the log of the others is returned."""
    server.script = lambda body: 400 if number_of(body) % 2 else script(body)
    for _ in range(2):
        with pytest.warns(UserWarning, match="15 of 30 examples failed"):
            assert len(calibrate(questions(30), models(server), **given)) == 30


def test_an_interrupt_is_one_also_before_anything_is_finished(
    server: OpenAIServer, given: dict[str, Any]
) -> None:
    server.delay = 0.5
    code = """
        import sys
        from tests.calibration.test_calibrate_edges import *
        from langchain_openai import ChatOpenAI

        def model(name):
            return ChatOpenAI(model=name, base_url=sys.argv[1], api_key="test", max_retries=0)

        try:
            given = {"prices": PRICES, "out": sys.argv[2]}
            calibrate(questions(9), [model("small"), model("large")], **given)
        except KeyboardInterrupt as end:
            print(end.__cause__)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), server.base_url, str(given["out"])],
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: server.requests or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    assert "No example was finished (interrupted)" in process.communicate(timeout=60)[0]
    assert len(entries(given["out"])) == len(server.requests)


def test_a_thread_whose_start_is_interrupted_is_waited_for(
    server: OpenAIServer, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come when a thread runs that its pool has not heard of."""
    start = threading.Thread.start
    server.delay = 0.3

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if "PoolExecutor" in thread.name:
            wait_for(lambda: server.requests)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrate(questions(9), models(server), **given)
    assert len(entries(given["out"])) == len(server.requests) == 1
