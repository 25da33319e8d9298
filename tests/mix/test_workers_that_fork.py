"""The example of docs/limits.md: a mix for each process, with connections of its own."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers.openai_server import OpenAIServer

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:POMDPRouter decides")
def test_workers_build_their_own(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    server.script = lambda body: [f"To {body['messages'][-1]['content']}"] * (body.get("n") or 1)
    found = re.search(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    example: dict[str, Any] = {}
    exec(found[1], example)  # the page's own example
    mix = example["mix"]
    first = mix()
    assert mix() is first
    assert first.models[0].invoke("0").content == "To 0", "a connection is open before the fork"
    children = []
    for number in range(1, 4):
        if (child := os.fork()) == 0:
            status = 1
            try:
                own = mix()
                said = [own.models[0].invoke(f"{number}.{i}").content for i in range(20)]
                right = said == [f"To {number}.{i}" for i in range(20)]
                status = 0 if own is not first and right else 2
            finally:
                sys.stdout.flush()
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 3
