"""The verb serve: a process that serves until it is told to stop."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from langchain_automix import AutoMixError
from langchain_automix.cli.app import app
from tests.support.builders.score_policies import unchecked_router
from tests.support.builders.waiting import LONG, Gate, wait_for
from tests.support.servers.openai_server import OpenAIServer

MODELS = ("--small", "openai:small", "--large", "openai:large")
CHECK = ("--check", "agreement", "--samples", "2")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy that keeps whatever the small model says."""
    path = tmp_path / "policy.json"
    unchecked_router(0).save(path)
    return path


@contextlib.contextmanager
def process(
    server: OpenAIServer, *arguments: object
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `automix serve` at any free port; yield the process and its address."""
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": server.base_url,
        "OPENAI_API_KEY": "no key",
        "AUTOMIX_API_KEYS": "",
    }
    code = "from langchain_automix.cli.app import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "serve", *map(str, arguments), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as running:
        said: list[str] = []
        assert running.stderr is not None
        try:
            for line in running.stderr:
                said.append(line)
                if found := re.search(r"http://\S+/v1", line):
                    yield running, found[0]
                    break
            else:
                pytest.fail("".join(said))
        finally:
            running.kill()


def test_a_policy_is_served_until_a_signal_and_queries_end(
    server: OpenAIServer, policy: Path
) -> None:
    asked = {"model": "support", "messages": [{"role": "user", "content": "Who?"}]}
    gate = Gate()
    with (
        process(server, policy, *MODELS, *CHECK, "--name", "support") as (running, address),
        httpx.Client(trust_env=False, timeout=LONG) as client,
        ThreadPoolExecutor() as pool,
    ):
        try:
            response = client.post(f"{address}/chat/completions", json=asked)
            assert response.json()["choices"][0]["message"]["content"] == "a small answer"
            [card] = client.get(f"{address}/models").json()["data"]
            assert card["models"] == ["small", "large"]
            assert card["policy"]
            server.delay = gate
            answer = pool.submit(client.post, f"{address}/chat/completions", json=asked)
            wait_for(lambda: len(server.requests) == 2)
            running.send_signal(signal.SIGTERM)
            wait_for(lambda: _is_refused(address))
            assert running.poll() is None
        finally:
            gate.open()
        assert answer.result().status_code == 200
        assert running.wait(LONG) == 0


def test_a_file_of_mixes_is_served_and_queries_that_do_not_end_are_broken_off(
    server: OpenAIServer, policy: Path
) -> None:
    file = policy.with_name("mixes.toml")
    file.write_text(
        'grace = 0\n[mixes.one]\nmodels = ["openai:small", "openai:large"]\n'
        'policy = "policy.json"\ncheck = "agreement"\nsamples = 2\n'
        '[mixes.two]\nmodels = ["openai:small", "openai:large"]\n'
        'spend_limit = { limit = "1 USD" }\n'
        "prices = { small = { input = 1, output = 2 }, large = { input = 10, output = 20 } }\n",
        encoding="utf-8",
    )
    server.delay = gate = Gate()
    with (
        process(server, file) as (running, address),
        httpx.Client(trust_env=False, timeout=LONG) as client,
        ThreadPoolExecutor() as pool,
    ):
        cards = client.get(f"{address}/models").json()["data"]
        assert [card["id"] for card in cards] == ["one", "two"]
        asked = {"model": "two", "messages": [{"role": "user", "content": "Who?"}]}
        try:
            answer = pool.submit(client.post, f"{address}/chat/completions", json=asked)
            wait_for(lambda: server.requests)
            running.send_signal(signal.SIGTERM)
            response = answer.result()
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "server_stopping"
            assert running.wait(LONG) == 0
        finally:
            gate.open()


def _is_refused(address: str) -> bool:
    try:
        httpx.get(f"{address}/models", trust_env=False)
    except httpx.ConnectError:
        return True
    return False


def refused(*arguments: object) -> str:
    with pytest.raises(AutoMixError) as caught:
        CliRunner().invoke(app, ["serve", *map(str, arguments)], catch_exceptions=False)
    return str(caught.value)


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOMIX_API_KEYS", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "no key")


@pytest.mark.usefixtures("keyless")
def test_what_is_refused_before_anything_is_served(policy: Path, tmp_path: Path) -> None:
    assert "AUTOMIX_API_KEYS" in refused(policy, *MODELS, "--host", "0.0.0.0")
    assert "fitted to small, large" in refused(policy)
    others = ("--small", "openai:large", "--large", "openai:small")
    assert "in another order" in refused(policy, *others, *CHECK)
    assert "no check" in refused(policy, *MODELS, "--check", "agrement")
    assert "cannot be read" in refused(tmp_path / "none.toml")
    file = tmp_path / "mixes.toml"
    file.write_text("[mixes.a]\nmodels = ['openai:small', 'openai:large']\n", encoding="utf-8")
    assert f"does not go with a file of mixes: say it in {file}" in refused(file, *MODELS[:2])
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"small": {"input": 1, "output": 2}}), encoding="utf-8")
    limited = (*MODELS, *CHECK, "--max-spend", "5 USD", "--prices", prices)
    assert "needs the price of every model" in refused(policy, *limited)


def test_who_watches_keeps_no_server_from_its_end(server: OpenAIServer, policy: Path) -> None:
    with (
        process(server, policy, *MODELS, *CHECK, "--grace", "600") as (running, address),
        httpx.Client(trust_env=False, timeout=LONG) as client,
        client.stream("GET", f"{address}/events") as response,
    ):
        lines = response.iter_lines()
        assert next(lines) == "event: state"
        running.send_signal(signal.SIGTERM)
        assert "event: stopping" in list(lines)
        assert running.wait(LONG) == 0
