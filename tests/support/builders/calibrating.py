"""A folder with examples and prices, and `automix calibrate` run in it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from langchain_automix.cli.app import main
from tests.support.builders.scripted_replies import ACCEPT, REJECT, Body, Outcome
from tests.support.servers.openai_server import OpenAIServer, is_check

MODELS = ("--small", "openai:small", "--large", "openai:large")
PRICES = {name: {"input": 1.0, "output": 2.0} for name in ("small", "judge")} | {
    "large": {"input": 10.0, "output": 20.0}
}
PROCESS = [sys.executable, "-c", "from langchain_automix.cli.app import main; main()"]

Run = Callable[..., tuple[int, str, str]]


def script(body: Body) -> Outcome:
    """The small model knows even ships only, and its check knows when it does not."""
    found = re.findall(r"ship (\d+)", json.dumps(body["messages"]))
    number, n = int(found[-1]) if found else 0, body.get("n") or 1
    if is_check(body):
        return [ACCEPT if number % 2 == 0 else REJECT] * n
    if body["model"] == "judge":
        return ["It is right.\nGrade: 5"] * n
    return ["Turku" if body["model"] == "large" or number % 2 == 0 else "Oslo"] * n


@pytest.fixture(name="folder")
def folder_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: OpenAIServer) -> Path:
    """Where the user is: examples with and without accepted answers, and prices."""
    server.script = script
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prices.json").write_text(json.dumps(PRICES))
    write(tmp_path / "examples.jsonl", 12, answer="Turku")
    write(tmp_path / "bare.jsonl", 12)
    return tmp_path


def write(path: Path, number: int, **more: Any) -> None:
    rows = ({"question": f"Where was ship {i} built?", **more} for i in range(number))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(name="run")
def run_fixture(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return command_line(monkeypatch, capsys)


def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs `automix` with some arguments: its exit code, its output and its errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["automix", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        code = stopped.value.code
        return code if isinstance(code, int) else 0 if code is None else 1, out, err

    return call


@pytest.fixture(name="calibrated")
def calibrated_fixture(run: Run, folder: Path) -> Run:
    """Calibrate on both models, with prices; what checks is the check that the script answers."""

    def call(*arguments: object, examples: str = "examples.jsonl") -> tuple[int, str, str]:
        priced = () if "--unit" in arguments else ("--prices", "prices.json")
        given = ("--out", "log.jsonl", *MODELS, *priced, "--check", "few-shot", *arguments)
        return run("calibrate", examples, *given)

    return call


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def flat(text: str) -> str:
    return " ".join(text.split())
