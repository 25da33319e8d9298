"""What Prometheus is told: of queries, refusals, what is under way, and what learns."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from langchain_automix import Learning, SelfVerifier, SpendLimit
from langchain_automix.serve import ApiKey, ServeSettings
from tests.support.builders.mixes import ACCEPTS, REJECTS
from tests.support.builders.waiting import Gate, wait_for
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, Served, chat_mix, served, served_mix

SECRET = "a-key-of-team-a"


class Samples:
    """The samples of a scrape."""

    def __init__(self, running: Served, key: str | None = None) -> None:
        running.state.observers.flush()
        with running.client(key) as client:
            response = client.get("/metrics")
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/plain")
        self.text = response.text
        self.found = [
            sample
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        ]

    def __call__(self, name: str, **labels: str) -> float | None:
        wanted = f"automix_{name}"
        return next(
            (each.value for each in self.found if each.name == wanted and each.labels == labels),
            None,
        )


def test_queries_by_mix_outcome_and_model(server: OpenAIServer) -> None:
    mixes = {
        MIX: chat_mix(server, verifier=ACCEPTS),
        "other": chat_mix(server, verifier=REJECTS),
    }
    with served(mixes) as running:
        begin = Samples(running)
        assert begin("cost_dollars_total", mix=MIX) == 0
        assert begin("in_flight") == 0
        assert begin("policy_info", mix=MIX, version="none") == 1
        running.chat()
        running.chat(model="other")
        told = running.told(2)
        seen = Samples(running)
    assert seen("queries_total", mix=MIX, outcome="kept", model="small") == 1
    assert seen("queries_total", mix="other", outcome="escalated", model="large") == 1
    for query, basis in zip(told, ("estimated", "measured"), strict=True):
        assert query.cost is not None
        assert query.largest_alone is not None
        assert seen("cost_dollars_total", mix=query.mix) == pytest.approx(float(query.cost))
        assert seen("compared_cost_dollars_total", mix=query.mix) == pytest.approx(
            float(query.cost)
        )
        alone = seen("largest_alone_dollars_total", mix=query.mix, basis=basis)
        assert alone == pytest.approx(float(query.largest_alone))
        assert seen("query_seconds_count", mix=query.mix) == 1
        assert seen("stage_seconds_count", mix=query.mix, stage="draft") == 1
    assert seen("unknown_costs_total", mix=MIX, of="query") == 0


def test_an_unknown_cost_is_counted_and_is_no_0_dollars(server: OpenAIServer) -> None:
    with served_mix(server, prices=None, verifier=ACCEPTS) as running:
        running.chat()
        seen = Samples(running)
    assert seen("unknown_costs_total", mix=MIX, of="query") == 1
    assert seen("unknown_costs_total", mix=MIX, of="largest_alone") == 1


def test_what_is_refused(server: OpenAIServer) -> None:
    spent = SpendLimit("0.000001 USD", when_spent="raise")
    settings = ServeSettings(keys=(ApiKey.of("team-a", SECRET),))
    with served_mix(server, settings, spend_limit=spent, verifier=ACCEPTS) as running:
        body = {"model": MIX, "messages": [{"role": "user", "content": "Who?"}]}
        with running.client(SECRET) as client:
            answers = [client.post("/v1/chat/completions", json=body) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [200, 429]
        with running.client("another-key") as client:
            assert client.post("/v1/chat/completions", json=body).status_code == 401
        query = running.told(2)[-1]
        seen = Samples(running, SECRET)
    assert (query.error, query.cost) == ("insufficient_quota", Decimal(0))
    assert seen("refused_total", reason="spend_limit") == 1
    assert seen("refused_total", reason="key") == 1
    assert seen("refused_total", reason="overloaded") == 0
    assert seen("unknown_costs_total", mix=MIX, of="query") == 0


def test_what_is_under_way_and_one_too_many(server: OpenAIServer, gate: Gate) -> None:
    settings = ServeSettings(max_concurrent=1)
    with served_mix(server, settings, verifier=ACCEPTS) as running, ThreadPoolExecutor() as pool:
        first = pool.submit(running.chat)
        wait_for(lambda: server.requests)
        assert running.chat().status_code == 503
        seen = Samples(running)
        assert seen("in_flight") == 1
        assert seen("refused_total", reason="overloaded") == 1
        gate.open()
        assert first.result().status_code == 200


def test_metrics_need_a_key_where_there_are_any_unless_they_are_open(server: OpenAIServer) -> None:
    keys = (ApiKey.of("team-a", SECRET),)
    with served_mix(server, ServeSettings(keys=keys)) as running, running.client() as client:
        assert client.get("/metrics").status_code == 401
        Samples(running, SECRET)
    opened = ServeSettings(keys=keys, metrics_open=True)
    with served_mix(server, opened) as running, running.client() as client:
        assert client.get("/metrics").status_code == 200
        assert client.get("/v1/models").status_code == 401


def test_labels_hold_nothing_that_clients_send(server: OpenAIServer) -> None:
    settings = ServeSettings(keys=(ApiKey.of("team-a", SECRET),), show_texts=True)
    with (
        served_mix(server, settings, verifier=ACCEPTS) as running,
        running.client(SECRET) as client,
    ):
        for number in range(3):
            asked = {"role": "user", "content": f"zebra {number}"}
            body = {"model": MIX, "messages": [asked], "user": f"zebra {number}"}
            client.post("/v1/chat/completions", json=body)
            client.post("/v1/chat/completions", json={**body, "model": f"zebra-{number}"})
        text = Samples(running, SECRET).text
    assert "zebra" not in text
    assert SECRET not in text
    assert set(re.findall(r'model="([^"]*)"', text)) == {"small"}


def test_two_apps_count_by_themselves(server: OpenAIServer) -> None:
    mixes = {MIX: chat_mix(server, verifier=ACCEPTS)}
    with served(mixes) as one, served(mixes) as two:
        one.chat()
        assert Samples(one)("query_seconds_count", mix=MIX) == 1
        assert Samples(two)("query_seconds_count", mix=MIX) == 0


def test_what_learns_tells_how_far_it_has_come(server: OpenAIServer, tmp_path: Path) -> None:
    learning = Learning(f"sqlite:///{tmp_path}/learn.db", refit="never")
    mixes = {MIX: chat_mix(server, learning=learning, verifier=SelfVerifier(samples=2))}
    with served(mixes) as running:
        running.chat()
        running.told()
        assert learning.flush()
        seen = Samples(running)
    learning.close()
    assert seen("learning_store_up", mix=MIX) == 1
    assert seen("learning_queries", mix=MIX) == 1
    assert seen("policy_info", mix=MIX, version="v0") == 1
