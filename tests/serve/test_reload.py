"""Policies that are taken anew while queries are answered."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from langchain_automix import AutoMixError, ChatAutoMix, POMDPRouter
from langchain_automix.serve.mixes import Mixes, PolicyFile, ServedMix
from tests.support.builders.mixes import ACCEPTS
from tests.support.builders.score_policies import unchecked_router
from tests.support.builders.waiting import Gate, wait_for
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, Served, chat_mix, served, text_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def source(server: OpenAIServer, tmp_path: Path) -> PolicyFile:
    """A file whose policy keeps whatever the small model says."""
    path = tmp_path / "policy.json"
    unchecked_router(0).save(path)
    mix = chat_mix(server, verifier=ACCEPTS)

    def make(policy: Path) -> ChatAutoMix:
        return mix.model_copy(update={"router": POMDPRouter.load(policy)})

    return PolicyFile(path, make)


@pytest.fixture
def running(source: PolicyFile, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr("langchain_automix.serve.state._WATCH_SECONDS", 0.01)
    with served({MIX: source}) as running:
        yield running


def policy_of(running: Served) -> str:
    with running.client() as client:
        return str(client.get(f"/v1/models/{MIX}").json()["policy"])


def test_a_query_goes_by_one_policy_to_its_end(
    running: Served, source: PolicyFile, server: OpenAIServer
) -> None:
    before = policy_of(running)
    gate = Gate(lambda body: body["model"] == "small")
    server.delay = gate
    with ThreadPoolExecutor() as pool:
        try:
            earlier = pool.submit(running.chat)
            wait_for(lambda: server.requests)
            unchecked_router(1).save(source.path)
            wait_for(lambda: policy_of(running) != before)
            assert text_of(running.chat()) == "a large answer"
        finally:
            gate.open()
        assert text_of(earlier.result()) == "a small answer"
    told = {query.model: query.policy for query in running.told(2)}
    assert told == {"small": before, "large": policy_of(running)}


def test_a_file_that_cannot_be_used_leaves_the_former_policy(
    running: Served, source: PolicyFile, caplog: pytest.LogCaptureFixture
) -> None:
    before = policy_of(running)
    with caplog.at_level(logging.WARNING, "langchain_automix.serve"):
        source.path.write_text("{}", encoding="utf-8")
        wait_for(lambda: "cannot be used" in caplog.text)
        assert text_of(running.chat()) == "a small answer"
        assert policy_of(running) == before
        with running.client() as client:
            assert client.get("/readyz").status_code == 200
        source.path.unlink()
        wait_for(lambda: caplog.text.count("cannot be used") == 2)
    unchecked_router(1).save(source.path)
    wait_for(lambda: policy_of(running) != before)
    assert text_of(running.chat()) == "a large answer"


def test_a_file_is_read_only_when_it_has_changed(source: PolicyFile) -> None:
    mix = ServedMix(MIX, source)
    assert not mix.refresh()
    text = source.path.read_bytes()
    source.path.write_bytes(text)
    first = mix.current
    assert not mix.refresh()  # it says the same
    assert mix.current.policy == first.policy


def test_a_file_that_is_no_policy_is_not_served(source: PolicyFile) -> None:
    source.path.write_text("{}", encoding="utf-8")
    with pytest.raises(AutoMixError):
        Mixes({MIX: source})
    source.path.unlink()
    with pytest.raises(AutoMixError, match="cannot be read: No such file"):
        Mixes({MIX: source})
