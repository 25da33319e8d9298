"""The arithmetic of a spend limit: the rule, the window, and the same rule in Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.store.base import SearchItem
from langgraph.store.memory import InMemoryStore

from langchain_automix.mix.limits import stores as _spend_stores
from langchain_automix.mix.limits.ledger import (
    SLOTS,
    LimitStatus,
    LimitTerms,
    Settlement,
    SpendLedger,
    dollars,
    nanos,
)
from langchain_automix.mix.limits.spend_store import SpendStore
from langchain_automix.mix.limits.stores import GraphStore, ProcessStore, RedisStore
from tests.support.servers.redis_server import needs_redis, redis_server

Step = tuple[Any, int, int | None, int, bool, int]
"""What is done, with which query, at what cost, at most what, whether it was lost, after how many
milliseconds."""


def steps() -> st.SearchStrategy[list[Step]]:
    costs = st.one_of(st.none(), st.integers(0, 400), st.just(2**45))
    return st.lists(
        st.tuples(
            st.sampled_from(["reserve", "reserve", "renew", "settle", "release"]),
            st.integers(0, 5),
            costs,
            st.integers(0, 500),
            st.booleans(),
            st.sampled_from([0, 1, 7, 40, 300, 5000]),
        ),
        max_size=40,
    )


def terms() -> st.SearchStrategy[LimitTerms]:
    limits, widths = st.sampled_from([1, 500, 2000, 2**50]), st.sampled_from([0, 1, 10])
    return st.builds(
        LimitTerms, limits, widths, st.sampled_from([5, 100]), st.sampled_from([0, 300])
    )


@given(st.decimals(min_value=0, max_value=10**6, allow_nan=False))
def test_no_cost_is_counted_as_less_than_it_is(cost: Decimal) -> None:
    assert cost <= dollars(nanos(cost)) < cost + Decimal("1e-9")


class TestTheRule:
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 9), st.integers(1, 100)), max_size=80),
        st.integers(1, 1000),
        st.booleans(),
    )
    def test_the_limit_is_passed_by_one_query_at_most(
        self, asked: list[tuple[int, int]], limit: int, is_told: bool
    ) -> None:
        """Ten queries at a time, none dearer than the dearest before, or than `query_cost`."""
        rule = LimitTerms(limit, 0, 10**9, 100 if is_told else 0)
        book, now, costs, paid = SpendLedger(), 0, dict[int, int](), 0
        for query, cost in asked:
            if query in costs:
                came_to = costs.pop(query)
                paid += came_to
                book.settle(str(query), Settlement(came_to, 100), rule, now)
            elif book.status(rule, now).admission(limit) == "granted":
                book.reserve(str(query), rule, now)
                costs[query] = cost
            assert paid + sum(costs.values()) < limit + 100

    @given(st.integers(0, 20), st.integers(0, 5), st.integers(0, 9), st.integers(1, 20))
    def test_who_is_granted_may_be_granted_with_less_spent(
        self, spent: int, live: int, place: int, limit: int
    ) -> None:
        order = ["granted", "busy", "spent"]
        now, before = (
            order.index(LimitStatus(n, live, 0, place).admission(limit))
            for n in (spent, max(0, spent - 1))
        )
        assert before <= now

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 50)), max_size=60))
    def test_no_window_holds_more_than_the_limit(self, asked: list[tuple[int, int]]) -> None:
        """Whatever moment a window begins at, it has one query more at most."""
        rule = LimitTerms(100, 2, 10**9, 50)
        book, now, paid = SpendLedger(), 0, list[tuple[int, int]]()
        for pause, cost in asked:
            now += pause
            book.forget(rule, now)
            if book.status(rule, now).admission(rule.limit) == "granted":
                book.settle("q", Settlement(cost, cost), rule, now)
                paid.append((now, cost))
        for start, _ in paid:
            within = [cost for when, cost in paid if start <= when < start + 2 * SLOTS]
            assert sum(within) < 100 + 50

    def test_what_left_the_window_is_forgotten(self) -> None:
        rule, book = LimitTerms(100, 10, 50), SpendLedger()
        book.settle("a", Settlement(100, 100), rule, 0)
        book.reserve("lost", rule, 0)
        assert book.status(rule, 60) == LimitStatus(200, 0, 100, 1100)
        for now, gone in ((10 * SLOTS, False), (10 * SLOTS + 10, True)):
            book.forget(rule, now)
            assert (book == SpendLedger()) is gone

    def test_a_query_that_never_settles_counts_as_the_dearest(self) -> None:
        rule, book = LimitTerms(1000, 0, 50), SpendLedger()
        book.reserve("lost", rule, 0)
        assert book.status(rule, 49) == LimitStatus(0, 1, 0, 0)
        assert book.status(rule, 50) == LimitStatus(0, 0, 0, 0)
        book.settle("other", Settlement(30, 40), rule, 60)
        assert book.status(rule, 60) == LimitStatus(70, 0, 40, 440)
        book.settle("lost", Settlement(5, 5), rule, 70)
        assert book.status(rule, 70) == LimitStatus(35, 0, 40, 240)

    def test_an_unknown_cost_is_never_zero(self) -> None:
        rule = LimitTerms(1000, 0, 50)
        for known, counted in ((40, 40), (0, 1000)):
            book = SpendLedger(max_cost={0: known} if known else {})
            book.settle("q", Settlement(None), rule, 0)
            assert book.spent == {0: counted}

    def test_a_lost_cost_waits_for_a_dearest_query(self) -> None:
        rule, book = LimitTerms(1000, 10, 50), SpendLedger()
        book.reserve("q", rule, 0)
        book.settle("q", Settlement(None, 0, is_lost=True), rule, 20)
        book.reservations.pop("q", None)  # a release that was put off
        assert book.status(rule, 20) == LimitStatus(0, 0, 0, 0)
        book.settle("other", Settlement(30, 40), rule, 30)
        assert book.status(rule, 30) == LimitStatus(70, 0, 40, 440)
        book.settle(
            "next", Settlement(None, 60, is_lost=True), rule, 30
        )  # that much is known of it
        assert book.status(rule, 30).spent == 30 + 60 + 60


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


class SafeStore(InMemoryStore):
    """LangGraph's own may fail where one thread searches while another one puts."""

    def __init__(self) -> None:
        super().__init__()
        self._one_at_a_time = threading.Lock()

    def batch(self, ops: Any) -> Any:
        with self._one_at_a_time:
            return super().batch(ops)


@pytest.fixture
def stores(request: pytest.FixtureRequest) -> tuple[SpendStore, SpendStore]:
    """Two that share their books, as two processes would."""
    match request.param:
        case "process":
            one: Any = ProcessStore()
            return one, one
        case "graph":
            shared = SafeStore()
            return GraphStore(shared, "n."), GraphStore(shared, "n.")
        case _:
            from redis import Redis  # noqa: PLC0415  (may be absent)

            url = request.getfixturevalue("redis_url")
            Redis.from_url(url).flushall()
            return RedisStore(Redis.from_url(url), "n"), RedisStore(
                Redis.from_url(url, decode_responses=True), "n"
            )


KINDS = ["process", "graph", pytest.param("redis", marks=needs_redis)]


@needs_redis
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps(), terms())
def test_the_script_is_the_rule(redis_url: str, many: list[Step], rule: LimitTerms) -> None:
    from redis import Redis  # noqa: PLC0415  (may be absent)

    client = Redis.from_url(redis_url, decode_responses=True)
    client.flushall()
    book, now = SpendLedger(), 10**12
    store = RedisStore(client, "n", clock=lambda: now)
    settled = 0
    for step, number, cost, max_cost, lost, later in many:
        now += later
        book.forget(rule, now)
        query = f"q{number}-{settled}"  # one query settles once
        if step == "reserve":  # and does not wait for itself
            book.reservations.pop(query, None)
        status = book.status(rule, now)
        settlement = Settlement(cost, max_cost, lost)
        seen = store.step(step, "all", query, rule, settlement)
        assert seen.status == status
        if step == "reserve":
            assert seen.admission == status.admission(rule.limit)
            if seen.admission == "granted":
                book.reserve(query, rule, now)
        elif step == "settle":
            book.settle(query, settlement, rule, now)
            store.step(step, "all", query, rule, settlement)  # its reply was lost
            settled += 1
        elif step == "renew":
            book.renew(query, rule, now)
        else:
            book.reservations.pop(query, None)
        assert store.status("all", rule) == book.status(rule, now)
    client.close()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps(), st.lists(st.booleans(), min_size=40, max_size=40))
def test_two_processes_with_a_langgraph_store_are_one_book(
    monkeypatch: pytest.MonkeyPatch, many: list[Step], which: list[bool]
) -> None:
    rule, book, now = LimitTerms(2000, 10, 100), SpendLedger(), 10**12
    shared = InMemoryStore()
    both = (GraphStore(shared, "a.b"), GraphStore(shared, "a.b"))
    for (step, number, cost, max_cost, lost, later), second in zip(many, which, strict=False):
        now += later
        monkeypatch.setattr(_spend_stores, "now_ms", lambda now=now: now)
        query = f"q{number}-{second}"
        book.forget(rule, now)
        if step == "reserve":
            if query in book.reservations:  # one query asks once
                continue
            seen = both[second].reserve("all", query, rule)
            assert seen.status == book.status(rule, now)
            if seen.admission == "granted":
                book.reserve(query, rule, now)
        elif step == "settle":
            settlement = Settlement(cost, max_cost, lost)
            both[second].settle("all", query, settlement, rule)
            book.settle(query, settlement, rule, now)
        elif step == "renew":
            both[second].renew("all", query, rule)
            book.renew(query, rule, now)
        else:
            both[second].release("all", query, rule)
            book.reservations.pop(query, None)
        assert both[not second].status("all", rule) == book.status(rule, now)


@pytest.mark.parametrize("stores", KINDS, indirect=True)
class TestEveryStore:
    def test_threads_of_two_processes_lose_nothing(
        self, stores: tuple[SpendStore, SpendStore]
    ) -> None:
        rule = LimitTerms(10**12, 0, 10**6, 1)

        def work(store: SpendStore, name: int) -> None:
            for i in range(25):
                if store.reserve("all", f"{name}-{i}", rule).admission == "granted":
                    store.settle("all", f"{name}-{i}", Settlement(3, 5), rule)
                else:
                    store.settle("all", f"{name}-{i}", Settlement(3), rule)

        threads = [threading.Thread(target=work, args=(stores[i % 2], i)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [store.status("all", rule)[:3] for store in stores] == [(600, 0, 5)] * 2

    def test_of_many_that_ask_at_once_one_at_most_is_first(
        self, stores: tuple[SpendStore, SpendStore]
    ) -> None:
        """While no price is known, queries start one after the other."""
        rule, answers = LimitTerms(1000, 0, 10**6), list[str]()
        threads = [
            threading.Thread(
                target=lambda i=i: answers.append(
                    stores[i % 2].reserve("all", str(i), rule).admission
                )
            )
            for i in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers.count("granted") <= 1
        assert answers.count("granted") + answers.count("busy") == 8

    def test_what_is_done_again_is_done_once(self, stores: tuple[SpendStore, SpendStore]) -> None:
        """A step whose reply was lost is repeated, by redis-py or by whoever settles later."""
        rule = LimitTerms(1000, 0, 10**6)
        for _ in range(2):
            assert stores[0].reserve("all", "q", rule).admission == "granted"
        assert stores[1].reserve("all", "other", rule).admission == "busy"
        for _ in range(2):
            stores[0].release("all", "q", rule)
        assert stores[1].reserve("all", "other", rule).admission == "granted"
        stores[1].settle("all", "other", Settlement(3, 5), rule)
        if isinstance(stores[1], RedisStore):  # the others' steps are not done where they fail
            stores[1].settle("all", "other", Settlement(3, 5), rule)
        assert stores[0].status("all", rule) == LimitStatus(3, 0, 5, 55)

    def test_buckets_do_not_share(self, stores: tuple[SpendStore, SpendStore]) -> None:
        rule = LimitTerms(1000, 1000, 10**6)
        for bucket, cost in (("of:a.b", 3), ("of:a", 5), ("of:", 7), ("of:\N{SNOWMAN} :/", 9)):
            stores[0].settle(bucket, "q", Settlement(cost, cost), rule)
            assert stores[1].status(bucket, rule) == LimitStatus(cost, 0, cost, 11 * cost)

    def test_a_renewed_reservation_outlasts_its_lease(
        self, stores: tuple[SpendStore, SpendStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def at(now: int) -> None:
            monkeypatch.setattr(_spend_stores, "now_ms", lambda: now)
            for store in stores:
                monkeypatch.setattr(store, "_clock", lambda: now, raising=False)

        rule = LimitTerms(1000, 0, 100)
        at(1000)
        assert stores[0].reserve("all", "long", rule).admission == "granted"
        at(1090)
        stores[0].renew("all", "long", rule)
        at(1189)
        assert stores[1].reserve("all", "other", rule).admission == "busy"
        at(1190)
        assert stores[1].status("all", rule).active == 0
        stores[0].renew("all", "long", rule)  # late, but it is still under way
        assert stores[1].reserve("all", "other", rule).admission == "busy"
        stores[0].settle("all", "long", Settlement(3, 5), rule)
        stores[0].renew("all", "long", rule)  # it has settled meanwhile
        assert stores[1].status("all", rule)[:2] == (3, 0)

    def test_a_place_that_is_given_away_is_free(
        self, stores: tuple[SpendStore, SpendStore]
    ) -> None:
        rule = LimitTerms(1000, 0, 10**6)
        # Two in the process's own store: a second query is let in there by the first's going.
        for query in ("a", "b"):
            assert stores[0].reserve("all", query, rule).admission == "granted"
            assert stores[1].reserve("all", "c", rule).admission == "busy"
            stores[0].release("all", query, rule)


def test_a_store_that_finds_by_the_begin_of_a_text_mixes_no_tenants() -> None:
    """As LangGraph's stores in SQL did up to 3.1.0: by `prefix LIKE 'automix.spend._n._of:a%'`."""

    class ByText(InMemoryStore):
        def search(self, namespace_prefix: tuple[str, ...], /, **how: Any) -> list[SearchItem]:
            begin, limit, offset = ".".join(namespace_prefix), how["limit"], how["offset"]
            items = super().search(namespace_prefix[:2], limit=1000)
            found = [item for item in items if ".".join(item.namespace).startswith(begin)]
            return found[offset : offset + limit]

    shared, rule = ByText(), LimitTerms(1000, 0, 10**6)
    stores = [GraphStore(shared, "n") for _ in range(130)]
    for store in stores:
        store.settle("of:acme2", "q", Settlement(3, 3), rule)
    stores[0].settle("of:acme", "q", Settlement(5, 5), rule)
    assert stores[1].status("of:acme", rule).spent == 5
    assert stores[1].status("of:acme2", rule).spent == 390


def test_the_books_of_tenants_long_gone_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    rule, store = LimitTerms(1000, 10, 10), ProcessStore()
    for i in range(5000):
        monkeypatch.setattr(_spend_stores, "now_ms", lambda i=i: 100 * i)
        store.settle(f"of:{i}", "q", Settlement(1, 1), rule)
    assert len(store._ledgers) < 200
