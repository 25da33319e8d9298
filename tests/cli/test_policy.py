"""The verbs fit, evaluate and show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from langchain_automix import AutoMixError, POMDPRouter
from langchain_automix.cli.policy import register
from tests.support.builders.synthetic_logs import world


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def run(app: typer.Typer, *args: object) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_fit_evaluate_show(app: typer.Typer, tmp_path: Path) -> None:
    log, policy = tmp_path / "log.jsonl.gz", tmp_path / "policy.json"
    world(200).write(log)
    said = run(app, "fit", log, "--out", policy, "--cost-weight", "0.03")
    assert "Fitted to 200 logged queries" in said
    assert POMDPRouter.load(policy).policy.cost_weight == 0.03
    assert "accept/reject" in run(app, "show", policy)
    assert "always:large" in run(app, "evaluate", policy, log)


def test_json(app: typer.Typer, tmp_path: Path) -> None:
    log, policy = tmp_path / "log.jsonl", tmp_path / "policy.json"
    world(200).write(log)
    fitted = json.loads(run(app, "fit", log, "--out", policy, "--max-cost", "4", "--json"))
    assert fitted["goal"] == {"max_cost": 4.0}
    assert json.loads(run(app, "show", policy, "--json"))["models"] == ["small", "large"]
    found = json.loads(run(app, "evaluate", policy, log, "--json"))
    assert {
        "queries",
        "quality",
        "cost",
        "escalation_rate",
        "verification_samples",
        "ibc_lift",
        "ibc_lift_interval",
        "baselines",
        "frontier_efficiency",
    } <= set(found)
    assert found["cost"] == pytest.approx(4, rel=0.2)
    assert {"quality", "cost"} <= set(found["baselines"]["always:small"])


def test_fit_without_a_goal_allows_a_small_loss(app: typer.Typer, tmp_path: Path) -> None:
    log, policy = tmp_path / "log.jsonl", tmp_path / "policy.json"
    world(200).write(log)

    def goal(*options: str) -> dict[str, float]:
        found: dict[str, float] = json.loads(
            run(app, "fit", log, "--out", policy, "--json", *options)
        )["goal"]
        return found

    assert goal() == {"max_loss": 0.01}
    assert goal("--max-loss", "0.05") == {"max_loss": 0.05}
    assert goal("--min-quality", "0.7") == {"min_quality": 0.7}
    assert goal("--abstain-value", "0.1") == {"abstain_value": 0.1}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("fit", "none.jsonl", "--out", "p.json"), "cannot be read"),
        (("show", "none.json"), "cannot be read"),
        (("evaluate", "none.json", "none.jsonl"), "cannot be read"),
        (("evaluate", "none.json", "none.jsonl", "--cost-weight", "-1"), "at least 0"),
    ],
)
def test_bad_input_is_one_clear_error(
    app: typer.Typer, args: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(AutoMixError, match=message):
        CliRunner().invoke(app, list(args), catch_exceptions=False)
