"""Scores of answers, for mixes that learn."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

from langchain_automix import ApiKey, Learning, SelfVerifier
from langchain_automix.serve import feedback
from langchain_automix.serve.settings import ServeSettings
from tests.support.builders.learning_mixes import promote
from tests.support.builders.mixes import ACCEPTS
from tests.support.builders.waiting import LONG
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import Served, chat_mix, next_of, served, watching

UNKNOWN = f"chatcmpl-{'0' * 32}"


@pytest.mark.parametrize("stream", [False, True])
def test_a_score_reaches_what_learns(server: OpenAIServer, tmp_path: Path, stream: bool) -> None:
    learning = Learning(f"sqlite:///{tmp_path}/learn.db", refit="never")
    checked = {"verifier": SelfVerifier(samples=2)}
    mixes = {"mix": chat_mix(server, learning=learning, **checked), "other": chat_mix(server)}
    with served(mixes) as running, running.client() as client:
        response = running.chat(stream=stream)
        [query] = running.told()
        assert query.id in response.text
        taken = client.post("/v1/feedback", json={"id": query.id, "score": 1})
        assert taken.status_code == 200, taken.text
        assert taken.json() == {"id": query.id, "object": "feedback", "score": 1.0}
        unknown = client.post("/v1/feedback", json={"id": UNKNOWN, "score": 1})
        own = client.post("/v1/feedback", json={"id": query.id, "score": 1, "source": "agreement"})
    assert query.policy == "v0"  # nothing is proven yet: the largest model answers
    assert query.model == "large"
    assert learning.flush()
    store = learning.store.get()
    [row] = store.read(str(store.newest_epoch()))[0]
    assert ("feedback", 1.0) in [(each.source, each.quality) for each in row.grades]
    learning.close()
    assert unknown.status_code == 404
    assert unknown.json()["error"]["param"] == "id"
    assert own.status_code == 400


def test_a_store_that_hangs_holds_up_no_other_mix(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = Learning(f"sqlite:///{tmp_path}/learn.db", refit="never")
    answers, waiting = threading.Event(), threading.Semaphore(0)

    def hang(*_: object, **__: object) -> None:
        waiting.release()
        assert answers.wait(LONG)

    monkeypatch.setattr(learning, "feedback", hang)
    mixes = {"learns": chat_mix(server, learning=learning, verifier=SelfVerifier(samples=2))}
    mixes["mix"] = chat_mix(server, verifier=ACCEPTS)
    with served(mixes) as running, ThreadPoolExecutor(40) as pool, running.client() as client:
        given = {"id": UNKNOWN, "score": 1}
        asked = [pool.submit(client.post, "/v1/feedback", json=given) for _ in range(40)]
        for _ in range(5):  # as many as wait at a time on the smallest machine
            assert waiting.acquire(timeout=LONG)
        try:
            # Other settings need a thread, and a new connection needs one to look up an address.
            assert running.chat(temperature=0.5).status_code == 200
            assert not any(each.done() for each in asked)
        finally:
            answers.set()
        assert {each.result().status_code for each in asked} == {200}
    learning.close()


def test_a_store_that_does_not_answer_is_away(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = Learning(f"sqlite:///{tmp_path}/learn.db", refit="never")
    answers = threading.Event()
    monkeypatch.setattr(learning, "feedback", lambda *_, **__: answers.wait(LONG))
    monkeypatch.setattr(feedback, "_STORE_SECONDS", 0.01)
    mix = chat_mix(server, learning=learning, verifier=SelfVerifier(samples=2))
    with served({"mix": mix}) as running, running.client() as client:
        response = client.post("/v1/feedback", json={"id": UNKNOWN, "score": 1})
        answers.set()
    learning.close()
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "store_away"


def test_a_score_comes_by_the_key_that_asked(server: OpenAIServer, tmp_path: Path) -> None:
    learning = Learning(f"sqlite:///{tmp_path}/learn.db", refit="never")
    keys = (ApiKey.of("a", "key-of-team-a"), ApiKey.of("b", "key-of-team-b"))
    mix = chat_mix(server, learning=learning, verifier=SelfVerifier(samples=2))
    asked = {"model": "mix", "messages": [{"role": "user", "content": "Who?"}]}
    with (
        served({"mix": mix}, ServeSettings(keys=keys)) as running,
        running.client("key-of-team-a") as one,
        running.client("key-of-team-b") as other,
    ):
        ids = [one.post("/v1/chat/completions", json=asked).json()["id"] for _ in range(2)]
        given = {"id": ids[0], "score": 0}
        with watching(running, "key-of-team-b") as events:  # as whoever has a key may
            assert next_of(events, "query").data["id"] == ids[0]
        refused = other.post("/v1/feedback", json=given)
        unknown = other.post("/v1/feedback", json={**given, "id": UNKNOWN})
        assert (refused.status_code, refused.json()) == (404, unknown.json())
        assert one.post("/v1/feedback", json=given).status_code == 200
    learning.close()
    assert len(set(ids)) == 2
    assert {UUID(each.removeprefix("chatcmpl-")).version for each in ids} == {4}


def test_a_promotion_decides_the_queries_that_begin_after_it(
    server: OpenAIServer, tmp_path: Path
) -> None:
    learning = Learning(f"sqlite:///{tmp_path}/learn.db", refit="never")
    mix = chat_mix(server, learning=learning, verifier=SelfVerifier(samples=2))
    with served({"mix": mix}) as running:
        assert running.chat().status_code == 200
        assert learning.flush()
        promote(mix.for_calls().bound)  # type: ignore[arg-type]
        learning.refresh()
        assert running.chat().status_code == 200
        assert [query.policy for query in running.told(2)] == ["v0", "v1"]
    learning.close()


def test_where_nothing_learns(running: Served) -> None:
    with running.client() as client:
        given = {"id": running.chat().json()["id"], "score": 1}
        refused = client.post("/v1/feedback", json=given)
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "not_learning"


@pytest.mark.parametrize(
    "given",
    [
        {"id": UNKNOWN, "score": 2},
        {"id": UNKNOWN, "score": -1},
        {"id": UNKNOWN},
        {"id": "run-1", "score": 1},
        {"id": UNKNOWN, "score": 1, "grade": 1},
    ],
)
def test_what_is_no_score(running: Served, given: dict[str, object]) -> None:
    with running.client() as client:
        response = client.post("/v1/feedback", json=given)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
