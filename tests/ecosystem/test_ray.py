"""Logs read by their shards, and examples run, by a Ray cluster of two workers on this machine."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from langchain_automix import (
    AutoMixError,
    FunctionVerifier,
    POMDPRouter,
    RoutingLog,
    Verification,
    calibrate,
    compare_verifiers,
    evaluate,
)
from langchain_automix.calibration.budget import Progress
from langchain_automix.calibration.examples.examples import examples_from
from langchain_automix.cli.logs import is_log
from langchain_automix.policy.data.arrays import LogArrays
from langchain_automix.utils.ray_cluster import connect
from tests.support.builders.calibrating import PRICES, Run, folder_fixture, run_fixture, script
from tests.support.builders.logs_with_extra_checks import several
from tests.support.builders.ray_workers import ray_fixture
from tests.support.builders.sharded_logs import in_shards, said
from tests.support.builders.synthetic_logs import scored, world
from tests.support.servers.openai_server import OpenAIServer

__all__ = ["folder_fixture", "ray_fixture", "run_fixture"]

pytestmark = pytest.mark.usefixtures("ray_cluster")


def with_scores(arrays: LogArrays) -> RoutingLog:
    rows = zip(arrays.quality, arrays.cost, arrays.score[:, 0], strict=True)
    return RoutingLog(
        {
            "id": f"q{i}",
            "answers": [
                {
                    "model": "small",
                    "quality": quality[0],
                    "cost": cost[0],
                    "verification": {"score": float(score), "cost": 0.2},
                },
                {"model": "large", "quality": quality[1], "cost": cost[1]},
            ],
        }
        for i, (quality, cost, score) in enumerate(rows)
    )


LOGS = {
    "verdicts": lambda: world(120, k=3),
    "scores": lambda: with_scores(scored("monotone", 120, 1)),
    "several checks": lambda: several(120),
}


def close(found: Any, expected: Any) -> bool:
    """Whether two results in JSON are the same, numbers to 1e-9."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close(found[n], expected[n]) for n in found)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, abs=1e-9, nan_ok=True))
    return bool(found == expected)


@pytest.mark.parametrize("kind", LOGS)
def test_everything_is_the_same_as_on_one_machine(tmp_path: Path, kind: str) -> None:
    log = said(LOGS[kind]())
    read = RoutingLog.read(in_shards(log, tmp_path / "logs"), engine="ray")
    assert [query.answers for query in read] == [query.answers for query in log]
    routers = [POMDPRouter.fit(each, cost_weight=0.02) for each in (log, read)]
    fits = [json.loads(router.policy.model_dump_json(by_alias=True)) for router in routers]
    assert close(fits[1], fits[0])
    judged = [evaluate(routers[0], each).to_dict() for each in (log, read)]
    assert close(judged[1], judged[0])
    if kind != "scores":
        compared = [compare_verifiers(each).to_dict() for each in (log, read)]
        assert close(compared[1], compared[0])


def test_a_dataset_of_ray(tmp_path: Path) -> None:
    from ray import data  # noqa: PLC0415  (not where it is not installed)

    log = said(several(20, lost=0.4))
    in_shards(log, tmp_path / "logs", "parquet")
    lines = in_shards(log, tmp_path / "lines")
    written = [json.loads(line) for path in sorted(lines.iterdir()) for line in path.open()]
    for dataset in (data.read_parquet(str(tmp_path / "logs")), data.from_items(written)):
        read = RoutingLog.read(dataset)
        assert sorted(query.id for query in read) == sorted(query.id for query in log)
        answers = {query.id: query.answers for query in log}
        assert all(query.answers == answers[query.id] for query in read)
        assert read.verifier == "a-check"
        assert "question" not in (read[0].metadata or {})
    assert "question" in (RoutingLog.read(data.from_items(written), texts=True)[0].metadata or {})


def test_a_line_that_is_no_query_is_named(tmp_path: Path) -> None:
    folder = in_shards(world(9, k=1), tmp_path / "logs")
    with (folder / "part-2.jsonl").open("a") as file:
        file.write('{"id": "x", "answers": [{"model": "small", "quality": 2}]}\n')
    with pytest.raises(AutoMixError, match=r"part-2\.jsonl, line 5, field answers.*quality"):
        RoutingLog.read(folder, engine="ray")


def test_the_command_line(tmp_path: Path, run: Run) -> None:
    folder = in_shards(world(60, k=2), tmp_path / "logs")
    policy = tmp_path / "policy.json"
    given = (folder, "--out", policy, "--cost-weight", 0.02, "--ray", "auto", "--json")
    code, out, _ = run("fit", *given)
    assert (code, json.loads(out)["queries"]) == (0, 60)
    judged = []
    for more in ((), ("--ray", "auto")):
        code, out, _ = run("evaluate", policy, folder / "*.jsonl", "--json", *more)
        assert code == 0
        judged.append(json.loads(out))
    assert close(judged[1], judged[0])
    code, out, _ = run("compare-verifiers", folder, "--ray", "auto", "--json")
    assert (code, json.loads(out)["queries"]) == (0, 60)


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AutoMixError, match=r"needs ray, which is not installed.*\[ray\]"):
        RoutingLog.read(in_shards(world(9, k=1), tmp_path / "logs"), engine="ray")


def questions(number: int) -> list[dict[str, Any]]:
    return [{"question": f"Where was ship {i} built?", "answer": "Turku"} for i in range(number)]


def models(server: OpenAIServer, **settings: Any) -> list[Any]:
    server.script = script
    return [server.model("small", **settings), server.model("large", **settings)]


class TestCalibrate:
    def test_the_log_is_the_same_and_either_goes_on_where_the_other_stopped(
        self, server: OpenAIServer, tmp_path: Path
    ) -> None:
        seen: list[Progress] = []
        given: dict[str, Any] = {
            "prices": PRICES,
            "quality": lambda answer, references: float(answer in references),
            "on_progress": seen.append,
        }
        mix = models(server)
        here = calibrate(questions(10), mix, out=tmp_path / "here.jsonl", **given)
        asked = len(server.requests)
        there = calibrate(questions(10), mix, out=tmp_path / "there.jsonl", engine="ray", **given)
        assert list(there.records()) == list(here.records())
        assert len(server.requests) == 2 * asked
        assert (seen[-1].done, seen[-1].calls) == (10, asked)
        calibrate(questions(10), mix, out=tmp_path / "there.jsonl", **given)
        calibrate(questions(10), mix, out=tmp_path / "here.jsonl", engine="ray", **given)
        assert len(server.requests) == 2 * asked

    def test_a_worker_that_dies_is_made_anew_and_nothing_finished_is_paid_twice(
        self, server: OpenAIServer, tmp_path: Path
    ) -> None:
        marks = str(tmp_path)

        def kills_once(answer: str) -> Verification:
            with open(f"{marks}/checked", "a") as file:  # noqa: PTH123
                file.write(f"{answer}\n")
            if not os.path.exists(f"{marks}/killed"):  # noqa: PTH110
                with open(f"{marks}/killed", "x"):  # noqa: PTH123
                    os._exit(1)
            return Verification(score=1.0)

        seen: list[Progress] = []
        log = calibrate(
            questions(6),
            models(server),
            prices=PRICES,
            verifier=FunctionVerifier(function=kills_once),
            out=tmp_path / "log.jsonl",
            engine="ray",
            concurrency=1,
            on_progress=seen.append,
        )
        assert len(log) == 6
        assert len(server.requests) == 6 * 2
        assert len((tmp_path / "checked").read_text().splitlines()) == 6 + 1
        assert (seen[-1].failed, seen[-1].lost) == (0, 1)

    def test_a_model_that_cannot_be_sent_costs_nothing(
        self, server: OpenAIServer, tmp_path: Path
    ) -> None:
        with httpx.Client() as client, pytest.raises(AutoMixError, match="its http_client"):
            calibrate(
                questions(2),
                models(server, http_client=client),
                prices=PRICES,
                out=tmp_path / "log.jsonl",
                engine="ray",
            )
        assert not server.requests
        assert not list(tmp_path.iterdir())

    def test_the_command_line(self, server: OpenAIServer, folder: Path, run: Run) -> None:
        graded = "def grade(answer, references):\n    return answer in references\n"
        (folder / "mine.py").write_text(graded)
        given = ("--small", "openai:small", "--large", "openai:large", "--prices", "prices.json")
        code, out, err = run(
            *("calibrate", "examples.jsonl", "--out", "log.jsonl", *given, "--check", "few-shot"),
            *("--quality", "mine.py:grade", "--ray", "auto", "--yes", "--json"),
        )
        assert (code, json.loads(out.splitlines()[-1])["event"]) == (0, "done"), err
        assert [query.answers[0].quality for query in RoutingLog.read("log.jsonl")] == [
            1.0,
            0.0,
        ] * 6
        asked = len(server.requests)
        code, _, _ = run(
            *("calibrate", "examples.jsonl", "--out", "log.jsonl", *given, "--check", "few-shot"),
            *("--quality", "mine.py:grade", "--yes"),
        )
        assert (code, len(server.requests)) == (0, asked)


def test_examples_in_parquet_and_in_a_dataset(tmp_path: Path) -> None:
    from ray import data  # noqa: PLC0415  (not where it is not installed)

    rows = [*questions(3), {"question": "Who?", "answer": None}]
    table = pytest.importorskip("pyarrow").Table.from_pylist(rows)
    importlib.import_module("pyarrow.parquet").write_table(table, tmp_path / "examples.parquet")
    for source in (tmp_path / "examples.parquet", data.from_arrow(table)):
        read = examples_from(source)
        assert [example.question for example in read][:3] == [e["question"] for e in questions(3)]
        assert [example.references for example in read] == [("Turku",)] * 3 + [()]
    assert not is_log(str(tmp_path / "examples.parquet"))
    world(3, k=1).write(tmp_path / "log.parquet")
    assert is_log(str(tmp_path / "log.parquet"))


def test_there_is_no_such_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray  # noqa: PLC0415  (not where it is not installed)

    def fails(**given: Any) -> None:  # Ray itself looks for one for a minute
        raise ConnectionError(f"Ray looked at {given['address']}.\nAnd more.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(AutoMixError, match=r"no Ray cluster at x:1: Ray looked at x:1\. Give auto"):
        connect("x:1")
