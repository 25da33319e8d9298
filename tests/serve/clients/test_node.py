"""OpenAI's client for Node, and LangChain.js, ask a served mix.

They are installed from npm for the tests, so that these run only where `AUTOMIX_TEST_NODE=1` is
set and npm is there; `AUTOMIX_TEST_NODE=FOLDER` keeps what is installed in a folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders.scripted_replies import Body, call, calls
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import Served

_WANTED = os.environ.get("AUTOMIX_TEST_NODE")
_FILES = Path(__file__).parent / "node"
_LONGEST = 300

pytestmark = [
    pytest.mark.skipif(not _WANTED, reason="AUTOMIX_TEST_NODE=1 installs clients from npm"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not there"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Node finds the clients."""
    kept = _WANTED not in (None, "1")
    folder = Path(_WANTED or "") if kept else tmp_path_factory.mktemp("node")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "clients.mjs"):
        shutil.copy(_FILES / name, folder)
    if not (folder / "node_modules").exists():
        options = ("--no-audit", "--no-fund", "--ignore-scripts")
        _run("npm", "install", *options, cwd=folder)
    return folder


def _run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=_LONGEST, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ask(folder: Path, running: Served, *cases: str) -> Any:
    """Return what Node's clients found, case by case."""
    lines = _run("node", "clients.mjs", running.base_url, *cases, cwd=folder).splitlines()
    return [json.loads(line) for line in lines]


def test_answers(folder: Path, running: Served, provider: OpenAIServer) -> None:
    whole, streamed, accumulated, models, langchain = ask(
        folder, running, "whole", "streamed", "accumulated", "models", "langchain"
    )
    usage = provider.billed[0]["total_tokens"]
    assert whole == streamed == {"text": "a small answer", "usage": usage}
    assert accumulated == {"text": "a small answer"}
    assert models == ["mix"]
    assert langchain == {**whole, "streamed": "a small answer"}


def test_tools(folder: Path, running: Served, provider: OpenAIServer) -> None:
    both = calls(call("weather", city="Turku"), call("weather", city="Åbo"))
    provider.script = lambda body: ["Sun."] if body["messages"][-1]["role"] == "tool" else [both]
    openai, langchain = ask(folder, running, "tools", "langchain_tools")
    assert openai == {"cities": ["Turku", "Åbo"], "text": "Sun."}
    assert langchain == [["Turku", "Åbo"]] * 2


def test_structured_answers(folder: Path, running: Served, provider: OpenAIServer) -> None:
    ship = {"name": "Halcyon", "kind": "ferry"}

    def script(body: Body) -> Any:
        tools = body.get("tools")
        return [call(tools[0]["function"]["name"], **ship) if tools else json.dumps(ship)]

    provider.script = script
    parsed, langchain = ask(folder, running, "parsed", "langchain_structured")
    assert parsed == ship
    assert langchain == {"jsonSchema": ship, "functionCalling": ship, "jsonMode": ship}


def test_refusals(folder: Path, running: Served, provider: OpenAIServer) -> None:
    [errors] = ask(folder, running, "refused")
    assert errors == [
        ["BadRequestError", 400, "unsupported_parameter"],
        ["NotFoundError", 404, "model_not_found"],
    ]
    assert provider.requests == []
