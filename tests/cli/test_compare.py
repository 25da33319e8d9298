"""`automix compare-verifiers` as its user meets it: from a log, and from examples."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import RoutingLog
from langchain_automix.cli.checks import build_combined_check, resolve_checks
from langchain_automix.local.models import Model, ModelOptions
from langchain_automix.verifiers.known import KNOWN_CHECKS
from tests.evaluation.test_compare_verifiers import checked
from tests.support.builders.calibrating import (  # noqa: F401
    MODELS,
    Run,
    events,
    flat,
    folder_fixture,
    run_fixture,
    script,
    write,
)
from tests.support.builders.scripted_replies import Body, Outcome
from tests.support.servers.openai_server import OpenAIServer, token

CHECKS = ("--check", "few-shot", "--check", "one token by large")


def told(body: Body) -> Outcome:
    """As in `calibrating`; the large model says Yes of even ships at 0.9, of odd ones at 0.2."""
    if body.get("top_logprobs"):
        number = int(re.findall(r"ship (\d+)", json.dumps(body["messages"]))[-1])
        yes = 0.9 if number % 2 == 0 else 0.2
        return [{"content": "Yes", "logprobs": [token("Yes", yes, No=1 - yes)]}]
    if body["messages"][-2:-1] and body["messages"][-2]["role"] == "assistant":
        body = {**body, "messages": [{"content": "You check answers"}, *body["messages"]]}
    return script(body)


@pytest.fixture(name="compared")
def compared_fixture(run: Run, folder: Path, server: OpenAIServer) -> Run:
    """Compare checks of both models on examples, with prices."""
    server.script = told
    write(folder / "examples.jsonl", 24, answer="Turku")

    def call(*arguments: object, examples: str = "examples.jsonl") -> tuple[int, str, str]:
        return run("compare-verifiers", examples, *MODELS, "--prices", "prices.json", *arguments)

    return call


@pytest.fixture(name="log")
def log_fixture(folder: Path) -> Path:
    path = folder / "several.jsonl"
    checked(30, blind=False, metadata={"check": "few-shot"}).write(path)
    return path


class TestLog:
    def test_the_table(self, run: Run, log: Path, server: OpenAIServer) -> None:
        code, out, err = run("compare-verifiers", log, "--cost-weight", 0.05, "--k", 2, "--k", 4)
        assert (code, err) == (0, "")
        assert max(map(len, out.splitlines())) <= 80
        names = [re.split(r"\s{2,}", line)[:2] for line in out.splitlines()]
        assert [k for name, k in filter(lambda n: n[0] == "few-shot", names)] == ["2", "4", "8"]
        assert "all together" in out
        assert "gains most over no check" in flat(out)
        assert not server.requests

    def test_json_is_what_python_says(self, run: Run, log: Path) -> None:
        from langchain_automix import compare_verifiers  # noqa: PLC0415

        code, out, _ = run("compare-verifiers", log, "--json", "--cost-weight", 0.05, "--k", 8)
        assert code == 0
        (found,) = events(out)
        assert found.pop("event") == "comparison"
        expected = compare_verifiers(RoutingLog.read(log), cost_weight=0.05, samples=(8,))
        assert found == json.loads(json.dumps(expected.to_dict()))

    def test_markdown(self, run: Run, log: Path) -> None:
        code, *_ = run("compare-verifiers", log, "--k", 8, "--markdown", "table.md")
        assert code == 0
        assert "| check | k |" in Path("table.md").read_text()

    def test_gzipped(self, run: Run, log: Path) -> None:
        content = log.read_text(encoding="utf-8").encode("utf-8-sig")  # as some editors write it
        Path("several.jsonl.gz").write_bytes(gzip.compress(content))
        code, out, _ = run("compare-verifiers", "several.jsonl.gz", "--k", 8)
        assert code == 0
        assert "few-shot" in out

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--check", "few-shot"), "--check is for examples that are yet to be run"),
            (("--small", "openai:small"), "--small is for examples that are yet to be run"),
            (("--cost-weight", "-1"), "--cost-weight must be a number of at least 0"),
            (("--markdown", "no/such/folder.md"), "cannot be written"),
        ],
    )
    def test_bad_options(self, run: Run, log: Path, arguments: Any, said: str) -> None:
        code, _, err = run("compare-verifiers", log, *arguments)
        assert code == 2
        assert said in err
        assert len(err.splitlines()) == 1

    def test_a_log_with_a_bad_line(self, run: Run, log: Path) -> None:
        log.write_text(log.read_text() + '{"id": "x", "answers": []}\n')
        code, _, err = run("compare-verifiers", log)
        assert code == 2
        assert "line 31" in err


class TestExamples:
    def test_the_estimate_comes_first(self, compared: Run, server: OpenAIServer) -> None:
        code, out, err = compared()
        assert code == 2
        assert "give --yes" in err
        assert not server.requests
        assert max(map(len, out.splitlines())) <= 80
        _, out, _ = compared("--json")
        stages = events(out)[0]["stages"]
        checks = [stage["check"] for stage in stages if stage["stage"] == "check"]
        assert checks == [name for name in resolve_checks(()) if name != "log-probability"]

    def test_the_table(self, compared: Run, server: OpenAIServer) -> None:
        code, out, _ = compared("--yes", "--k", 1, *CHECKS)
        assert code == 0
        assert "24 of 24 examples finished" in out
        line = next(line for line in out.splitlines() if line.startswith("one token by large"))
        assert line.split()[4] == "1.00"
        assert max(map(len, out.splitlines())) <= 80
        assert len(server.requests) == 4 * 24
        assert RoutingLog.read("checks.jsonl").checks == ("first", "one token by large")

    def test_again_from_the_log_is_the_same_table(self, compared: Run, run: Run) -> None:
        _, out, _ = compared("--yes", "--json", *CHECKS)
        _, again, _ = run("compare-verifiers", "checks.jsonl", "--json")
        assert events(out)[-1] == events(again)[-1]

    def test_another_check_later_asks_that_check_only(
        self, compared: Run, server: OpenAIServer
    ) -> None:
        compared("--yes", *CHECKS)
        server.requests.clear()
        code, out, _ = compared("--yes", *CHECKS, "--check", "one token")
        assert code == 0
        assert [body["model"] for body in server.requests] == ["small"] * 24
        assert all(body["top_logprobs"] for body in server.requests)
        assert "one token " in out

    def test_json(self, compared: Run) -> None:
        code, out, _ = compared("--yes", "--json", *CHECKS)
        assert code == 0
        said = events(out)
        assert [said[0]["event"], *(each["event"] for each in said[-2:])] == [
            "estimate",
            "done",
            "comparison",
        ]
        assert {row["name"] for row in said[-1]["rows"]} == {"few-shot", "one token by large"}

    def test_every_known_check_can_be_made(self, compared: Run, server: OpenAIServer) -> None:
        every = [part for name in KNOWN_CHECKS for part in ("--check", name)]
        code, out, err = compared("--yes", "--json", "--limit", 20, "--k", 2, *every)
        assert code == 0, err
        found = events(out)[-1]
        assert {row["name"] for row in found["rows"]} == set(KNOWN_CHECKS)
        assert all(row["auroc"] is not None for row in found["rows"])

    def test_an_unknown_check(self, compared: Run, server: OpenAIServer) -> None:
        code, _, err = compared("--check", "guess")
        assert code == 2
        assert "There is no check 'guess'. There are: few-shot," in err
        assert not server.requests

    def test_a_missing_file(self, run: Run, folder: Path) -> None:
        code, _, err = run("compare-verifiers", "nothing.jsonl")
        assert code == 2
        assert "nothing.jsonl" in err

    def test_a_dry_run(self, compared: Run, server: OpenAIServer, folder: Path) -> None:
        code, out, _ = compared("--dry-run")
        assert code == 0
        assert "That is likely to cost $" in out
        assert max(map(len, out.splitlines())) <= 80
        assert not server.requests
        assert not list(folder.glob("checks.jsonl*"))


def test_the_checks_of_the_table_are_all_different(server: OpenAIServer) -> None:
    models = [Model(name, server.model(name)) for name in ("small", "large")]
    made = build_combined_check(tuple(KNOWN_CHECKS), models, ModelOptions())
    shapes = {
        (getattr(check, "fingerprint", None), getattr(check, "model", None) is None)
        for check in made.checks.values()
    }
    assert len(shapes) == len(KNOWN_CHECKS)
    assert not [name for name in KNOWN_CHECKS if "," in name or ":" in name]
