"""The lines of curl in the documentation, run as they stand there."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_automix import Learning
from tests.support.builders.mixes import ACCEPTS
from tests.support.builders.waiting import LONG
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import Served, chat_mix, served

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there")

_PAGE = Path(__file__).parents[3] / "docs" / "serving.md"
_ADDRESS = "http://127.0.0.1:8000"
LINES = re.findall(r"```console\n(curl .*?)```", _PAGE.read_text("utf-8"), re.DOTALL)
COMPLETIONS = [line for line in LINES if "/chat/completions" in line]


@pytest.fixture(scope="module")
def documented(shared_provider: OpenAIServer) -> Iterator[Served]:
    """A server of a mix of the name that stands in the documentation."""
    with served({"automix": chat_mix(shared_provider, verifier=ACCEPTS)}) as running:
        yield running


def run(line: str, running: Served) -> str:
    command = line.replace(_ADDRESS, running.root_url).replace("curl ", "curl -sS ", 1)
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=LONG, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lines_are_found() -> None:
    assert len(COMPLETIONS) >= 2
    assert any("/v1/feedback" in line for line in LINES)


@pytest.mark.parametrize("line", COMPLETIONS)
def test_completions(documented: Served, provider: OpenAIServer, line: str) -> None:
    told = run(line, documented)
    if '"stream": true' in line:
        *events, done, end = told.split("\n\n")
        assert (done, end) == ("data: [DONE]", "")
        usage = json.loads(events[-1].removeprefix("data: "))["usage"]
        assert usage["total_tokens"] == sum(each["total_tokens"] for each in provider.billed)
        return
    assert json.loads(told)["choices"][0]["message"]["content"] == "a small answer"


def test_feedback(server: OpenAIServer, tmp_path: Path) -> None:
    [line] = [line for line in LINES if "/v1/feedback" in line]
    with contextlib.closing(Learning(f"sqlite:///{tmp_path}/automix.db")) as learning:
        mix = chat_mix(server, verifier=ACCEPTS, learning=learning)
        with served({"automix": mix}) as running:
            found = json.loads(run(COMPLETIONS[0], running))["id"]
            told = json.loads(run(line.replace("chatcmpl-5f1c...", found), running))
    assert (told["id"], told["score"]) == (found, 1)
