"""Who waits for a place under a spend limit: nothing is blocked, and no place is lost."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import Any

import pytest
from langgraph.store.memory import InMemoryStore

from langchain_automix import (
    SpendLimit,
    SpendLimitReachedError,
    UncalibratedWarning,
)
from langchain_automix.mix.limits.stores import ProcessStore
from tests.support.builders.mixes import record_of, rejecting
from tests.support.builders.spending import billed, limited, used
from tests.support.servers.openai_server import OpenAIServer

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{UncalibratedWarning.__module__}.UncalibratedWarning"
)


class TestWaiting:
    async def test_it_never_blocks_the_event_loop(self, server: OpenAIServer) -> None:
        """The loop itself lets the first query go on, while the second one waits for it."""
        gate, opened = threading.Event(), []
        server.delay = lambda _: opened.append(gate.wait(60)) or 0.0  # type: ignore[func-returns-value]
        automix = limited(server, SpendLimit("1 USD", when_spent="raise"))
        queries = [asyncio.create_task(automix.ainvoke(text)) for text in "ab"]
        while not server.requests:  # noqa: ASYNC110  (a thread of the server's fills it)
            await asyncio.sleep(0.01)
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert len(server.requests) == 1
        gate.set()
        await asyncio.gather(*queries)
        assert all(opened)
        assert server.most_at_once == 1

    @pytest.mark.parametrize("concurrency", [None, 1, 3])
    def test_a_batch_waits_for_itself(self, server: OpenAIServer, concurrency: int | None) -> None:
        limit = SpendLimit("1 USD", when_spent="raise")
        automix = limited(server, limit)
        config: Any = {"max_concurrency": concurrency} if concurrency else {}
        assert len(automix.batch([f"{i}" for i in range(6)], config)) == 6
        assert len(asyncio.run(automix.abatch([f"{i}" for i in range(6)], config))) == 6
        assert used(limit) == billed(server)

    def test_who_gives_up_waiting_leaves_no_place(self, server: OpenAIServer) -> None:
        limit = SpendLimit("1 USD", when_spent="raise", store=InMemoryStore())
        automix = limited(server, limit)
        limit.books.reserve("all", "somebody", limit.terms)

        async def waits() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(automix.ainvoke("a"), 0.5)

        asyncio.run(waits())
        limit.books.catch_up()
        assert limit.books.status("all", limit.terms).active == 1
        assert server.requests == []

    async def test_who_gives_up_before_the_place_is_given_leaves_none(
        self, server: OpenAIServer
    ) -> None:
        asked, go_on = threading.Event(), threading.Event()

        class Late(ProcessStore):
            is_remote = True

            def reserve(self, *given: Any) -> Any:
                asked.set()
                go_on.wait(20)
                return super().reserve(*given)

        limit = SpendLimit(1)
        limit.__dict__["_books"] = Late()
        automix = limited(server, limit)
        task = asyncio.create_task(automix.ainvoke("a"))
        await asyncio.to_thread(asked.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        limit.books.catch_up()
        go_on.set()
        await asyncio.wait_for(automix.ainvoke("b"), 15)  # which would wait for it
        assert limit.books.status("all", limit.terms).active == 0

    def test_threads_and_an_event_loop_of_one_process(self, server: OpenAIServer) -> None:
        server.script = rejecting(kept="so " * 20)
        limit = SpendLimit("0.30 USD", when_spent="raise")
        automix = limited(server, limit)
        outcomes: list[Any] = []

        def work(number: int) -> None:
            asked = [f"{number} {i}" for i in range(12)]
            given = {"return_exceptions": True}
            if number:  # one event loop: ChatOpenAI's connections belong to one
                outcomes.extend(automix.batch(asked, **given))  # type: ignore[arg-type]
            else:
                outcomes.extend(asyncio.run(automix.abatch(asked, **given)))  # type: ignore[arg-type]

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [each for each in outcomes if isinstance(each, SpendLimitReachedError)]
        costs = [
            Decimal(record_of(each)["cost"].split()[0]) for each in outcomes if each not in refused
        ]
        assert len(refused) + len(costs) == 48
        assert refused
        assert used(limit) == billed(server) == sum(costs) < Decimal("0.3") + max(costs)
