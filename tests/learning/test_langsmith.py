"""Feedback on a mix's runs, read from LangSmith as grades, over a server that speaks its wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from langchain_core.runnables import RunnableParallel

from langchain_automix import AutoMixError, Learning
from langchain_automix.learning.langsmith import sync_langsmith
from langchain_automix.learning.records import StoredQuery
from langchain_automix.learning.store.store import LearningStore
from tests.support.builders.langsmith_traces import chain_of, grade, mix_of, traced
from tests.support.builders.stores import query
from tests.support.servers.langsmith_server import LangSmithServer
from tests.support.servers.openai_server import OpenAIServer

pytestmark = pytest.mark.filterwarnings("ignore:(list_runs|read_run)")

COUNTRIES = ({"country": "Italy"}, {"country": "France"}, {"country": "Spain"})


@pytest.fixture
def ls() -> Iterator[LangSmithServer]:
    with LangSmithServer(page=3) as running:
        yield running


@pytest.fixture
def learning(tmp_path: Path) -> Iterator[Learning]:
    made = Learning(f"sqlite:///{tmp_path / 'automix.db'}", refit="never", warm_up_share=0.0)
    yield made
    made.close(5)


def stored(learning: Learning) -> list[StoredQuery]:
    store = LearningStore.open(learning.settings.store)
    epoch = store.newest_epoch()
    assert epoch is not None
    return store.read(epoch)[0]


def given(learning: Learning) -> list[tuple[int, str, float]]:
    found = [g for each in stored(learning) for g in each.grades if g.source != "agreement"]
    return [(grade.model, grade.source, grade.quality) for grade in found]


def test_feedback_on_the_mix_or_on_the_root_of_its_trace(
    server: OpenAIServer, ls: LangSmithServer, learning: Learning
) -> None:
    traced(ls, chain_of(server, learning=learning), *COUNTRIES, project="p")
    assert learning.flush()
    ids = {each.query.run_id for each in stored(learning)}
    ours = [run for run in ls.runs if run["id"] in ids]
    assert len(ours) == 3
    grade(ls, ls.roots[0], 0.5)
    grade(ls, ours[1], 1)
    grade(ls, ls.roots[1], 0)  # the mix's own feedback comes first
    grade(ls, ours[1], 0, key="tone")
    found = learning.sync_langsmith("p", client=ls.client)
    assert (found.traced, found.graded, found.written, found.unusable) == (3, 2, 2, 0)
    assert given(learning) == [(1, "langsmith:correctness", 0.5), (1, "langsmith:correctness", 1.0)]


def test_again_it_writes_only_what_has_changed(
    server: OpenAIServer, ls: LangSmithServer, learning: Learning
) -> None:
    traced(ls, chain_of(server, learning=learning), *COUNTRIES, project="p")
    for root in ls.roots[:2]:
        grade(ls, root, 1)
    assert learning.sync_langsmith("p", client=ls.client).written == 2
    before = given(learning)
    store = LearningStore.open(learning.settings.store)
    epoch = store.newest_epoch() or ""
    _, after = store.read(epoch)
    assert learning.sync_langsmith("p", client=ls.client).written == 0
    assert given(learning) == before
    assert store.read(epoch, after) == ([], after), "nothing is new to a review"
    grade(ls, ls.roots[0], 0)  # a second voice: the mean counts
    assert learning.sync_langsmith("p", client=ls.client).written == 1
    assert sorted(given(learning)) == [
        (1, "langsmith:correctness", 0.5),
        (1, "langsmith:correctness", 1.0),
    ]


def test_a_root_with_several_queries_says_nothing_of_each(
    server: OpenAIServer, ls: LangSmithServer, learning: Learning
) -> None:
    mix = mix_of(server, learning=learning)
    traced(ls, RunnableParallel(one=mix, two=mix), "Capital of Italy?", project="p")
    grade(ls, ls.roots[0], 1)
    assert learning.flush()
    found = learning.sync_langsmith("p", client=ls.client)
    assert (found.traced, found.graded) == (2, 0)


def test_what_is_no_quality_is_counted(
    server: OpenAIServer, ls: LangSmithServer, learning: Learning
) -> None:
    traced(ls, chain_of(server, learning=learning), *COUNTRIES[:2], project="p")
    grade(ls, ls.roots[0], 7)
    found = learning.sync_langsmith("p", client=ls.client)
    assert (found.unusable, found.written) == (1, 0)
    assert "1 have feedback outside [0, 1], which was left out." in str(found)


def test_more_queries_than_one_request_can_name(ls: LangSmithServer, tmp_path: Path) -> None:
    store = LearningStore.open(f"sqlite:///{tmp_path / 'automix.db'}")
    ids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(120)]
    store.add([query(f"q{n}", float(n), run_id=id) for n, id in enumerate(ids)])
    ls.client.create_project("p")
    assert sync_langsmith(store, "p", client=ls.client).traced == 0
    assert sum(path.startswith("/runs/query") for _, path in ls.requests) == 3


def test_what_is_not_there(ls: LangSmithServer, tmp_path: Path) -> None:
    store = LearningStore.open(f"sqlite:///{tmp_path / 'automix.db'}")
    with pytest.raises(AutoMixError, match="holds no query yet"):
        sync_langsmith(store, "p", client=ls.client)
    store.add([query()])
    with pytest.raises(AutoMixError, match="The LangSmith project 'none' cannot be read"):
        sync_langsmith(store, "none", client=ls.client)
