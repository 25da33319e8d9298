"""A store that hangs or is gone holds nobody up, is left alone for a while, and is called so."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import pickle
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from langchain_automix import (
    AutoMixRunnable,
    DeadlineError,
    SelfVerifier,
    SpendLimit,
    SpendLimitReachedError,
    SpendWarning,
    ThresholdRouter,
)
from langchain_automix.mix.limits import spend_session
from langchain_automix.mix.limits.ledger import Settlement
from langchain_automix.mix.limits.spend_store import (
    _AT_ONCE,
    _MAX_DEFERRED,
    BackOff,
    StoreUnreachableError,
)
from tests.support.builders.mixes import record_of
from tests.support.builders.spending import PRICES, used
from tests.support.builders.waiting import wait_for
from tests.support.servers.openai_server import OpenAIServer

pytest.importorskip("redis")


class Silent:
    """Takes connections, and never says a word."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._socket.getsockname()[1]}/0"
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.connections.append(self._socket.accept()[0])

    def close(self) -> None:
        self._socket.close()
        for each in self.connections:
            each.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No query waits long, and none has to be quick: what is counted are connections."""
    monkeypatch.setattr(spend_session, "_STORE_SECONDS", 0.2)
    monkeypatch.setattr(BackOff, "FIRST", 600.0)
    monkeypatch.setattr(BackOff, "LONGEST", 600.0)


def limited(server: OpenAIServer, limit: SpendLimit, **fields: Any) -> AutoMixRunnable:
    models = [server.model("small"), server.model("large")]
    fields = {"router": ThresholdRouter(), "prices": PRICES, **fields}
    return AutoMixRunnable(
        models=models, verifier=SelfVerifier(samples=2), spend_limit=limit, **fields
    )


class TestAStoreThatHangs:
    def test_it_is_waited_for_once(self, server: OpenAIServer, silent: Silent) -> None:
        mix = limited(server, SpendLimit("1 USD", store=silent.url))
        with pytest.warns(SpendWarning, match=r"cannot be reached \(StoreUnreachableError\)"):
            messages = [mix.invoke("Where?") for _ in range(8)]
        assert len(silent.connections) == 1, "it is left alone for a while"
        for message in messages:
            record = record_of(message)
            assert (record["model"], record["drawn"]) == ("small", 0)
            assert "cannot be looked up, for its store does not answer" in record["degraded"]
            assert "is reached" not in record["degraded"]

    async def test_many_at_once_leave_the_executor_free(
        self, server: OpenAIServer, silent: Silent
    ) -> None:
        mix = limited(server, SpendLimit("1 USD", store=silent.url))
        pool = concurrent.futures.ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(pool)
        with pytest.warns(SpendWarning):
            queries = [asyncio.create_task(mix.ainvoke("Where?")) for _ in range(24)]
            await asyncio.sleep(0)  # each has begun to wait, in a thread that is not of the pool
            assert await asyncio.to_thread(lambda: "free") == "free"
            answered = await asyncio.gather(*queries)
        assert all("does not answer" in record_of(each)["degraded"] for each in answered)

    def test_it_raises_where_that_was_asked_for(self, server: OpenAIServer, silent: Silent) -> None:
        mix = limited(server, SpendLimit("1 USD", store=silent.url, when_spent="raise"))
        for _ in range(2):
            with (
                contextlib.suppress(SpendWarning),
                pytest.raises(SpendLimitReachedError, match="cannot be looked up"),
            ):
                mix.invoke("Where?")
        assert server.requests == []

    def test_a_client_of_the_users_own_is_bounded_too(
        self, server: OpenAIServer, silent: Silent
    ) -> None:
        import redis  # noqa: PLC0415  (an extra)

        limit = SpendLimit("1 USD", store=redis.Redis.from_url(silent.url))
        with pytest.warns(SpendWarning):
            message = limited(server, limit).invoke("Where?")
        assert "does not answer" in record_of(message)["degraded"]

    def test_it_is_waited_for_within_the_deadline(
        self, server: OpenAIServer, silent: Silent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spend_session, "_STORE_SECONDS", 3600.0)
        limit = SpendLimit("1 USD", store=silent.url)
        with pytest.warns(SpendWarning):
            message = limited(server, limit, max_latency=8.0).invoke("Where?")
        assert record_of(message)["model"] == "small"


class TestTheBackOff:
    def test_it_doubles_and_one_tries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(BackOff, "FIRST", 1.0)
        monkeypatch.setattr(BackOff, "LONGEST", 30.0)
        now = [0.0]
        back_off = BackOff(lambda: now[0])
        back_off.admit()
        waits = []
        for _ in range(7):
            back_off.failed()
            start = now[0]
            while True:
                try:
                    back_off.admit()
                    break
                except StoreUnreachableError:
                    now[0] += 0.25
            waits.append(now[0] - start)
            with pytest.raises(StoreUnreachableError):
                back_off.admit()
        assert waits == [1, 2, 4, 8, 16, 30, 30]
        back_off.succeeded()
        back_off.admit()
        back_off.admit()

    def test_many_that_fail_together_count_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(BackOff, "FIRST", 1.0)
        monkeypatch.setattr(BackOff, "LONGEST", 30.0)
        now = [0.0]
        back_off = BackOff(lambda: now[0])
        for _ in range(24):
            back_off.failed()
        now[0] = 1.01
        back_off.admit()

    def test_it_goes_to_other_processes(self) -> None:
        pickle.loads(pickle.dumps(BackOff())).admit()


class TestPutOffSteps:
    def test_are_bounded_and_told(self) -> None:
        limit = SpendLimit("1 USD", store="redis://127.0.0.1:1/0")
        with pytest.warns(SpendWarning, match="the oldest of them are dropped"):
            for i in range(_MAX_DEFERRED + 10):
                limit.books.defer(f"of:{i % 7}", lambda: None)
        assert sum(map(len, limit.books._deferred.values())) == _MAX_DEFERRED

    def test_no_query_takes_them_all(self) -> None:
        limit, taken = SpendLimit("1 USD", store="redis://127.0.0.1:1/0"), []
        for i in range(1000):
            limit.books.defer("all", lambda i=i: taken.append(i))  # type: ignore[misc]
        limit.books.catch_up("all")
        assert taken == list(range(_AT_ONCE))
        for _ in range(10):
            limit.books.catch_up("all")
        assert taken == list(range(1000))


class TestAPlaceThatIsNotGivenBack:
    """As by a process that is killed in its first query."""

    def test_those_who_wait_long_are_told(
        self, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spend_session, "_TELLING_WAIT", 0.05)
        limit, told = SpendLimit("1 USD", lease=timedelta(hours=1)), []
        limit.books.reserve("all", "of the killed", limit.terms)

        def tell(text: str, category: Any) -> None:
            told.append((text, category))
            limit.books.release("all", "of the killed", limit.terms)

        monkeypatch.setattr(limit.books, "warn_once", tell)
        message = limited(server, limit).invoke("Where?")
        assert message.content == "a small answer"
        [(text, category)] = told
        assert "keeps its place until the lease is over (1:00:00)" in text
        assert category is SpendWarning

    @pytest.mark.parametrize("how", ["invoke", "ainvoke"])
    async def test_they_wait_no_longer_than_their_time(
        self, server: OpenAIServer, how: str
    ) -> None:
        limit = SpendLimit("1 USD")
        limit.books.reserve("all", "of the killed", limit.terms)
        mix = limited(server, limit, max_latency=0.3)
        with pytest.raises(DeadlineError, match="waited for others under its spend limit"):
            _ = mix.invoke("Where?") if how == "invoke" else await mix.ainvoke("Where?")
        assert server.requests == []
        limit.books.settle("all", "of the killed", Settlement(1, 1), limit.terms)
        assert mix.model_copy(update={"max_latency": None}).invoke("Where?")


def test_a_late_reply_leaves_no_reservation(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store answers after the query has gone on without it: what it granted is given back."""
    from langgraph.store.memory import InMemoryStore  # noqa: PLC0415  (not of the package)

    limit = SpendLimit("1 USD", store=InMemoryStore())
    books, go = limit.books, threading.Event()
    step = books.step

    def late(kind: Any, *args: Any) -> Any:
        if kind == "reserve":
            go.wait(60)
        return step(kind, *args)

    monkeypatch.setattr(books, "step", late)
    with pytest.warns(SpendWarning):
        message = limited(server, limit).invoke("Where?")
    assert "does not answer" in record_of(message)["degraded"]
    go.set()
    monkeypatch.undo()
    books.back_off.succeeded()

    def is_settled() -> bool:
        books.catch_up()
        return not books.status("all", limit.terms).active and bool(used(limit))

    wait_for(is_settled)
