"""The events of ended queries: caught up with, bounded, and no query waits for a watcher."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from langchain_automix import Learning, SelfVerifier
from langchain_automix.serve import ApiKey, ServedQuery, ServeSettings
from tests.support.builders.mixes import ACCEPTS
from tests.support.builders.waiting import Gate, wait_for
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import (
    MIX,
    Served,
    chat_mix,
    next_of,
    served,
    served_mix,
    watching,
)

SECRET = "a-key-of-team-a"


def query(number: int) -> ServedQuery:
    return ServedQuery(at=0.0, id=f"chatcmpl-{number}", mix=MIX, outcome="kept", why="w" * 500)


def test_a_watcher_is_told_of_a_query_that_ends(running: Served) -> None:
    with watching(running) as events:
        begin = next_of(events, "state").data
        assert begin["mixes"] == [
            {"name": MIX, "models": ["small", "large"], "policy": None, "learning": None}
        ]
        asked = running.chat("Who built it?").json()
        event = next_of(events, "query")
        later = next_of(events, "state").data
    told = event.data
    assert told["id"] == asked["id"]
    assert (told["mix"], told["outcome"], told["model"], told["status"]) == (
        MIX,
        "kept",
        "small",
        200,
    )
    assert told["why"] == asked["automix"]["why"]
    assert told["cost"] == float(asked["automix"]["cost"].partition(" ")[0])
    assert told["question"] is None
    assert told["seconds"].keys() >= {"draft", "verify"}
    assert later["windows"]["start"]["queries"] == begin["windows"]["start"]["queries"] + 1


def test_who_comes_again_is_told_what_was_missed_and_nothing_twice(running: Served) -> None:
    with watching(running) as events:
        running.chat("one")
        seen = next_of(events, "query")
    assert seen.id is not None
    for _ in range(2):
        running.chat("more")
    running.state.observers.flush()
    with watching(running, **{"Last-Event-ID": seen.id}) as events:
        again = [next_of(events, "query") for _ in range(2)]
    assert seen.data["id"] not in [each.data["id"] for each in again]
    numbers = [int((each.id or "").partition("-")[2]) for each in (seen, *again)]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
    # A number of another process says nothing here: everything that is kept is told.
    with watching(running, **{"Last-Event-ID": f"00000000-{numbers[-1]}"}) as events:
        found = {next_of(events, "query").data["id"] for _ in range(numbers[-1])}
    assert seen.data["id"] in found


def test_an_event_id_with_more_digits_than_an_integer_may_have(running: Served) -> None:
    with watching(running) as events:
        running.chat("one")
        seen = next_of(events, "query")
    with watching(running, **{"Last-Event-ID": f"{seen.id}{'9' * 5_000}"}) as events:
        assert next_of(events, "query").data["id"]  # no number of ours: all that is kept is told


def test_probes_may_ask_without_a_body(running: Served) -> None:
    with running.client() as client:
        for path in ("/healthz", "/readyz"):
            found = client.head(path)
            assert (found.status_code, found.content) == (200, b"")


@pytest.mark.parametrize("last", ["-1", "x", "1001"])
def test_a_number_of_earlier_events_that_is_none(running: Served, last: str) -> None:
    with running.client() as client:
        assert client.get("/v1/events", params={"last": last}).status_code == 400


def test_a_question_is_shown_only_where_texts_may_be(server: OpenAIServer) -> None:
    settings = ServeSettings(show_texts=True)
    with served_mix(server, settings, verifier=ACCEPTS) as running, watching(running) as events:
        running.chat("Who built it?\x1b[31m")
        assert next_of(events, "query").data["question"] == "Who built it?\\x1b[31m"


def test_events_need_a_key_where_there_are_any(server: OpenAIServer) -> None:
    settings = ServeSettings(keys=(ApiKey.of("team-a", SECRET),))
    mixes = {"zebras": chat_mix(server, verifier=ACCEPTS)}
    with served(mixes, settings) as running, running.client() as client:
        assert client.get("/v1/events").status_code == 401
        for path in ("/", "/live/page.css", "/live/page.js"):  # which hold nothing of the app
            shown = client.get(path)
            assert shown.status_code == 200
            assert "zebras" not in shown.text
        with watching(running, SECRET) as events:
            assert next_of(events, "state").data["in_flight"] == 0


def test_a_watcher_that_reads_nothing_delays_no_query(running: Served) -> None:
    live = running.state.live
    with socket.create_connection(("127.0.0.1", int(running.root_url.rpartition(":")[2]))) as slow:
        slow.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: live.watchers == 1)
        for number in range(5_000):
            live.observe(query(number))
        assert running.chat().status_code == 200
        assert len(live._events) == 1_000
    wait_for(lambda: live.watchers == 0)


def test_what_was_missed_is_counted(running: Served) -> None:
    live = running.state.live
    for number in range(1_500):
        live.observe(query(number))
    last, found = live._after(live._last - 1_200)
    assert last == live._last
    assert found[0] == b'event: missed\ndata: {"number": 200}\n\n'
    assert len(found) == 1_001


def test_one_watcher_too_many(running: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_automix.serve.live.MOST_WATCHERS", 1)
    with watching(running) as events:
        next_of(events, "state")
        with running.client() as client:
            refused = client.get("/v1/events")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "too_many_watchers"
    wait_for(lambda: running.state.live.watchers == 0)
    with watching(running) as events:
        next_of(events, "state")


def test_a_stream_without_news_has_heartbeats(
    running: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langchain_automix.serve.live._TICK", 0.01)
    monkeypatch.setattr("langchain_automix.serve.live._HEARTBEAT", 0.02)
    with watching(running) as events:
        assert next_of(events, "comment").data == ": still here"


def test_a_stream_ends_when_the_server_does(server: OpenAIServer) -> None:
    with served_mix(server) as running, watching(running) as events:
        next_of(events, "state")
        running.state.is_draining = True
        assert [event.name for event in events][-1] == "stopping"
        wait_for(lambda: running.state.live.watchers == 0)


def test_queries_under_way_are_told(server: OpenAIServer) -> None:
    server.delay = gate = Gate()
    with (
        served_mix(server, verifier=ACCEPTS) as running,
        watching(running) as events,
        ThreadPoolExecutor() as pool,
    ):
        answer = pool.submit(running.chat)
        try:
            while next_of(events, "state").data["in_flight"] != 1:
                pass
        finally:
            gate.open()
        assert answer.result().status_code == 200


def test_what_learns_tells_how_far_it_has_come(server: OpenAIServer, tmp_path: Path) -> None:
    learning = Learning(f"sqlite:///{tmp_path}/learn.db", refit="never")
    mixes = {MIX: chat_mix(server, learning=learning, verifier=SelfVerifier(samples=2))}
    with served(mixes) as running, watching(running) as events:
        while not (mix := next_of(events, "state").data["mixes"][0])["learning"]:
            pass
    learning.close()
    assert mix["policy"] == "v0"
    assert mix["learning"][0] == "0 queries."
    assert str(tmp_path) not in str(mix)


def test_the_page_may_ask_nobody_else(running: Served) -> None:
    with running.client() as client:
        for path in ("/", "/live/page.css", "/live/page.js"):
            shown = client.get(path)
            policy = shown.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            assert shown.headers["x-content-type-options"] == "nosniff"
