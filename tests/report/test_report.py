"""Reports on real policies: from Python and from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from langchain_automix import AutoMixError, POMDPRouter, Report
from langchain_automix.cli.policy import register
from langchain_automix.routers.baselines import AlwaysRouter
from tests.support.builders.synthetic_logs import world


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    log, policy = tmp_path / "log.jsonl.gz", tmp_path / "policy.json"
    world(19, k=2).write(log)
    POMDPRouter.fit(world(60, seed=2, k=2), cost_weight=0.03).save(policy)
    return policy, log


def run(app: typer.Typer, *args: object) -> str:
    result = CliRunner().invoke(app, ["report", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command(app: typer.Typer, files: tuple[Path, Path], tmp_path: Path) -> None:
    page, figures = tmp_path / "report.html", tmp_path / "report.md"
    said = run(app, *files, "--out", page, "--markdown", figures)
    report = Report.of(*files)
    assert said == f"{report}\n\nWritten to {page} and {figures}.\n"
    assert page.read_text(encoding="utf-8") == report.to_html()
    assert figures.read_text(encoding="utf-8") == report.to_markdown()


def test_as_json(app: typer.Typer, files: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    found = json.loads(run(app, *files, "--out", page, "--cost-weight", "0.05", "--json"))
    assert found["cost_weight"] == 0.05
    assert found["queries"] == 19
    assert found["judged"] == "held out"
    assert "decisions" not in found
    assert len(found["numbers"]) == 3
    assert page.exists()


def test_a_router_a_policy_and_a_file_say_the_same(files: tuple[Path, Path]) -> None:
    policy, log = files
    router = POMDPRouter.load(policy)
    of_objects = Report.of(router, world(19, k=2))
    assert len(of_objects.contents.decisions) == 19
    assert of_objects == Report.of(router.policy, log) == Report.of(str(policy), str(log))


def test_markdown_by_the_name_of_the_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    Report.of(*files).write(tmp_path / "report.md")
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("#")


@pytest.mark.parametrize("router", [POMDPRouter(), AlwaysRouter(), None])
def test_without_a_fitted_policy(router: Any) -> None:
    with pytest.raises(AutoMixError, match=r"needs a fitted policy.*fit a POMDPRouter"):
        Report.of(router, world(50))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"policy": "none.json"}, "cannot be read"),
        ({"log": "none.jsonl"}, "cannot be read"),
        ({"weight": "-1"}, "at least 0"),
        ({"weight": "nan"}, "at least 0"),
        ({"out": "nowhere/report.html"}, "cannot be written"),
    ],
)
def test_bad_input_is_one_clear_error(
    app: typer.Typer,
    files: tuple[Path, Path],
    tmp_path: Path,
    changed: dict[str, str],
    message: str,
) -> None:
    given = {"policy": files[0], "log": files[1], "out": tmp_path / "r.html", "weight": "0.1"}
    given |= {k: v if k == "weight" else tmp_path / v for k, v in changed.items()}
    args = [given["policy"], given["log"], "--out", given["out"], "--cost-weight", given["weight"]]
    with pytest.raises(AutoMixError, match=message):
        CliRunner().invoke(app, ["report", *map(str, args)], catch_exceptions=False)
    assert not (tmp_path / "r.html").exists()
