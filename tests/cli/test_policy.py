"""The verbs fit, evaluate and show."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from langchain_automix import AutoMixError, POMDPRouter, RoutingLog
from langchain_automix.cli.policy import register
from tests.support.builders.synthetic_logs import world


def small_world() -> RoutingLog:
    """A log that is fitted in no time; what is said of it is tested, not the fit."""
    return world(100, k=3)


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
    small_world().write(log)
    said = run(app, "fit", log, "--out", policy, "--cost-weight", "0.03")
    assert "Fitted to 100 logged queries" in said
    assert POMDPRouter.load(policy).policy.cost_weight == 0.03
    assert "accept/reject" in run(app, "show", policy)
    assert "always:large" in run(app, "evaluate", policy, log)


def test_json(app: typer.Typer, tmp_path: Path) -> None:
    log, policy = tmp_path / "log.jsonl", tmp_path / "policy.json"
    small_world().write(log)
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
    small_world().write(log)

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


def test_fit_says_first_what_to_do_and_what_to_expect(app: typer.Typer, tmp_path: Path) -> None:
    log, policy = tmp_path / "log.jsonl", tmp_path / "policy.json"
    small_world().write(log)
    said = run(app, "fit", log, "--out", policy, "--min-quality", "0.85").splitlines()
    assert said[0].startswith(("Deploy", "Keep", "Take", "Label"))
    assert re.match(r"Asked 9\d(\.\d)? %, got .* % \[.*\] at \d+ % of the cost \[.*\]; of", said[2])
    found = json.loads(run(app, "fit", log, "--out", policy, "--min-quality", "0.85", "--json"))
    assert found["recommendation"]["action"] in ("deploy", "keep", "threshold", "label")
    low, high = found["headline"]["cost_interval"]
    assert low < found["headline"]["cost"] < high


def test_one_threshold_as_the_policy(app: typer.Typer, tmp_path: Path) -> None:
    log, policy = tmp_path / "log.jsonl", tmp_path / "policy.json"
    small_world().write(log)
    run(app, "fit", log, "--out", policy, "--rule", "threshold", "--cost-weight", "0.03")
    plans = POMDPRouter.load(policy).policy.plans
    assert [plan.name.partition(":")[0] for plan in plans] == ["threshold"]
    assert "Take one threshold" not in run(app, "evaluate", policy, log)


def test_evaluate_prints_the_frontier(app: typer.Typer, tmp_path: Path) -> None:
    log, policy = tmp_path / "log.jsonl", tmp_path / "policy.json"
    world(100, k=4).write(log)
    run(app, "fit", log, "--out", policy, "--max-loss", "0.02")
    said = run(app, "evaluate", policy, log)
    assert "What shares of large's quality cost" in said
    assert "not reached" in said  # a threshold always pays for the check: 100 % is out of its reach
    found = json.loads(run(app, "evaluate", policy, log, "--json"))
    frontier = found["cost_at_quality"]
    assert set(frontier) == {"policy", "random_mix", "threshold", "released"}
    assert [point["level"] for point in frontier["policy"]] == [1.0, 0.99, 0.97, 0.95]
    assert frontier["threshold"][0]["cost"] is None
    assert found["headline"]["asked"] == pytest.approx(1 - 0.02 / 0.885, abs=0.05)
