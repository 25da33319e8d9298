"""Who is told of queries that have ended, and that no observer can delay or break one."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from langchain_automix.serve import ServedQuery
from langchain_automix.serve.observing import Observers
from langchain_automix.serve.settings import ServeSettings
from tests.support.builders.mixes import ACCEPTS
from tests.support.builders.waiting import LONG, wait_for
from tests.support.servers.openai_server import OpenAIServer
from tests.support.servers.serving import MIX, chat_mix, served, served_mix


@pytest.fixture
def held() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_an_observer_that_hangs_or_fails_changes_nothing_for_others(
    server: OpenAIServer, held: threading.Event
) -> None:
    told: list[ServedQuery] = []
    late: list[ServedQuery] = []

    def hang(query: ServedQuery) -> None:
        assert held.wait(LONG)
        late.append(query)

    def fail(query: ServedQuery) -> None:
        raise RuntimeError("no")

    mixes = {MIX: chat_mix(server, verifier=ACCEPTS)}
    with served(mixes, observers=[fail, hang, told.append]) as running:
        assert [running.chat().status_code for _ in range(3)] == [200] * 3
        wait_for(lambda: len(told) == 3)  # nor do observers hold up one another
        assert late == []
        held.set()
    assert len(late) == 3  # the app ends once all were told


def test_a_question_is_told_only_where_texts_may_be_shown(server: OpenAIServer) -> None:
    with served_mix(server, ServeSettings(show_texts=True), verifier=ACCEPTS) as running:
        running.chat("Who built it?")
        [query] = running.told()
    assert query.question == "Who built it?"


def test_too_many_queries_are_counted_instead_of_kept(
    held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langchain_automix.serve.observing._MOST_WAITING", 2)
    before = set(threading.enumerate())
    observers = Observers()
    entered = threading.Event()

    def hang(query: ServedQuery) -> None:
        entered.set()
        assert held.wait(LONG)

    observers.add(hang)
    query = ServedQuery(at=0.0, id="chatcmpl-1", mix=MIX, outcome="kept")
    observers.tell(query)
    assert entered.wait(LONG)
    for _ in range(5):
        observers.tell(query)
    assert observers.dropped == 3
    held.set()
    observers.flush()
    observers.remove(hang)
    observers.tell(query)
    assert observers.dropped == 3
    observers.close()
    wait_for(lambda: not any(each.name == "automix-observers" for each in _since(before)))


def _since(before: set[threading.Thread]) -> set[threading.Thread]:
    return set(threading.enumerate()) - before
