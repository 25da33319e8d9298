"""Logs read by the shards by a Ray cluster of two workers on this machine."""

from __future__ import annotations

import json
import subprocess  # noqa: F401  (Ray starts processes: this marks the file as `wire`)
import sys
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import AutoMixError, POMDPRouter, RoutingLog, compare_verifiers, evaluate
from langchain_automix.policy.data.arrays import LogArrays
from tests.support.builders.calibrating import Run, run_fixture
from tests.support.builders.logs_with_extra_checks import several
from tests.support.builders.ray_workers import ray_fixture
from tests.support.builders.sharded_logs import in_shards, said
from tests.support.builders.synthetic_logs import scored, world

__all__ = ["ray_fixture", "run_fixture"]

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
