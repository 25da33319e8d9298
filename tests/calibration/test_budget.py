"""Who waits for money under a limit, and what ends the waiting."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import acalibrate
from langchain_automix.calibration.budget import CalibrationRun
from langchain_automix.calibration.examples.examples import Example
from tests.calibration.test_calibrate import PRICES, models, questions, script
from tests.support.servers.openai_server import OpenAIServer

ROW: dict[str, Any] = {"metadata": {}}
KIND = ("answer", "small", None)


@pytest.fixture
def run() -> CalibrationRun:
    """A limit that one example may take up, and that leaves money for two if they cost half."""
    return CalibrationRun(
        examples=9, currency="USD", max_spend=1.0, example_cost=(0.5, 1.0), done=0, reused=0
    )


@pytest.fixture
def examples() -> Iterator[Example]:
    return iter([Example(id=str(i), question=str(i)) for i in range(9)])


@pytest.fixture
def waiting(run: CalibrationRun, examples: Iterator[Example]) -> Iterator[Future[Example | None]]:
    """One worker has an example, and another waits for what it leaves."""
    assert run.next_example(examples) is not None
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run.next_example, examples)
        with pytest.raises(TimeoutError):
            future.result(timeout=0.1)
        yield future
        run.stop("error")


def test_an_example_that_leaves_money_wakes_who_waits(
    run: CalibrationRun, waiting: Future[Example | None]
) -> None:
    run.spending.add(KIND, 0.4)
    run.finished(ROW)
    example = waiting.result(timeout=5)
    assert example is not None
    assert example.id == "1"


def test_an_example_that_leaves_too_little_ends_the_run(
    run: CalibrationRun, waiting: Future[Example | None]
) -> None:
    run.spending.add(KIND, 0.6)
    run.finished(ROW)
    assert waiting.result(timeout=5) is None
    assert run.stopped == "max_spend"


def test_an_example_that_was_given_up_wakes_who_waits(
    run: CalibrationRun, waiting: Future[Example | None]
) -> None:
    run.finished(None)
    assert waiting.result(timeout=5) is not None


def test_a_stop_wakes_who_waits(run: CalibrationRun, waiting: Future[Example | None]) -> None:
    run.stop("interrupted")
    assert waiting.result(timeout=5) is None
    assert run.stopped == "interrupted"


async def test_waiting_takes_no_thread_that_the_models_need(
    server: OpenAIServer, tmp_path: Path
) -> None:
    server.script = script
    given: dict[str, Any] = {"prices": PRICES, "concurrency": 40}
    log = await acalibrate(
        questions(40), models(server), out=tmp_path / "log.jsonl", max_spend=1.0, **given
    )
    spent = sum(answer.cost or 0.0 for query in log for answer in query.answers)
    with pytest.warns(UserWarning, match="Stopped at max_spend"):
        part = await acalibrate(
            questions(40), models(server), out=tmp_path / "part.jsonl", max_spend=spent / 2, **given
        )
    assert 0 < len(part) < 40
